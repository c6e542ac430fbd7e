"""Writing in the ledger: the one way in."""

from __future__ import annotations

from datetime import date, datetime
from typing import Final
from uuid import UUID

from sqlalchemy import insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from models.database import new_id
from models.ledger.rules import GENESIS, Entry, EventType, Posting, booking_day, digest
from models.ledger.tables import LedgerEvent, LedgerPosting, LedgerSeal
from models.orders.reads import Order

# Appends hold it shared, sealing holds it alone: no append can straddle a seal. The triggers take it too.
SEALING: Final = "hashtextextended('packstream:ledger', 0)"
_HOLD_OPEN: Final = text(f"SELECT pg_advisory_xact_lock_shared({SEALING})")


async def append(
    tx: AsyncSession,
    order: Order,
    kind: EventType,
    amount_cents: int,
    postings: tuple[Posting, ...],
    *,
    actor: str,
    now: datetime,
) -> UUID:
    """Write an event of an order whose row the caller holds; its id. Each kind is written once for an order.

    It is booked on its own day, or, where that is sealed, on the first that is not. Until the transaction ends, no day
    is sealed.
    """
    await tx.execute(_HOLD_OPEN)
    before = await _last_of(tx, order.id)
    entry = Entry(
        id=new_id(),
        order_id=order.id,
        sequence=before[0] + 1,
        type=kind,
        amount_cents=amount_cents,
        currency=order.currency,
        buyer_store_id=order.buyer_store_id,
        vendor_store_id=order.vendor_store_id,
        occurred_at=now,
        day=booking_day(now, await last_sealed(tx)),
        actor=actor,
        postings=postings,
        prev_hash=before[1],
    )
    await _keep(tx, entry)
    return entry.id


async def last_sealed(tx: AsyncSession) -> date | None:
    """The newest day that is sealed."""
    return await tx.scalar(select(LedgerSeal.day).order_by(LedgerSeal.day.desc()).limit(1))


async def _last_of(tx: AsyncSession, order_id: UUID) -> tuple[int, bytes]:
    query = select(LedgerEvent.sequence, LedgerEvent.hash).where(LedgerEvent.order_id == order_id)
    found = (await tx.execute(query.order_by(LedgerEvent.sequence.desc()).limit(1))).one_or_none()
    return (0, GENESIS) if found is None else (found.sequence, found.hash)


async def _keep(tx: AsyncSession, entry: Entry) -> None:
    names = [column.name for column in LedgerEvent.__table__.columns if column.name != "hash"]
    await tx.execute(insert(LedgerEvent), {name: getattr(entry, name) for name in names} | {"hash": digest(entry)})
    rows = [{"event_id": entry.id, **posting._asdict()} for posting in entry.postings]
    await tx.execute(insert(LedgerPosting), rows)
