"""What an event says to analysts: rows of the warehouse. Pure: the same event gives the same rows, with the same ids.

Every event of an order that changes what it counts for becomes a row with the whole order as it was then; `revision`
says which of an order's rows is its present state, whatever the clocks say. Amounts are integer cents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any, Final
from uuid import UUID

from schemas.records import (
    AchSettled,
    AdAttribution,
    AdDailyChargeRecorded,
    AdDayTotals,
    AdSpendRolledUp,
    CashCollected,
    CheckoutConverted,
    OrderCanceled,
    OrderDecided,
    OrderExpired,
    OrderLineSnapshot,
    OrderPaid,
    OrderRetried,
    OrderSnapshot,
    Record,
)

MARKETPLACE: Final = "marketplace_events"
AD_FACTS: Final = "ad_event_facts"
AD_ROLLUPS: Final = "ad_daily_rollups"

STREAM, BACKFILL = "stream", "backfill"  #: where a row comes from

CREATED: Final = 0
ENDED: Final = 1_000  #: canceled or expired; an order has far fewer lines
SETTLED: Final = 2_000
PAID: Final = 3_000

FALLEN: Final = frozenset({"rejected", "canceled", "expired"})  #: such orders count for nothing
REJECTED: Final = "rejected"  #: such lines are in no amount

PASSED_OVER: Final = frozenset(
    {"order_nudged", "order_ready_for_dispatch", "order_assigned", "order_in_transit", "order_delivered"}
)
"""Events that change nothing that analysts count."""

StoreDay = tuple[UUID, date]
DaySpend = Mapping[StoreDay, Sequence[AdDayTotals]]
"""What each ad of a store has spent on a day: what its charge of that day is split by."""


class RefusedError(ValueError):
    """An event that no row can be made of; `reason` is a dead letter's."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Fact:
    """A row of a table; its id is the same whoever makes it, and whenever."""

    table: str
    row: dict[str, Any]

    @property
    def row_id(self) -> str:
        return str(self.row["row_id"])


@dataclass(frozen=True, slots=True)
class Origin:
    """What a row is made from."""

    source: str
    event_id: UUID | None = None

    def columns(self) -> dict[str, Any]:
        return {"source": self.source, "event_id": None if self.event_id is None else str(self.event_id)}


def needs_spend(record: Record) -> StoreDay | None:
    """The store and day whose ads' spend `facts_of` has to know; None for most events."""
    return (record.store_id, record.for_date) if isinstance(record, AdDailyChargeRecorded) else None


def facts_of(record: Record, spend: DaySpend) -> list[Fact]:
    """The rows of an event; none for one that is passed over. Raises RefusedError."""
    if record.event_type in PASSED_OVER:
        return []
    rows_of = _ROUTES.get(record.event_type)
    if rows_of is None:
        raise RefusedError("refused_type", f"no rows are made of {record.event_type}")
    return rows_of(record, spend)


# -- orders -----------------------------------------------------------------------------------------------------------


def created(order: OrderSnapshot, origin: Origin) -> list[Fact]:
    """An order as it was placed, whether by a checkout or by a retry."""
    row = _order_row("order_created", order, order.created_at, CREATED, order.order_id, origin)
    return [row, *_conversions(order, CREATED, origin)]


def decided(order: OrderSnapshot, at: datetime, origin: Origin) -> list[Fact]:
    """Lines were accepted or rejected: the order's amounts are without the rejected ones."""
    revision = sum(line.status != "pending" for line in order.lines)
    row = _order_row("order_decided", order, at, revision, f"{order.order_id}:{revision}", origin)
    return [row, *_conversions(order, revision, origin)]


def ended(event_type: str, order: OrderSnapshot, at: datetime, origin: Origin) -> list[Fact]:
    """`order_canceled` or `order_expired`: the order counts no more."""
    row = _order_row(event_type, order, at, ENDED, order.order_id, origin)
    return [row, *_conversions(order, ENDED, origin)]


def paid(
    event_type: str, order: OrderSnapshot, at: datetime, origin: Origin, *, amount_cents: int, revision: int
) -> list[Fact]:
    """`cash_collected`, `ach_settled` or `order_paid`: money moved."""
    return [_order_row(event_type, order, at, revision, order.order_id, origin, paid_cents=amount_cents)]


