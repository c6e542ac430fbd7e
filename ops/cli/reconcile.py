"""`packstream reconcile --day D`: count the raw topic again and compare everything with it."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import date, datetime

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ops.cli.context import with_settings
from ops.reconcile import Reconciliation, reconcile_days
from ops.settings import Settings


def days_option(_context: click.Context, _parameter: click.Parameter, days: tuple[datetime, ...]) -> list[date]:
    """click's datetimes as days."""
    return [day.date() for day in days]


@click.command()
@click.option(
    "--day",
    "days",
    type=click.DateTime(["%Y-%m-%d"]),
    multiple=True,
    required=True,
    callback=days_option,
    help="UTC day; may be given several times.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a day on standard output.")
@with_settings
def reconcile(settings: Settings, days: list[date], as_json: bool) -> None:
    """Compare counters, rollups and charges of a day with the raw topic. Exit status 1 when anything differs."""
    with Progress(
        SpinnerColumn(), TextColumn("{task.completed} records read"), TimeElapsedColumn(), console=Console(stderr=True)
    ) as bar:
        task = bar.add_task("reconcile", total=None)
        found = asyncio.run(reconcile_days(settings, days, progress=lambda count: bar.advance(task, count)))
    for one in found:
        click.echo(json.dumps(one.as_json(), default=str) if as_json else describe(one))
    sys.exit(0 if all(one.ok for one in found) else 1)


def describe(one: Reconciliation) -> str:
    """A day in words."""
    state = "closed" if one.closed else "open"
    head = f"{one.day}: {state}, {one.accepted} events accepted, {one.adjustments} adjustments, "
    if one.unreadable:
        head += f"{one.unreadable} records that cannot be read (see `packstream dlq list`), "
    if one.ok:
        return head + "all differences are zero"
    lines = [f"  {d.level} {d.key}: expected {d.expected}, found {d.found}" for d in one.differences]
    return head + f"{len(one.differences)} differences\n" + "\n".join(lines)
