"""What a vendor has in stock."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from fastapi import APIRouter

from api.dependencies import Now, Tx, Vendor
from api.envelope import Envelope, ListEnvelope
from api.idempotency import IdempotentRoute, KeyGiven
from api.pagination import Paged, by_time
from models.catalog import reads, writes
from schemas.http.catalog import SetStock, StockLineOut, StockOut

LIST: Final = "inventory"

router = APIRouter(prefix="/api/v1/inventory", tags=["catalogue"], route_class=IdempotentRoute)


@router.put("/{product_id}")
async def set_stock(
    product_id: UUID, body: SetStock, vendor: Vendor, _key: KeyGiven, tx: Tx, now: Now
) -> Envelope[StockOut]:
    """Say what is there of a product. Below what orders have reserved: 409."""
    set_now = await writes.set_on_hand(
        tx, product_id, body.on_hand, store_id=vendor.store_id, actor=vendor.actor, now=now
    )
    return Envelope(data=StockOut.model_validate(set_now))


@router.get("")
async def list_stock(vendor: Vendor, tx: Tx, page: Paged) -> ListEnvelope[StockLineOut]:
    """The stock of all the store's products, newest product first."""
    name = f"{LIST}:{vendor.store_id}"
    views = await reads.stock_of(tx, vendor.store_id, limit=page.limit + 1, after=page.after_time(name))
    shown, cursor = page.cut(name, views, lambda view: by_time(view.product))
    return ListEnvelope.of([StockLineOut.model_validate(view) for view in shown], cursor)
