"""What events say to analysts, held against sums that are made another way."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from typing import Any
from uuid import UUID

import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from hypothesis import given
from hypothesis import strategies as st

from models.ads.rules import charge_cents
from models.analytics.encoding import RowRefusedError, encoder
from models.database import new_id
from schemas.records import (
    AdDailyChargeRecorded,
    AdDayTotals,
    AdSpendRolledUp,
    CashCollected,
    NotificationRequested,
    OrderExpired,
    OrderNudged,
    OrderRetried,
    Record,
)
from schemas.registry import EVENTS
from schemas.warehouse_tables import TABLES
from streams.facts import BACKFILL, PASSED_OVER, Fact, Origin, RefusedError, created, facts_of, needs_spend, split_cents
from tests.order_events import NOON, attribution, canceled, checkout, decided, line, order, paid_out, reject

DAY = date(2026, 4, 30)


def rows(record: Record, table: str = "marketplace_events", **spend: Any) -> list[dict[str, Any]]:
    return [fact.row for fact in facts_of(record, spend.get("spend", {})) if fact.table == table]


def test_a_checkout_is_a_row_for_each_order_with_its_lines_its_money_and_where_it_goes() -> None:
    a, b = line(quantity=3, discount_cents=150), line(category="edible", price_cents=250)
    first, second = order(a, b, promo_cents=100), order()
    event = checkout(first, second)
    one, two = rows(event)
    assert [one["row_id"], two["row_id"]] == [f"order_created:{o.order_id}" for o in (first, second)]
    assert (one["gross_cents"], one["discounts_cents"], one["net_cents"]) == (3_500, 250, 3_250)
    assert (one["shipping_cents"], one["total_cents"]) == (700, 3_950)
    assert (one["ship_postal_code"], one["ship_state"], one["ship_city"]) == ("97201", "OR", "Portland")
    assert [(i["product_id"], i["category"], i["quantity"], i["net_cents"]) for i in one["items"]] == [
        (str(a.product_id), "flower", 3, 2_850),
        (str(b.product_id), "edible", 2, 500),
    ]
    assert (one["event_id"], one["source"], one["occurred_at"]) == (str(event.event_id), "stream", NOON)
    assert rows(event, "ad_event_facts") == []  # and the orders are there without any token


def test_a_retry_is_an_order_of_its_own() -> None:
    placed = order(retry_of=new_id())
    event = OrderRetried(
        event_id=new_id(), occurred_at=NOON, actor="t", checkout_group_id=placed.checkout_group_id, order=placed
    )
    [row] = rows(event)
    assert (row["event_type"], row["revision"], row["retry_of"]) == ("order_created", 0, str(placed.retry_of))


@given(
    st.lists(
        st.tuples(st.integers(1, 50), st.integers(1, 9_999), st.booleans(), st.booleans()), min_size=1, max_size=6
    ),
    st.sampled_from(["stay", "cancel", "pay"]),
)
def test_the_highest_revision_is_the_orders_last_word(lines: list[tuple[int, int, bool, bool]], end: str) -> None:
    """Whatever the events' order and clocks, the row with the highest revision has the sums of what was accepted."""
    ads = [attribution(target_type="product") if ad else None for _, _, _, ad in lines]
    made = [
        line(quantity=n, price_cents=price, attribution=ad) for (n, price, _, _), ad in zip(lines, ads, strict=True)
    ]
    placed = order(*made, attribution=attribution())
    after = reject(placed, *(n for n, (_, _, taken, _) in enumerate(lines) if not taken))
    events: list[Record] = [decided(after, after_s=-500), checkout(placed)]
    if end == "cancel":
        events.append(canceled(after))
    elif end == "pay" and after.status != "rejected":
        events.append(paid_out(after))
    found = [fact for event in events for fact in facts_of(event, {})]
    orders = [fact.row for fact in found if fact.table == "marketplace_events"]
    last = max(orders, key=lambda row: row["revision"])
    expected = sum(n * price for n, price, taken, _ in lines if taken)
    assert last["net_cents"] == expected == sum(i["net_cents"] for i in last["items"] if i["status"] != "rejected")
    assert all(row["occurred_at"] >= placed.created_at for row in orders)
    counted = end != "cancel" and expected > 0
    assert counted == (last["order_status"] not in ("rejected", "canceled", "expired"))
    revenue = counted_revenue(found)
    assert revenue.pop(placed.attribution.ad_id if placed.attribution else None, 0) == (expected if counted else 0)
    assert revenue == {
        ad.ad_id: n * price
        for (n, price, taken, _), ad in zip(lines, ads, strict=True)
        if ad is not None and taken and counted
    }


