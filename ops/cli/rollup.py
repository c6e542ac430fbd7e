"""`packstream rollup status|run`: whether a day of advertising is closed and charged; charge it again."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import date, datetime, timedelta
from typing import Any

import click
from sqlalchemy.ext.asyncio import AsyncSession

from models import metadata
from models.ads import closing, reconciling
from models.ads.closing import DayNotClosedError
from models.clock import Clock
from models.database import make_engine, make_sessions
from ops.cli.context import utc_text, with_settings
from ops.settings import Settings

NOT_CLOSED_EXIT_CODE = 3
TABLES = metadata.metadata

DAY = click.DateTime(["%Y-%m-%d"])

day_option = click.option("--day", type=DAY, required=True, help="UTC day.")
json_option = click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")


@click.group()
def rollup() -> None:
    """Days of advertising: closed, rolled up, charged."""


@rollup.command()
@click.option("--day", type=DAY, help="UTC day; default: the last one that is over.")
@json_option
@with_settings
def status(settings: Settings, day: datetime | None, as_json: bool) -> None:
    """Show how far a day is."""
    found = asyncio.run(_status(settings, None if day is None else day.date()))
    click.echo(json.dumps(found) if as_json else "\n".join(f"{name}: {value}" for name, value in found.items()))


@rollup.command()
@day_option
@json_option
@with_settings
def run(settings: Settings, day: datetime, as_json: bool) -> None:
    """Charge a closed day. Again: nothing changes. A day not closed: exit status 3, nothing changes."""
    try:
        changed = asyncio.run(_run(settings, day.date()))
    except DayNotClosedError as exc:
        click.echo(
            json.dumps({"day": str(day.date()), "error": exc.detail}) if as_json else exc.detail, err=not as_json
        )
        sys.exit(NOT_CLOSED_EXIT_CODE)
    found = asyncio.run(_status(settings, day.date())) | {"changed": changed}
    click.echo(json.dumps(found) if as_json else f"{day.date()}: {'charged' if changed else 'was charged before'}")


async def _status(settings: Settings, asked: date | None) -> dict[str, Any]:
    engine = make_engine(settings.sqlalchemy_url, pool_size=1, application="packstream-rollup")
    try:
        async with make_sessions(engine)() as tx:
            day = asked or (await _now(settings, tx)).date() - timedelta(days=1)
            found = await reconciling.read_day(tx, day)
    finally:
        await engine.dispose()
    totals = found.rollups.values()
    return {
        "day": day.isoformat(),
        "closed": found.closures >= settings.ad_shards,
        "shards_closed": found.closures,
        "shards": settings.ad_shards,
        "charged_at": None if found.charged_at is None else utc_text(found.charged_at),
        "ads": len(found.rollups),
        "impressions": sum(t.impressions for t in totals),
        "clicks": sum(t.clicks for t in totals),
        "spend_micros": sum(t.spend_micros for t in totals),
        "charges": len(found.charges),
        "amount_cents": sum(cents for _, cents in found.charges.values()),
    }


async def _run(settings: Settings, day: date) -> bool:
    engine = make_engine(settings.sqlalchemy_url, pool_size=1, application="packstream-rollup")
    try:
        async with make_sessions(engine).begin() as tx:
            return await closing.charge_day(tx, day, shards=settings.ad_shards, now=await _now(settings, tx))
    finally:
        await engine.dispose()


async def _now(settings: Settings, tx: AsyncSession) -> datetime:
    """Business time."""
    clock = Clock()
    if settings.test_clock:
        await clock.refresh(tx)
    return clock.now()
