"""`packstream ledger check` finds whatever a superuser changes behind the ledger's back, and names the row."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from models.database import make_engine, make_sessions
from models.ledger import checking, sealing
from models.ledger.replay import Fault
from models.ledger.rules import GENESIS, digest, events_digest, seal_digest
from ops.cli.ledger import ledger
from ops.settings import Settings, asyncpg_url
from tests.api_driver import Api, Person, ok, running
from tests.cart_shop import NOON
from tests.delivery_driver import appoint
from tests.ledger_driver import confirm, delivered, settle_ach, settled

DAY = timedelta(days=1)
TABLES = ("ledger_events", "ledger_postings", "ledger_seals")


@dataclass(frozen=True)
class Books:
    """Orders paid on the first day (`paid`, by ACH `ach`), settled on the first (`open`) and the third (`late`).

    The first two days are sealed.
    """

    api: Api
    paid: str
    ach: str
    open: str
    late: str


@pytest.fixture
async def books(alone_settings: Settings) -> AsyncIterator[Books]:
    async with running(alone_settings.model_copy(update={"auto_assign": False, "platform_fee_bp": 100})) as api:
        yield await kept(api, await appoint(api), await api.register_admin())


async def kept(api: Api, agent: Person, admin: Person) -> Books:
    paid, ach = await settled(api, agent, 2), await delivered(api, agent, 3, payment_method="ach")
    ok(await settle_ach(api, admin, ach.id))
    for one in (paid, ach):
        ok(await confirm(api, admin, one.id))
    opened, late = await settled(api, agent), await settled(api, agent, now=NOON + 2 * DAY)
    async with superuser(api) as tx:
        assert await sealing.seal_days(tx, limit=9, now=NOON + 2 * DAY, skew_s=5) == 2
        await tx.commit()
    return Books(api, paid.id, ach.id, opened.id, late.id)


@asynccontextmanager
async def superuser(api: Api) -> AsyncIterator[AsyncSession]:
    """A transaction for which no trigger of the ledger and no foreign key fires. It is rolled back."""
    engine = make_engine(asyncpg_url(api.services.settings.database_url), pool_size=1, application="test")
    async with make_sessions(engine)() as tx:
        for table in TABLES:
            await tx.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER ALL"))
        yield tx
        await tx.rollback()
    await engine.dispose()


def packstream(api: Api, monkeypatch: pytest.MonkeyPatch, *args: str) -> Any:
    """Runs `packstream ledger check` against the test's database, in a thread: it has a loop of its own."""
    settings = api.services.settings
    monkeypatch.setenv("DATABASE_URL", settings.database_url)
    monkeypatch.setenv("PACKSTREAM_ENV", "test")
    call = ["check", *args, "--data", settings.data_dir]
    return asyncio.to_thread(CliRunner().invoke, ledger, call, catch_exceptions=False)


# -- whole books ------------------------------------------------------------------------------------------------------


