"""Administrators: what vendors are to be paid, and what came in by bank transfer."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from fastapi import APIRouter

from api.dependencies import Admin, Now, Process, Tx
from api.envelope import Envelope, ListEnvelope
from api.idempotency import IdempotentRoute, KeyGiven
from api.pagination import Key, Paged
from models.ledger import reads, writes
from models.ledger.reads import Payout
from schemas.http.ledger import LedgerEventOut, PayoutOut
from schemas.http.orders import OrderOut

LIST: Final = "payouts"

router = APIRouter(prefix="/api/admin/payouts", tags=["payouts"], route_class=IdempotentRoute)
orders_router = APIRouter(prefix="/api/admin/orders", tags=["payouts"], route_class=IdempotentRoute)


@router.get("")
async def list_payouts(admin: Admin, tx: Tx, page: Paged, process: Process) -> ListEnvelope[PayoutOut]:
    """Delivered orders that are settled and not paid out, the longest settled first."""
    rows = await reads.payouts(
        tx, fee_bp=process.settings.platform_fee_bp, limit=page.limit + 1, after=page.after_time(LIST)
    )
    shown, cursor = page.cut(LIST, [shape(row) for row in rows], _by_settlement)
    return ListEnvelope.of(shown, cursor)


@router.get("/{order_id}")
async def get_payout(order_id: UUID, admin: Admin, tx: Tx, process: Process) -> Envelope[PayoutOut]:
    """The payout of a settled order, confirmed or not, with what the ledger has of it."""
    return Envelope(data=shape(await reads.payout(tx, order_id, fee_bp=process.settings.platform_fee_bp)))


@router.post("/{order_id}/confirm")
async def confirm_payout(
    order_id: UUID, admin: Admin, _key: KeyGiven, tx: Tx, now: Now, process: Process
) -> Envelope[PayoutOut]:
    """The vendor has been paid: the order is closed, and the vendor hears of it."""
    fee_bp = process.settings.platform_fee_bp
    order = await writes.confirm_payout(tx, order_id, fee_bp=fee_bp, actor=admin.actor, now=now)
    return Envelope(data=shape(await reads.payout_of(tx, order, fee_bp=fee_bp)))


@orders_router.post("/{order_id}/ach-settled")
async def settle_ach(
    order_id: UUID, admin: Admin, _key: KeyGiven, tx: Tx, now: Now, process: Process
) -> Envelope[PayoutOut]:
    """The bank transfer for a delivered order has come in."""
    order = await writes.settle_ach(tx, order_id, actor=admin.actor, now=now)
    return Envelope(data=shape(await reads.payout_of(tx, order, fee_bp=process.settings.platform_fee_bp)))


def shape(payout: Payout) -> PayoutOut:
    """A payout as administrators see it."""
    order, fee_cents = payout.order, payout.fee_cents
    return PayoutOut(
        **OrderOut.model_validate(order).model_dump(),
        order_id=order.id,
        amount_cents=order.total_cents,
        platform_fee_cents=fee_cents,
        payout_cents=order.total_cents - fee_cents,
        ledger_events=[LedgerEventOut.model_validate(event) for event in payout.events],
    )


def _by_settlement(row: PayoutOut) -> Key:
    assert row.payment_intent.settled_at is not None  # those that are not settled are not in the list
    return [row.payment_intent.settled_at.isoformat(), str(row.payment_intent.id)]
