"""`packstream backfill analytics`: make the warehouse's rows again from Postgres."""

from __future__ import annotations

import asyncio
import json
import sys

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from models import metadata
from models.analytics.positions import SucceededError
from models.errors import Unavailable
from ops.backfill import as_json as report_as_json
from ops.backfill import backfill as run
from ops.cli.context import with_settings
from ops.settings import Settings

TABLES = metadata.metadata


@click.group()
def backfill() -> None:
    """Make again from Postgres what is made from its events."""


@backfill.command()
@click.option("--restart", is_flag=True, help="From the beginning, also where a run was interrupted.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@with_settings
def analytics(settings: Settings, restart: bool, as_json: bool) -> None:
    """Write the facts that the warehouse lacks, with the stream's ids; twice, or beside the stream, nothing doubles.

    Exit status 1 when a row was refused, or a part stays away: run it again, it goes on where it was.
    """
    if not settings.has_warehouse:
        raise click.ClickException("no warehouse is configured: set BIGQUERY_PROJECT, or BIGQUERY_ENDPOINT")
    columns = SpinnerColumn(), TextColumn("{task.completed} orders and stores' days"), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("backfill", total=None)
        try:
            report = asyncio.run(run(settings, restart=restart, progress=lambda count: bar.advance(task, count)))
        except (Unavailable, SucceededError) as exc:
            raise click.ClickException(str(exc)) from exc
    found = report_as_json(report)
    click.echo(json.dumps(found) if as_json else "\n".join(f"{name}: {value}" for name, value in found.items()))
    sys.exit(0 if report.ok else 1)