def counted_revenue(found: list[Fact]) -> dict[UUID | None, int]:
    """By ad, what its conversions come to, as they stand in the end."""
    last: dict[str, dict[str, Any]] = {}
    for row in sorted((f.row for f in found if f.table == "ad_event_facts"), key=lambda row: row["revision"]):
        last[row["conversion_id"]] = row
    return {UUID(row["ad_id"]): row["revenue_cents"] for row in last.values() if row["counts"]}


def test_a_store_ad_converts_the_order_and_a_product_ad_its_line() -> None:
    bought = line(attribution=attribution(target_type="product"))
    placed = order(bought, line(), attribution=attribution(), promo_cents=500)
    of_order, of_line = rows(checkout(placed), "ad_event_facts")
    assert (of_order["revenue_cents"], of_order["line_item_id"], of_order["kind"]) == (3_500, None, "click")
    assert (of_line["revenue_cents"], of_line["line_item_id"]) == (2_000, str(bought.line_item_id))
    assert of_line["product_id"] == str(bought.product_id)
    assert {of_order["store_id"], of_line["store_id"]} == {str(placed.vendor_store_id)}
    assert of_order["occurred_at"] == placed.created_at
    assert rows(paid_out(placed), "ad_event_facts") == []  # payment changes nothing about what an ad led to


def test_money_events_say_how_much_and_when() -> None:
    placed = order(status="delivered", payment_status="settled")
    at = NOON + timedelta(days=2)
    event = CashCollected(
        event_id=new_id(), occurred_at=at, actor="t", checkout_group_id=new_id(), order=placed, agent_id=new_id(),
        amount_cents=2_700, ledger_event_id=new_id(),
    )  # fmt: skip
    [cash], [paid] = rows(event), rows(paid_out(placed))
    assert (cash["event_type"], cash["paid_cents"], cash["occurred_at"]) == ("cash_collected", 2_700, at)
    assert (paid["event_type"], paid["order_status"], paid["paid_cents"]) == ("order_paid", "closed", 2_700)
    assert paid["revision"] > cash["revision"]


def test_an_expired_order_counts_no_more() -> None:
    gone = order(status="expired", attribution=attribution())
    event = OrderExpired(event_id=new_id(), occurred_at=NOON, actor="t", checkout_group_id=new_id(), order=gone)
    [row], [conversion] = rows(event), rows(event, "ad_event_facts")
    assert (row["event_type"], row["order_status"], conversion["counts"]) == ("order_expired", "expired", False)


def test_ids_are_the_same_from_the_stream_and_from_a_backfill() -> None:
    placed = order(line(attribution=attribution()), attribution=attribution())
    streamed = facts_of(checkout(placed), {})
    filled = created(placed, Origin(BACKFILL))
    assert [fact.row_id for fact in streamed] == [fact.row_id for fact in filled]
    ids = [f.row_id for e in (checkout(placed), decided(reject(placed)), canceled(placed)) for f in facts_of(e, {})]
    assert len(set(ids)) == len(ids)


def spent(**micros: int) -> list[AdDayTotals]:
    return [
        AdDayTotals(ad_id=UUID(int=n), impressions=10, clicks=1, spend_micros=m)
        for n, m in enumerate(micros.values(), start=1)
    ]


def charge(store: UUID, micros: int) -> AdDailyChargeRecorded:
    return AdDailyChargeRecorded(
        event_id=new_id(), occurred_at=NOON, actor="t", store_id=store, charge_id=new_id(), charge_type="ad_spend",
        for_date=DAY, spend_micros=micros, amount_cents=charge_cents(micros),
    )  # fmt: skip


def test_a_charge_is_split_over_its_ads_to_the_cent() -> None:
    store, ads = new_id(), spent(a=15_000, b=15_000, c=0, d=5_000)
    event = charge(store, 35_000)  # 3.5 cents, half to even: 4
    assert needs_spend(event) == (store, DAY)
    found = rows(event, "ad_event_facts", spend={(store, DAY): ads})
    assert [(UUID(row["ad_id"]).int, row["cost_cents"], row["cost_micros"]) for row in found] == [
        (1, 2, 15_000), (2, 2, 15_000), (4, 0, 5_000)]  # fmt: skip
    assert {row["occurred_at"] for row in found} == {datetime(2026, 4, 30, tzinfo=UTC)}
    assert found[0]["row_id"] == f"charge:{UUID(int=1)}:2026-04-30"