def _order_row(
    event_type: str,
    order: OrderSnapshot,
    at: datetime,
    revision: int,
    key: object,
    origin: Origin,
    *,
    paid_cents: int | None = None,
) -> Fact:
    ship_to = order.ship_to
    row = {
        "row_id": f"{event_type}:{key}",
        "event_type": event_type,
        "occurred_at": max(at, order.created_at),  # partitions are searched from the order's day on
        "revision": revision,
        "order_id": str(order.order_id),
        "order_number": order.number,
        "checkout_group_id": str(order.checkout_group_id),
        "cart_id": str(order.cart_id),
        "vendor_store_id": str(order.vendor_store_id),
        "buyer_store_id": str(order.buyer_store_id),
        "order_status": order.status,
        "order_created_at": order.created_at,
        "retry_of": None if order.retry_of is None else str(order.retry_of),
        "currency": order.currency,
        "gross_cents": order.subtotal_cents,
        "discounts_cents": order.discounts_cents,
        "net_cents": net_cents(order),
        "shipping_cents": order.shipping_cents,
        "total_cents": order.total_cents,
        "paid_cents": paid_cents,
        "payment_method": order.payment_method,
        "payment_status": order.payment_status,
        "promo_code": order.promo_code,
        "ship_city": ship_to.city,
        "ship_state": ship_to.state,
        "ship_postal_code": ship_to.postal_code,
        "ship_country": ship_to.country,
        "ship_lat": ship_to.lat,
        "ship_lng": ship_to.lng,
        "ad_id": _ad(order.attribution),
        "items": [_item(line) for line in order.lines],
    }
    return Fact(MARKETPLACE, row | origin.columns())


def net_cents(order: OrderSnapshot) -> int:
    """What the order's goods cost after all discounts; shipping is not in it."""
    return order.subtotal_cents - order.discounts_cents


def _item(line: OrderLineSnapshot) -> dict[str, Any]:
    return {
        "line_item_id": str(line.line_item_id),
        "product_id": str(line.product_id),
        "title": line.title,
        "category": line.category,
        "quantity": line.quantity,
        "unit_price_cents": line.unit_price_cents,
        "gross_cents": line.line_subtotal_cents,
        "net_cents": line.line_total_cents,
        "status": line.status,
        "ad_id": _ad(line.attribution),
    }


def _ad(attribution: AdAttribution | None) -> str | None:
    return None if attribution is None else str(attribution.ad_id)


# -- conversions ------------------------------------------------------------------------------------------------------


def _conversions(order: OrderSnapshot, revision: int, origin: Origin) -> list[Fact]:
    """What the attributed ads led to, as the order now stands: a store ad to its net, a product ad to its line's."""
    found = []
    counts = order.status not in FALLEN
    if order.attribution is not None:
        found.append(_conversion(order, None, order.attribution, net_cents(order), counts, revision, origin))
    for line in order.lines:
        if line.attribution is not None:
            taken = counts and line.status != REJECTED
            found.append(_conversion(order, line, line.attribution, line.line_total_cents, taken, revision, origin))
    return found


def _conversion(
    order: OrderSnapshot,
    line: OrderLineSnapshot | None,
    ad: AdAttribution,
    revenue_cents: int,
    counts: bool,
    revision: int,
    origin: Origin,
) -> Fact:
    conversion_id = f"{order.order_id}:{'order' if line is None else line.line_item_id}"
    row = {
        "row_id": f"conversion:{conversion_id}:{revision}",
        "type": "conversion",
        "occurred_at": order.created_at,
        "store_id": str(order.vendor_store_id),
        "ad_id": str(ad.ad_id),
        "conversion_id": conversion_id,
        "revision": revision,
        "counts": counts,
        "revenue_cents": revenue_cents,
        "order_id": str(order.order_id),
        "line_item_id": None if line is None else str(line.line_item_id),
        "product_id": None if line is None else str(line.product_id),
        "buyer_store_id": str(order.buyer_store_id),
        "kind": ad.kind,
        "jti": str(ad.jti),
        "issued_at": ad.issued_at,
        "reason": ad.reason,
    }
    return Fact(AD_FACTS, row | origin.columns())


# -- advertising ------------------------------------------------------------------------------------------------------


