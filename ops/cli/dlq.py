"""`packstream dlq list|show|replay|discard`: dead letters from the command line. ops/runbooks/dead-letters.md."""

from __future__ import annotations

import asyncio
import getpass
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

import click
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from models.database import make_engine
from models.dead_letter_commands import Filter, ReplayOutcome, decoded, discard, list_letters, replay, show
from models.dead_letters import DeadLetter, DeadLetterStatus
from models.errors import PackstreamError
from ops.cli.context import utc_text, with_settings
from ops.settings import Settings

R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])

LIST_MAX = 1000
LISTED = ("id", "status", "source", "topic", "key", "event_type", "reason", "attempts", "created_at")

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def filter_options(command: F) -> F:
    """``--source``, ``--topic`` and ``--key``."""
    for name, text in (
        ("--key", "Only this key (aggregate)."),
        ("--topic", "Only this topic, with its prefix."),
        ("--source", "Only letters of this source: relay, or an agent."),
    ):
        command = click.option(name, help=text)(command)
    return command


def in_transaction(settings: Settings, act: Callable[[AsyncSession], Awaitable[R]]) -> R:
    """Run `act` in one transaction, as the owner; a failure that is expected ends the command with one line."""

    async def run() -> R:
        engine = make_engine(settings.sqlalchemy_url, pool_size=1, application="packstream-dlq")
        try:
            async with AsyncSession(engine, expire_on_commit=False) as tx, tx.begin():
                return await act(tx)
        finally:
            await engine.dispose()

    try:
        return asyncio.run(run())
    except (PackstreamError, DBAPIError, OSError) as exc:
        raise click.ClickException(f"dlq: {exc}") from exc


def actor() -> str:
    return f"command:{getpass.getuser()}"


def as_dict(letter: DeadLetter, *, full: bool = False) -> dict[str, Any]:
    """A letter as API.md has it; `full` with its headers, and its payload decoded where it can be."""
    names = [c.name for c in DeadLetter.__table__.columns if c.name != "headers"]
    out: dict[str, Any] = {name: getattr(letter, name) for name in names} | {"payload": letter.payload.hex()}
    if full:
        out |= {"headers": letter.headers, "decoded": decoded(letter)}
    return out


def to_json(value: Any) -> str:
    return json.dumps(value, default=_plain)


def _plain(item: Any) -> str:
    if isinstance(item, bytes):
        return item.hex()
    return utc_text(item) if isinstance(item, datetime) else str(item)


@click.group()
def dlq() -> None:
    """List, show, replay and discard dead letters."""


@dlq.command("list")
@click.option(
    "--status",
    type=click.Choice([*(status.value for status in DeadLetterStatus), "all"]),
    default="parked",
    show_default=True,
)
@click.option("--limit", type=click.IntRange(1, LIST_MAX), default=100, show_default=True)
@filter_options
@json_option
@with_settings
def list_(
    settings: Settings,
    status: str,
    limit: int,
    source: str | None,
    topic: str | None,
    key: str | None,
    as_json: bool,
) -> None:
    """Letters, newest first; those without a decision unless --status says otherwise."""
    wanted = None if status == "all" else DeadLetterStatus(status)
    letters = in_transaction(
        settings,
        lambda tx: list_letters(tx, status=wanted, source=source, topic=topic, key=key, limit=limit),
    )
    if as_json:
        click.echo(to_json([as_dict(letter) for letter in letters]))
        return
    for letter in letters:
        click.echo("  ".join(str(getattr(letter, name)) for name in LISTED))
    click.echo(f"{len(letters)} dead letters", err=True)


@dlq.command("show")
@click.argument("letter_id", metavar="ID", type=click.UUID)
@json_option
@with_settings
def show_(settings: Settings, letter_id: UUID, as_json: bool) -> None:
    """One letter with its payload, decoded."""
    letter = as_dict(in_transaction(settings, lambda tx: show(tx, letter_id)), full=True)
    if as_json:
        click.echo(to_json(letter))
        return
    for name, value in letter.items():
        click.echo(f"{name:15} {to_json(value) if isinstance(value, dict) else value}")


@dlq.command("replay")
@click.argument("letter_ids", metavar="[ID]...", type=click.UUID, nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All parked letters (that the filter options fit).")
@filter_options
@json_option
@with_settings
def replay_(
    settings: Settings,
    letter_ids: tuple[UUID, ...],
    everything: bool,
    source: str | None,
    topic: str | None,
    key: str | None,
    as_json: bool,
) -> None:
    """Send letters on their way again, in order; by id, by filter, or --all.

    Exit status 1 when a letter named by id was not replayed; one that was replayed before counts as done.
    """
    by_filter = everything or any((source, topic, key))
    if bool(letter_ids) == by_filter:
        raise click.UsageError("name letters by id, or say which by --source, --topic, --key or --all")
    which = Filter(source=source, topic=topic, key=key) if by_filter else letter_ids
    done = in_transaction(settings, lambda tx: replay(tx, which, actor=actor(), now=datetime.now(UTC)))
    if as_json:
        click.echo(to_json([item._asdict() for item in done]))
    else:
        for item in done:
            click.echo(f"{item.id}  {item.outcome}")
    good = (ReplayOutcome.REPLAYED, ReplayOutcome.ALREADY_REPLAYED)
    if any(item.outcome not in good for item in done):
        raise SystemExit(1)


@dlq.command("discard")
@click.argument("letter_id", metavar="ID", type=click.UUID)
@click.option("--reason", required=True, metavar="TEXT", help="Why; it is kept in the audit log.")
@json_option
@with_settings
def discard_(settings: Settings, letter_id: UUID, reason: str, as_json: bool) -> None:
    """Give a parked letter up for good; what waits behind it goes on."""
    if not reason.strip():
        raise click.UsageError("--reason must say something")
    letter = in_transaction(
        settings, lambda tx: discard(tx, letter_id, reason=reason.strip(), actor=actor(), now=datetime.now(UTC))
    )
    click.echo(to_json(as_dict(letter)) if as_json else f"{letter.id}  discarded")