@given(st.dictionaries(st.uuids(), st.integers(1, 10**9), min_size=1, max_size=12), st.integers(0, 10**7))
def test_shares_add_up_and_none_is_a_cent_away_from_its_due(weights: dict[UUID, int], amount: int) -> None:
    parts = split_cents(amount, weights)
    assert sum(parts.values()) == amount
    due = {key: Fraction(amount * weight, sum(weights.values())) for key, weight in weights.items()}
    assert all(abs(parts[key] - due[key]) < 1 for key in weights)
    ups = [due[key] - int(due[key]) for key in weights if parts[key] > due[key]]
    downs = [due[key] - int(due[key]) for key in weights if parts[key] <= int(due[key])]
    assert not ups or not downs or min(ups) >= max(downs)


def test_a_charge_whose_ads_spent_something_else_is_refused() -> None:
    store = new_id()
    for ads in ([], spent(a=34_999)):
        with pytest.raises(RefusedError) as caught:
            facts_of(charge(store, 35_000), {(store, DAY): ads})
        assert caught.value.reason == "spend_differs"


def test_a_rolled_up_day_is_a_row_for_each_ad() -> None:
    ads = spent(a=15_000, b=0)
    event = AdSpendRolledUp(
        event_id=new_id(), occurred_at=NOON, actor="t", store_id=new_id(), day=DAY, impressions=20, clicks=2,
        spend_micros=15_000, ads=ads,
    )  # fmt: skip
    found = rows(event, "ad_daily_rollups")
    assert [(row["impressions"], row["clicks"], row["spend_micros"]) for row in found] == [(10, 1, 15_000), (10, 1, 0)]


def test_events_without_rows_are_passed_over_and_unknown_ones_refused() -> None:
    one = order()
    event = OrderNudged(event_id=new_id(), occurred_at=NOON, actor="t", checkout_group_id=new_id(), order=one)
    assert facts_of(event, {}) == []
    stray = NotificationRequested(event_id=new_id(), occurred_at=NOON, actor="t", store_id=new_id(), kind="x")
    with pytest.raises(RefusedError) as caught:
        facts_of(stray, {})
    assert caught.value.reason == "refused_type"
    read = {name for name, event in EVENTS.items() if event.aggregatetype in ("orders", "ads.rollups")}
    routed = {"checkout_converted", "order_retried", "order_decided", "order_canceled", "order_expired"}
    routed |= {"cash_collected", "ach_settled", "order_paid", "ad_spend_rolled_up", "ad_daily_charge_recorded"}
    assert read == routed | PASSED_OVER  # a new event of these topics has to be thought of here


# -- as bytes ---------------------------------------------------------------------------------------------------------


def decode(table: str, data: bytes) -> Any:
    """By a reader that knows nothing but the descriptor."""
    pool = descriptor_pool.DescriptorPool()
    pool.Add(FileDescriptorProto(name="r.proto", syntax="proto2", message_type=[encoder(table).descriptor]))
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Row")).FromString(data)


def test_a_row_as_bytes_has_what_the_row_has() -> None:
    placed = order(line(), line(price_cents=5), attribution=attribution())
    placed = replace(placed, ship_to=replace(placed.ship_to, lat=45.5, lng=-122.6))
    row = rows(checkout(placed))[0] | {"ingested_at": NOON}
    read = decode("marketplace_events", encoder("marketplace_events").encode(row))
    assert (read.row_id, read.net_cents, read.ship_lat) == (row["row_id"], row["net_cents"], 45.5)
    assert read.order_created_at == int(NOON.timestamp() * 1_000_000)
    assert [(i.product_id, i.net_cents) for i in read.items] == [
        (i["product_id"], i["net_cents"]) for i in row["items"]
    ]
    assert not read.HasField("retry_of")
    assert not read.HasField("paid_cents")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"order_id": None}, "order_id: is required"),
        ({"net_cents": "5"}, "net_cents: '5' is no INT64"),
        ({"net_cents": 1 << 63}, "is no INT64"),
        ({"order_created_at": NOON.replace(tzinfo=None)}, "order_created_at"),
        ({"occurred_at": datetime(1959, 12, 31, tzinfo=UTC)}, "has no partition"),
        ({"colour": "green"}, "colour: there is no such column"),
        ({"items": [{"title": "x"}]}, "items.line_item_id: is required"),
        ({"ship_city": "x" * (1 << 20)}, "bytes"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_by_name(change: dict[str, Any], named: str) -> None:
    row = rows(checkout(order()))[0] | {"ingested_at": NOON} | change
    with pytest.raises(RowRefusedError) as caught:
        encoder("marketplace_events").encode(row)
    assert named in str(caught.value)


def test_every_column_says_what_it_is() -> None:
    for table in TABLES.values():
        names = [column.name for column in table.columns]
        assert len(set(names)) == len(names)
        assert {table.unique, table.partition, *table.cluster} <= set(names)
        every = [*table.columns, *(field for column in table.columns for field in column.fields)]
        assert all(len(column.description) > 3 for column in every)
