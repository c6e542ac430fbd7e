"""What a vendor does with the orders it got. Any member of the store may."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter

from api.dependencies import Now, Process, Tx, Vendor
from api.envelope import Envelope
from api.idempotency import IdempotentRoute
from models.delivery import writes as delivery
from models.orders import deciding, writes
from models.orders.deciding import Ruling
from models.orders.rules import Verdict
from schemas.http.orders import DecideLines, DecideOrder, OrderOut

router = APIRouter(prefix="/api/v1/vendor/orders", tags=["orders"], route_class=IdempotentRoute)


@router.post("/{order_id}/decision")
async def decide_order(order_id: UUID, body: DecideOrder, vendor: Vendor, tx: Tx, now: Now) -> Envelope[OrderOut]:
    """Accept what is still undecided of an order, or reject all of it.

    An accepted order with lines that were rejected before is `partially_accepted`.
    """
    order = await deciding.decide(
        tx,
        order_id,
        Verdict(body.decision),
        reason=body.reason,
        store_id=vendor.store_id,
        actor=vendor.actor,
        now=now,
    )
    return Envelope(data=OrderOut.model_validate(order))


@router.post("/{order_id}/line-items/decision")
async def decide_lines(order_id: UUID, body: DecideLines, vendor: Vendor, tx: Tx, now: Now) -> Envelope[OrderOut]:
    """Decide lines of an order, all or none of those named; it stays `pending` while others are undecided.

    A rejected line takes its `line_total_cents` off the order and gives its stock back. A line is decided once.
    """
    rulings = {one.line_item_id: Ruling(Verdict(one.decision), one.reason) for one in body.decisions}
    order = await deciding.decide_lines(tx, order_id, rulings, store_id=vendor.store_id, actor=vendor.actor, now=now)
    return Envelope(data=OrderOut.model_validate(order))


@router.post("/{order_id}/fulfill")
async def fulfil_order(order_id: UUID, vendor: Vendor, tx: Tx, now: Now, process: Process) -> Envelope[OrderOut]:
    """What was accepted is packed: the order can be dispatched. With AUTO_ASSIGN an agent has it at once."""
    order = await writes.fulfil(tx, order_id, store_id=vendor.store_id, actor=vendor.actor, now=now)
    if process.settings.auto_assign:
        await delivery.assign_automatically(tx, order, actor=vendor.actor, now=now)
    return Envelope(data=OrderOut.model_validate(order))


@router.post("/{order_id}/confirm-paid")
async def confirm_paid(order_id: UUID, vendor: Vendor, tx: Tx, now: Now) -> Envelope[OrderOut]:
    """The vendor has its money for a delivered order, it says: audited, and no money moves by it."""
    order = await writes.confirm_paid(tx, order_id, store_id=vendor.store_id, actor=vendor.actor, now=now)
    return Envelope(data=OrderOut.model_validate(order))
