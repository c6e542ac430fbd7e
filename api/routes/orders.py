"""Orders, as the store that placed them and the store that got them see them."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Query, Response

from api.dependencies import Buyer, Now, Process, StoreMember, Tx
from api.envelope import Envelope, ListEnvelope
from api.idempotency import IdempotentRoute
from api.pagination import Paged, by_time
from models.checkout.retrying import retry
from models.delivery import writes as delivery
from models.errors import Forbidden
from models.orders import reads, writes
from models.orders.rules import OrderStatus
from schemas.http.orders import Bound, CancelOrder, OrderOut, Perspective
from schemas.http.orders import OrderStatus as StatusFilter

LIST: Final = "orders"

router = APIRouter(prefix="/api/v1/orders", tags=["orders"], route_class=IdempotentRoute)


@router.get("")
async def list_orders(
    member: StoreMember,
    tx: Tx,
    page: Paged,
    perspective: Perspective | None = None,
    status: StatusFilter | None = None,
    since: Annotated[Bound | None, Query(alias="from", description="a UTC day or a time, included")] = None,
    until: Annotated[Bound | None, Query(alias="to", description="a UTC day or a time, included")] = None,
) -> ListEnvelope[OrderOut]:
    """The orders that the store placed (a buyer) or got (a vendor), newest first. `perspective` is the store's type."""
    if perspective is not None and perspective != member.store_type:
        raise Forbidden(f"only a {perspective} store has this perspective")
    name = f"{LIST}:{member.store_id}:{status}:{since}:{until}"
    rows = await reads.orders_of(
        tx,
        store_id=member.store_id,
        perspective=member.store_type,
        status=None if status is None else OrderStatus(status),
        since=first_moment(since),
        before=moment_behind(until),
        limit=page.limit + 1,
        after=page.after_time(name),
    )
    orders, cursor = page.cut(name, [OrderOut.model_validate(row) for row in rows], by_time)
    return ListEnvelope.of(orders, cursor)


@router.get("/{order_id}")
async def get_order(order_id: UUID, member: StoreMember, tx: Tx) -> Envelope[OrderOut]:
    """One order of the store, with its lines and its payment intent."""
    return Envelope(data=OrderOut.model_validate(await reads.order(tx, order_id, store_id=member.store_id)))


@router.post("/{order_id}/cancel")
async def cancel_order(
    order_id: UUID, buyer: Buyer, tx: Tx, now: Now, body: CancelOrder | None = None
) -> Envelope[OrderOut]:
    """Take an order back, until it is in transit: its stock is given back, its agent free, and nothing owed for it."""
    reason = None if body is None else body.reason
    order = await writes.cancel(tx, order_id, reason=reason, store_id=buyer.store_id, actor=buyer.actor, now=now)
    await delivery.release(tx, order_id, now=now)
    return Envelope(data=OrderOut.model_validate(order))


@router.post("/{order_id}/nudge")
async def nudge_order(order_id: UUID, buyer: Buyer, tx: Tx, now: Now) -> Envelope[OrderOut]:
    """Ask the vendor to decide, at most once an hour."""
    order = await writes.nudge(tx, order_id, store_id=buyer.store_id, actor=buyer.actor, now=now)
    return Envelope(data=OrderOut.model_validate(order))


@router.post(
    "/{order_id}/retry",
    status_code=201,
    responses={200: {"description": "It was retried before: the same order again"}},
)
async def retry_order(
    order_id: UUID, buyer: Buyer, tx: Tx, now: Now, process: Process, response: Response
) -> Envelope[OrderOut]:
    """Place an expired order again: a new order of what can be had today, at the prices of the old one.

    What cannot be had is rejected in it. 403 `vendor_not_eligible` and 409 `no_orderable_items` as at a checkout.
    """
    settings = process.settings
    done = await retry(
        tx,
        order_id,
        ttl_s=settings.order_ttl_s,
        nudge_s=settings.order_nudge_s,
        buyer_store_id=buyer.store_id,
        actor=buyer.actor,
        now=now,
    )
    if done.repeated:
        response.status_code = 200
    return Envelope(data=OrderOut.model_validate(done.order))


def first_moment(bound: date | datetime | None) -> datetime | None:
    """Where a day begins; a time is itself."""
    if bound is None or isinstance(bound, datetime):
        return bound
    return datetime.combine(bound, time(), UTC)


def moment_behind(bound: date | datetime | None) -> datetime | None:
    """The first moment behind a day or a time; None where there is none."""
    if bound is None:
        return None
    step = timedelta(microseconds=1) if isinstance(bound, datetime) else timedelta(days=1)
    try:
        start = first_moment(bound)
        return None if start is None else start + step
    except OverflowError:
        return None
