"""`packstream ledger check`: replay the books, and name the first row that is wrong. ops/runbooks/ledger.md."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from datetime import date
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sqlalchemy.exc import SQLAlchemyError

from models import metadata
from models.database import make_engine, make_sessions
from models.ledger import checking
from models.ledger.checking import Check
from models.ledger.replay import Fault
from ops.cli.context import with_settings
from ops.settings import Settings

TABLES = metadata.metadata


@click.group()
def ledger() -> None:
    """The books: append-only, hash-chained, sealed day by day."""


@ledger.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@click.option(
    "--seal",
    "seals",
    metavar="DAY=HASH",
    multiple=True,
    callback=lambda _context, _parameter, texts: dict(map(parse_seal, texts)),
    help="A seal that was noted elsewhere; may be given several times.",
)
@with_settings
def check(settings: Settings, as_json: bool, seals: dict[date, str]) -> None:
    """Replay all events, postings and seals, and compare them with the orders. Exit status 1 when anything is wrong."""
    try:
        found = asyncio.run(_check(settings, seals))
    except (SQLAlchemyError, OSError) as exc:
        raise click.ClickException(f"ledger: {exc}") from exc
    click.echo(json.dumps(as_dict(found)) if as_json else describe(found))
    sys.exit(0 if found.ok else 1)


def parse_seal(text: str) -> tuple[date, str]:
    """``2026-01-31=ab12…`` as a day and a hash in hexadecimal."""
    day, _, hash_ = text.partition("=")
    try:
        return date.fromisoformat(day), bytes.fromhex(hash_).hex()
    except ValueError:
        raise click.BadParameter(f"expected DAY=HASH, not {text!r}") from None


async def _check(settings: Settings, seals: dict[date, str]) -> Check:
    engine = make_engine(settings.sqlalchemy_url, pool_size=1, application="packstream-ledger")
    columns = TextColumn("ledger check"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    try:
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            async with make_sessions(engine).begin() as tx:
                await checking.one_moment(tx)
                task = bar.add_task("ledger", total=await checking.count(tx))
                found = await checking.check(tx, progress=advance(bar, task))
                found.note(await checking.noted_faults(tx, seals))
                return found
    finally:
        await engine.dispose()


def advance(bar: Progress, task: Any) -> Callable[[int], None]:
    return lambda events: bar.advance(task, events)


def as_dict(found: Check) -> dict[str, Any]:
    """The check as JSON has it; `first_bad` is the first fault."""
    faults = [fault_as_dict(fault) for fault in found.faults]
    return {
        "ok": found.ok,
        "orders": found.orders,
        "events": found.events,
        "seals": found.seals,
        "sealed_until": found.sealed_until.isoformat() if found.sealed_until else None,
        "seal": found.seal.hex() if found.seal else None,
        "balances": dict(sorted(found.balances.items())),
        "first_bad": faults[0] if faults else None,
        "faults": faults,
    }


def fault_as_dict(fault: Fault) -> dict[str, Any]:
    """Ids and days as text; what a fault does not have is null."""
    fields = fault._asdict().items()
    return {name: value if value is None or isinstance(value, int) else str(value) for name, value in fields}


def describe(found: Check) -> str:
    """The check in words."""
    sealed = f"sealed until {found.sealed_until}" if found.sealed_until else "no day sealed"
    head = f"{found.events} events of {found.orders} orders, {sealed}"
    if not found.ok:
        return "\n".join([f"{head}: {len(found.faults)} faults; the first bad row:", *map(line, found.faults)])
    books = [f"  {account} {cents / 100:,.2f}" for account, cents in sorted(found.balances.items())]
    seal = [f"  seal {found.sealed_until}={found.seal.hex()}"] if found.seal else []
    return "\n".join([f"{head}: the books are whole", *books, *seal])


def line(fault: Fault) -> str:
    places = {"order": fault.order_id, "event": fault.event_id, "sequence": fault.sequence, "day": fault.day}
    where = " ".join(f"{name} {value}" for name, value in places.items() if value is not None)
    return f"  {fault.code}: {where}: {fault.detail}"
