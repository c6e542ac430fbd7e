"""What a vendor does with the orders it got. Any member of the store may."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter

from api.dependencies import Now, Process, Tx, Vendor
from api.envelope import Envelope
from api.idempotency import IdempotentRoute
from models.delivery import writes as delivery
from models.orders import writes
from schemas.http.orders import OrderOut

router = APIRouter(prefix="/api/v1/vendor/orders", tags=["orders"], route_class=IdempotentRoute)


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
