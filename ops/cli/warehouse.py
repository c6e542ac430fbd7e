"""`packstream warehouse apply|check`: make the warehouse's tables and views, and say what differs."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click

from models.analytics.gateway import BigQuery
from models.errors import Unavailable
from ops.cli.context import with_settings
from ops.settings import Settings
from ops.warehouse import apply as apply_all
from ops.warehouse import check as check_all
from ops.warehouse import connected_warehouse, lines

T = TypeVar("T")

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")


@click.group()
def warehouse() -> None:
    """Tables and views of the warehouse."""


@warehouse.command()
@json_option
@with_settings
def apply(settings: Settings, as_json: bool) -> None:
    """Make what is missing; columns are added, nothing is changed or taken away. Again: nothing happens."""
    done = _run(settings, apply_all)
    shown = json.dumps({"ok": True, "done": done}) if as_json else "\n".join(done) or "all is there"
    click.echo(shown, err=not as_json)


@warehouse.command()
@json_option
@with_settings
def check(settings: Settings, as_json: bool) -> None:
    """Name each difference from schemas/warehouse/, and rows that are there twice. Exit status 1 when there is any."""
    found = _run(settings, check_all)
    if as_json:
        click.echo(json.dumps({"ok": not found, "differences": [d._asdict() for d in found]}))
    else:
        click.echo("\n".join(lines(found)) or "the warehouse is as it should be")
    sys.exit(1 if found else 0)


def _run(settings: Settings, work: Callable[[BigQuery], Awaitable[T]]) -> T:
    if not settings.has_warehouse:
        raise click.ClickException("no warehouse is configured: set BIGQUERY_PROJECT, or BIGQUERY_ENDPOINT")

    async def run() -> T:
        store = connected_warehouse(settings)
        try:
            return await work(store)
        finally:
            store.close()

    try:
        return asyncio.run(run())
    except Unavailable as exc:
        raise click.ClickException(exc.detail) from exc