def rolled_up(store_id: UUID, day: date, ads: Sequence[AdDayTotals], origin: Origin) -> list[Fact]:
    """A store's closed day, ad by ad."""
    return [
        Fact(
            AD_ROLLUPS,
            {
                "row_id": f"rollup:{ad.ad_id}:{day}",
                "occurred_at": start_of(day),
                "store_id": str(store_id),
                "ad_id": str(ad.ad_id),
                "impressions": ad.impressions,
                "clicks": ad.clicks,
                "spend_micros": ad.spend_micros,
            }
            | origin.columns(),
        )
        for ad in ads
    ]


def charged(
    store_id: UUID, day: date, charge_id: UUID, amount_cents: int, ads: Sequence[AdDayTotals], origin: Origin
) -> list[Fact]:
    """A store's charge for a day, split over the ads that spent: the shares add up to the cent."""
    spent = {ad.ad_id: ad.spend_micros for ad in ads if ad.spend_micros}
    return [
        Fact(
            AD_FACTS,
            {
                "row_id": f"charge:{ad_id}:{day}",
                "type": "charge",
                "occurred_at": start_of(day),
                "store_id": str(store_id),
                "ad_id": str(ad_id),
                "cost_cents": cents,
                "cost_micros": spent[ad_id],
                "charge_id": str(charge_id),
            }
            | origin.columns(),
        )
        for ad_id, cents in split_cents(amount_cents, spent).items()
    ]


def split_cents(amount_cents: int, weights: Mapping[UUID, int]) -> dict[UUID, int]:
    """The amount in proportion to the weights, in whole cents, by largest remainder; equal ones in order of their id.

    The parts add up to the amount. At least one weight is above zero.
    """
    total = sum(weights.values())
    parts = {key: amount_cents * weight // total for key, weight in weights.items()}
    left = amount_cents - sum(parts.values())
    by_remainder = sorted(weights, key=lambda key: (-(amount_cents * weights[key] % total), key))
    for key in by_remainder[:left]:
        parts[key] += 1
    return dict(sorted(parts.items()))


def start_of(day: date) -> datetime:
    """Midnight UTC."""
    return datetime.combine(day, time(), UTC)


# -- routing ----------------------------------------------------------------------------------------------------------


def _of(record: Record) -> Origin:
    return Origin(STREAM, record.event_id)


def _checkout(record: CheckoutConverted, _: DaySpend) -> list[Fact]:
    return [fact for order in record.orders for fact in created(order, _of(record))]


def _retried(record: OrderRetried, _: DaySpend) -> list[Fact]:
    return created(record.order, _of(record))


def _decided(record: OrderDecided, _: DaySpend) -> list[Fact]:
    return decided(record.order, record.occurred_at, _of(record))


def _ended(record: OrderCanceled | OrderExpired, _: DaySpend) -> list[Fact]:
    return ended(record.event_type, record.order, record.occurred_at, _of(record))


def _settled(record: CashCollected | AchSettled, _: DaySpend) -> list[Fact]:
    at, amount = record.occurred_at, record.amount_cents
    return paid(record.event_type, record.order, at, _of(record), amount_cents=amount, revision=SETTLED)


def _paid(record: OrderPaid, _: DaySpend) -> list[Fact]:
    at, amount = record.occurred_at, record.amount_cents
    return paid(record.event_type, record.order, at, _of(record), amount_cents=amount, revision=PAID)


def _rolled_up(record: AdSpendRolledUp, _: DaySpend) -> list[Fact]:
    return rolled_up(record.store_id, record.day, record.ads, _of(record))


def _charged(record: AdDailyChargeRecorded, spend: DaySpend) -> list[Fact]:
    ads = spend.get((record.store_id, record.for_date), ())
    known = sum(ad.spend_micros for ad in ads)
    if known != record.spend_micros or not known:
        raise RefusedError("spend_differs", f"the charge is for {record.spend_micros} micros, its ads spent {known}")
    return charged(record.store_id, record.for_date, record.charge_id, record.amount_cents, ads, _of(record))


_ROUTES: Final[Mapping[str, Callable[[Any, DaySpend], list[Fact]]]] = {
    "checkout_converted": _checkout,
    "order_retried": _retried,
    "order_decided": _decided,
    "order_canceled": _ended,
    "order_expired": _ended,
    "cash_collected": _settled,
    "ach_settled": _settled,
    "order_paid": _paid,
    "ad_spend_rolled_up": _rolled_up,
    "ad_daily_charge_recorded": _charged,
}