async def test_whole_books_are_found_whole_and_balance(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    result: Result = await packstream(books.api, monkeypatch, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["balances"] == {"bank": 30, "cash": 2_020, "platform_fees": -50, "vendor_payable": -2_000}
    assert sum(found["balances"].values()) == 0
    assert (found["ok"], found["orders"], found["events"], found["seals"]) == (True, 4, 6, 2)
    assert (found["sealed_until"], found["first_bad"], found["faults"]) == ("2027-03-02", None, [])
    words: Result = await packstream(books.api, monkeypatch)
    assert words.exit_code == 0
    assert "6 events of 4 orders, sealed until 2027-03-02: the books are whole" in words.stdout
    assert f"seal 2027-03-02={found['seal']}" in words.stdout


async def test_a_changed_byte_makes_the_command_fail_and_name_the_row(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with superuser(books.api) as tx:
        change = "UPDATE ledger_events SET actor = actor || 'x' WHERE order_id = :id AND sequence = 2 RETURNING id"
        event_id = await tx.scalar(text(change), {"id": UUID(books.paid)})
        await tx.commit()
    result: Result = await packstream(books.api, monkeypatch, "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["ok"] is False
    assert found["first_bad"] == {
        "code": "changed",
        "detail": "the row or its postings are not what was hashed",
        "order_id": books.paid,
        "event_id": str(event_id),
        "sequence": 2,
        "day": "2027-03-01",
    }
    words: Result = await packstream(books.api, monkeypatch)
    assert words.exit_code == 1
    assert f"changed: order {books.paid} event {event_id} sequence 2" in words.stdout


async def test_a_seal_that_was_noted_elsewhere_is_compared(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = json.loads((await packstream(books.api, monkeypatch, "--json")).stdout)
    noted = f"2027-03-02={whole['seal']}"
    assert (await packstream(books.api, monkeypatch, "--seal", noted)).exit_code == 0
    for wrong, status in ((f"2027-03-01={whole['seal']}", 1), (f"2027-03-09={whole['seal']}", 1), ("x=y", 2)):
        assert (await packstream(books.api, monkeypatch, "--seal", wrong)).exit_code == status


# -- tampering --------------------------------------------------------------------------------------------------------

EVENT = "ledger_events WHERE order_id = :{} AND sequence = {}"
POSTINGS = "ledger_postings WHERE event_id = (SELECT id FROM ledger_events WHERE order_id = :{} AND sequence = {})"
ORDER = "UPDATE orders SET {} WHERE id = :{}"
INTENT = "UPDATE payment_intents SET {} WHERE order_id = :{}"


def changed(assignment: str, place: str) -> str:
    table, _, where = place.partition(" WHERE ")
    return f"UPDATE {table} SET {assignment} WHERE {where}"


def gone(place: str) -> str:
    return f"DELETE FROM {place}"


TAMPERING: dict[str, tuple[Sequence[str], str, str, int | None]] = {
    "amount": ([changed("amount_cents = amount_cents + 1", EVENT.format("open", 1))], "changed", "open", 1),
    "hash": ([changed("hash = set_byte(hash, 7, 0)", EVENT.format("paid", 1))], "changed", "paid", 1),
    "day": ([changed("day = day + 1", EVENT.format("ach", 2))], "changed", "ach", 2),
    "currency": ([changed("currency = 'EUR'", EVENT.format("late", 1))], "changed", "late", 1),
    "time": ([changed("occurred_at = occurred_at - interval '1 us'", EVENT.format("late", 1))], "changed", "late", 1),
    "a posting": ([changed("amount_cents = amount_cents * 2", POSTINGS.format("paid", 1))], "changed", "paid", 1),
    "another account": (
        [changed("account = 'bank'", POSTINGS.format("open", 1) + " AND account = 'cash'")], "changed", "open", 1,
    ),
    "a posting gone": ([gone(POSTINGS.format("paid", 2) + " AND account = 'cash'")], "changed", "paid", 2),
    "the first event gone": ([gone(POSTINGS.format("paid", 1)), gone(EVENT.format("paid", 1))], "gap", "paid", 2),
    "the last event gone": (
        [gone(POSTINGS.format("paid", 2)), gone(EVENT.format("paid", 2))], "disagrees", "paid", 1,
    ),
    "an event gone without its postings": ([gone(EVENT.format("open", 1))], "broken_seal", "", None),
    "an unsealed event gone": (
        [gone(POSTINGS.format("late", 1)), gone(EVENT.format("late", 1))], "disagrees", "late", None,
    ),
    "an order's total": (
        [ORDER.format("shipping_cents = 1, total_cents = total_cents + 1", "paid")], "disagrees", "paid", 1,
    ),
    "an intent's amount": ([INTENT.format("amount_cents = 1", "late")], "disagrees", "late", 1),
    "an intent settled by hand": ([INTENT.format("status = 'paid', paid_at = now()", "open")], "disagrees", "open", 1),
    "an intent unsettled": ([INTENT.format("status = 'unpaid'", "open")], "disagrees", "open", 1),
    "an order reopened": ([ORDER.format("status = 'delivered'", "ach")], "disagrees", "ach", 2),
    "a method": ([ORDER.format("payment_method = 'cash'", "ach")], "disagrees", "ach", 2),
    "a seal": (["UPDATE ledger_seals SET sealed_at = sealed_at + interval '1 us'"], "broken_seal", "", None),
    "the first seal gone": (["DELETE FROM ledger_seals WHERE day = '2027-03-01'"], "broken_seal", "", None),
}  # fmt: skip


async def check_behind(api: Api, statements: Sequence[str], **ids: str) -> list[Fault]:
    """The faults that a check finds behind statements of a superuser, which are not kept."""
    async with superuser(api) as tx:
        for statement in statements:
            values = {name: UUID(value) for name, value in ids.items() if f":{name}" in statement}
            await tx.execute(text(statement), values)
        return (await checking.check(tx)).faults


async def test_whatever_is_changed_is_found_and_named(books: Books) -> None:
    ids = {"paid": books.paid, "ach": books.ach, "open": books.open, "late": books.late}
    for what, (statements, code, order, sequence) in TAMPERING.items():
        faults = await check_behind(books.api, statements, **ids)
        assert faults, what
        first = faults[0]
        assert (first.code, first.sequence) == (code, sequence), (what, faults)
        assert (str(first.order_id) == ids[order]) if order else (first.order_id is None), what
        if code == "broken_seal":
            assert str(first.day) == "2027-03-01", what
    assert await check_behind(books.api, []) == []


async def test_an_unbalanced_event_is_found_however_well_it_is_hashed(books: Books) -> None:
    async with superuser(books.api) as tx:
        cents = "UPDATE ledger_postings SET amount_cents = -999 WHERE amount_cents = -1000 AND event_id = (SELECT id"
        await tx.execute(text(f"{cents} FROM ledger_events WHERE order_id = :id)"), {"id": UUID(books.open)})
        await forge(tx, books.open)
        faults = (await checking.check(tx)).faults
    assert (faults[0].code, str(faults[0].order_id)) == ("unbalanced", books.open)


async def forge(tx: AsyncSession, order_id: str, *, first: int = 1, last: int = 9) -> None:
    """What someone does who knows how: hash events again, each bound to the one before it."""
    prev_hash = None
    async for batch in checking.batches(tx):
        for entry, kept_hash in [event for event in batch if str(event.entry.order_id) == order_id]:
            if first <= entry.sequence <= last:
                entry = entry if prev_hash is None else replace(entry, prev_hash=prev_hash)
                kept_hash = digest(entry)
                values = {"id": entry.id, "prev": entry.prev_hash, "hash": kept_hash}
                await tx.execute(
                    text("UPDATE ledger_events SET prev_hash = :prev, hash = :hash WHERE id = :id"), values
                )
            prev_hash = kept_hash


async def forge_seals(tx: AsyncSession, days: int) -> None:
    """The same with the oldest seals."""
    prev_hash = GENESIS
    for seal in (await tx.execute(text("SELECT * FROM ledger_seals ORDER BY day"))).all()[:days]:
        rows = "SELECT hash FROM ledger_events WHERE day = :day ORDER BY order_id, sequence"
        hashes = (await tx.execute(text(rows), {"day": seal.day})).scalars().all()
        events_hash = events_digest(hashes)
        hash_ = seal_digest(seal.day, len(hashes), events_hash, prev_hash, seal.sealed_at)
        change = "UPDATE ledger_seals SET events_hash = :events, prev_hash = :prev, hash = :hash WHERE day = :day"
        await tx.execute(text(change), {"events": events_hash, "prev": prev_hash, "hash": hash_, "day": seal.day})
        prev_hash = hash_


async def test_who_hashes_a_changed_row_again_breaks_the_chain_and_then_the_seals(books: Books) -> None:
    async def first_fault(*, events: int, seals: int) -> tuple[str, int | None, str] | None:
        async with superuser(books.api) as tx:
            change = "UPDATE ledger_events SET actor = 'nobody' WHERE order_id = :id AND sequence = 1"
            await tx.execute(text(change), {"id": UUID(books.paid)})
            await forge(tx, books.paid, last=events)
            await forge_seals(tx, seals)
            faults = (await checking.check(tx)).faults
        return (faults[0].code, faults[0].sequence, str(faults[0].day)) if faults else None

    assert await first_fault(events=1, seals=0) == ("broken_chain", 2, "2027-03-01")
    assert await first_fault(events=2, seals=0) == ("broken_seal", None, "2027-03-01")
    assert await first_fault(events=2, seals=1) == ("broken_seal", None, "2027-03-02")
    assert await first_fault(events=2, seals=2) is None  # which is why seals are noted elsewhere
