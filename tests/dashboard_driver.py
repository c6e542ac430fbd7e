"""A vendor's dashboards in tests: what is in the outbox is brought to the warehouse, and Postgres is asked the same."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

from agents.warehouse_writer import WarehouseWriter
from models.ads import reads as ads
from models.analytics.gateway import BigQuery
from models.analytics.positions import Place, StreamPlace
from models.database import make_engine, make_sessions
from schemas.codec import decode
from schemas.records import Record
from streams.facts import DaySpend, facts_of, needs_spend
from tests.ads_driver import execute
from tests.api_driver import Api
from tests.facts_site import expected_ids, until_exactly

FALLEN = ("rejected", "canceled", "expired")


async def published(api: Api) -> tuple[list[Record], DaySpend]:
    """The events of orders and rollups in the outbox, and what their charges are split by."""
    sql = "SELECT payload FROM outbox_events WHERE aggregatetype IN ('orders', 'ads.rollups') ORDER BY seq"
    events: list[Record] = [decode(row.payload) for row in await execute(api, sql)]
    wanted = {day for event in events if (day := needs_spend(event)) is not None}
    if not wanted:
        return events, {}
    engine = make_engine(api.services.settings.sqlalchemy_url, pool_size=1, application="test")
    async with make_sessions(engine)() as tx:
        spend = await ads.day_totals(tx, wanted)
    await engine.dispose()
    return events, spend


async def deliver(api: Api, store: BigQuery) -> None:
    """What relay and agent do with the outbox of orders and rollups, once each."""
    events, spend = await published(api)
    engine = make_engine(api.services.settings.sqlalchemy_url, pool_size=1, application="test")

    async def once(act: Any, generation: int) -> Any:
        return await act()

    facts = [fact for event in events for fact in facts_of(event, spend)]
    place = Place("test", 0, 1, 0, 0)
    place.streams = {table: StreamPlace(await store.open_stream(table)) for table in {fact.table for fact in facts}}
    writer = WarehouseWriter(store, make_sessions(engine), once)
    await writer.write(place, facts, doubtful=True, generation=1)
    await engine.dispose()
    await until_exactly(store, expected_ids(events, spend), timeout_s=10)


async def orders_of(api: Api, vendor: str, first: date, last: date) -> tuple[list[Any], list[Any]]:
    """The vendor's orders of these days that count, and their lines that are not rejected."""
    orders = await execute(
        api,
        "SELECT * FROM orders WHERE vendor_store_id = :store AND status <> ALL (:fallen)"
        " AND created_at >= :first AND created_at < CAST(:last AS timestamptz) + interval '1 day'",
        store=UUID(vendor),
        fallen=list(FALLEN),
        first=midnight(first),
        last=midnight(last),
    )
    lines = await execute(
        api,
        "SELECT * FROM order_line_items WHERE order_id = ANY (:ids) AND status <> 'rejected'",
        ids=[order.id for order in orders],
    )
    return list(orders), list(lines)


def midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


async def sales_by_postgres(api: Api, vendor: str, first: date, last: date) -> dict[str, Any]:
    """The marketplace dashboard, by other means: sums over Postgres' rows."""
    orders, lines = await orders_of(api, vendor, first, last)
    before, _ = await orders_of(api, vendor, date(2000, 1, 1), date.fromordinal(first.toordinal() - 1))
    known = {order.buyer_store_id for order in before}
    buyers = {order.buyer_store_id for order in orders}
    days: defaultdict[date, Counter[str]] = defaultdict(Counter)
    zips: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for order in orders:
        net = order.total_cents - order.shipping_cents
        sums = {"orders": 1, "gross_cents": order.subtotal_cents, "net_cents": net}
        days[order.created_at.date()].update(sums | {"discounts_cents": order.subtotal_cents - net})
        zips[order.shipping_address["postal_code"]].update({"orders": 1, "net_cents": net})
    products: defaultdict[UUID, Counter[str]] = defaultdict(Counter)
    categories: Counter[str] = Counter()
    for line in lines:
        products[line.product_id].update({"quantity": line.quantity, "net_cents": line.line_total_cents})
        categories[line.category] += line.line_total_cents
    total = sum(days.values(), Counter())
    return {
        "kpis": {name: total[name] for name in ("orders", "gross_cents", "discounts_cents", "net_cents")}
        | {
            "aov_cents": round(total["net_cents"] / total["orders"]) if total["orders"] else 0,
            "new_buyers": len(buyers - known),
            "returning_buyers": len(buyers & known),
        },
        "days": {str(day): dict(sums) for day, sums in days.items()},
        "products": {str(key): dict(sums) for key, sums in products.items()},
        "categories": dict(categories),
        "zips": {key: dict(sums) for key, sums in zips.items()},
    }


def compare_sales(shown: dict[str, Any], expected: dict[str, Any]) -> None:
    """AssertionError where the dashboard says something else than Postgres."""
    assert {name: shown["kpis"][name] for name in expected["kpis"]} == expected["kpis"]
    names = ("orders", "gross_cents", "discounts_cents", "net_cents")
    days = {point["date"]: {name: point[name] for name in names} for point in shown["series"] if point["orders"]}
    assert days == {day: {name: sums.get(name, 0) for name in names} for day, sums in expected["days"].items()}
    assert _by(shown["top_products"], "product_id", "quantity", "net_cents") == expected["products"]
    assert {row["category"]: row["net_cents"] for row in shown["top_categories"]} == expected["categories"]
    assert _by(shown["top_zips"], "postal_code", "orders", "net_cents") == expected["zips"]
    for name in ("top_products", "top_categories", "top_zips"):
        nets = [row["net_cents"] for row in shown[name]]
        assert nets == sorted(nets, reverse=True)


def _by(rows: list[dict[str, Any]], key: str, *names: str) -> dict[str, dict[str, Any]]:
    return {row[key]: {name: row[name] for name in names} for row in rows}
