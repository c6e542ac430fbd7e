"""Queries on the ledger, and the payouts that follow from it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from models.errors import NotFound
from models.ledger.rules import Account, fee_of
from models.ledger.tables import LedgerEvent
from models.orders import reads as orders
from models.orders.reads import Order
from models.orders.rules import IntentStatus


@dataclass(frozen=True, slots=True)
class Payout:
    """What is, or was, to be paid to a vendor for an order; `events` are the order's in the ledger."""

    order: Order
    events: Sequence[LedgerEvent]
    fee_bp: int  #: for payouts to come

    @property
    def fee_cents(self) -> int:
        """The platform's: what was kept, or would be now."""
        if self.order.payment_intent.status == IntentStatus.PAID:
            postings = [posting for event in self.events for posting in event.postings]
            return -sum(one.amount_cents for one in postings if one.account == Account.PLATFORM_FEES)
        return fee_of(self.order.total_cents, self.fee_bp)


async def payouts(
    tx: AsyncSession, *, fee_bp: int, limit: int, after: tuple[datetime, UUID] | None = None
) -> list[Payout]:
    """The payouts to come, the longest settled first, by the intent's (settled_at, id)."""
    found = await orders.payable(tx, limit=limit, after=after)
    events = await events_of(tx, [order.id for order in found])
    return [Payout(order, events[order.id], fee_bp) for order in found]


async def payout(tx: AsyncSession, order_id: UUID, *, fee_bp: int) -> Payout:
    """The payout of an order, to come or confirmed. NotFound for an order that is not settled."""
    order = await orders.any_order(tx, order_id)
    if order.payment_intent.status not in (IntentStatus.SETTLED, IntentStatus.PAID):
        raise NotFound("there is no payout for this order")
    return await payout_of(tx, order, fee_bp=fee_bp)


async def payout_of(tx: AsyncSession, order: Order, *, fee_bp: int) -> Payout:
    """The payout of an order that the caller has."""
    return Payout(order, (await events_of(tx, [order.id]))[order.id], fee_bp)


async def events_of(tx: AsyncSession, order_ids: Collection[UUID]) -> defaultdict[UUID, list[LedgerEvent]]:
    """The events of orders, in sequence, with their postings."""
    query = select(LedgerEvent).where(LedgerEvent.order_id.in_(order_ids)).options(selectinload(LedgerEvent.postings))
    found: defaultdict[UUID, list[LedgerEvent]] = defaultdict(list)
    for event in await tx.scalars(query.order_by(LedgerEvent.order_id, LedgerEvent.sequence)):
        found[event.order_id].append(event)
    return found
