"""`packstream reconcile --day D`: count the raw topic again and compare everything with it."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import date, datetime

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from models.errors import Unavailable
from ops.cli.context import with_settings
from ops.gap_proof import TopicProof, prove
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
    callback=days_option,
    help="UTC day; may be given several times.",
)
@click.option("--facts", is_flag=True, help="Prove that the warehouse has every committed event, topic by topic.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a day, or a topic, on standard output.")
@with_settings
def reconcile(settings: Settings, days: list[date], facts: bool, as_json: bool) -> None:
    """Compare counters, rollups and charges of a day with the raw topic. Exit status 1 when anything differs.

    With --facts (and no day): Postgres against Kafka against the warehouse, each topic with the watermark up to which
    every committed event is proved present.
    """
    if facts == bool(days):
        raise click.UsageError("say either --day (once or more) or --facts")
    if facts:
        _prove(settings, as_json)
    with Progress(
        SpinnerColumn(), TextColumn("{task.completed} records read"), TimeElapsedColumn(), console=Console(stderr=True)
    ) as bar:
        task = bar.add_task("reconcile", total=None)
        found = asyncio.run(reconcile_days(settings, days, progress=lambda count: bar.advance(task, count)))
    for one in found:
        click.echo(json.dumps(one.as_json(), default=str) if as_json else describe(one))
    sys.exit(0 if all(one.ok for one in found) else 1)


def _prove(settings: Settings, as_json: bool) -> None:
    """Print the proof of each topic, and leave with 0 only without a gap."""
    if not settings.has_warehouse:
        raise click.ClickException("no warehouse is configured: set BIGQUERY_PROJECT, or BIGQUERY_ENDPOINT")
    try:
        found = asyncio.run(prove(settings))
    except Unavailable as exc:
        raise click.ClickException(exc.detail) from exc
    for one in found:
        click.echo(json.dumps(one.as_json()) if as_json else describe_proof(one))
    sys.exit(0 if all(one.ok for one in found) else 1)


def describe_proof(one: TopicProof) -> str:
    """A topic in words."""
    head = (
        f"{one.topic}: all that was committed before {one.watermark} is present; {one.committed} events,"
        f" {one.in_kafka} in Kafka, {one.in_warehouse} in the warehouse with {one.rows} rows, {one.pending} to come,"
        f" {one.letters} dead letters, {one.parked} parked by the relay"
    )
    lines = [f"  {gap.level}: {gap.key} of event {gap.event_id} is missing" for gap in one.missing]
    return "\n".join([head, *lines])


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
