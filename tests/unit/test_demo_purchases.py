"""The demo's purchases: every logged unit and cent is in a basket, and its receipts notice what is not as it was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from ops.demo.purchases import LINES_MAX, Basket, PriceList, Purchase, evenly, fill, read_purchases
from ops.demo.receipts import (
    AdSeen,
    OrderFacts,
    OrderKey,
    Receipts,
    SalesLine,
    StoredSales,
    check_sales,
    credited,
    sales_lines,
)

SUNDAY = datetime(2026, 11, 29, tzinfo=UTC)
DAY = date(2026, 11, 29)
KEY = OrderKey("group", "vendor")


def cents(units: Counter[int]) -> int:
    return sum(price * count for price, count in units.items())


def test_baskets_have_every_unit_and_cent_of_the_file() -> None:
    rows = read_purchases()
    baskets = fill(rows, starts_at=SUNDAY, stores=300)
    assert len(rows) == sum(len(basket.rows) for basket in baskets) == 6_919
    assert sum(row.amount_cents for row in rows) == sum(cents(basket.units) for basket in baskets) == 24_409_194
    assert sum(row.quantity for row in rows) == sum(basket.units.total() for basket in baskets) == 16_479
    for basket in baskets:
        assert cents(basket.units) == sum(row.amount_cents for row in basket.rows)
        assert len({row.buyer % 300 for row in basket.rows}) == 1
        assert len(basket.units) <= LINES_MAX
    assert all(a.at <= b.at for a, b in pairwise(baskets))
    assert SUNDAY <= baskets[0].at <= baskets[-1].at < SUNDAY + timedelta(days=7)
    assert len({(basket.store, basket.day) for basket in baskets}) == len(baskets)


def test_a_shorter_week_has_its_first_days_and_fewer_rows_are_spread_over_all() -> None:
    rows = read_purchases()
    assert {basket.day for basket in fill(rows, starts_at=SUNDAY, stores=9, days=2)} == {DAY, DAY + timedelta(days=1)}
    few = evenly(rows, 10)
    assert (len(few), few[0], few[-1].day.year, len(evenly(rows, 0))) == (10, rows[0], 1998, 1)


def test_a_basket_of_more_lines_than_a_cart_has_is_two() -> None:
    rows = [Purchase(date(1997, 1, 1), 7, 1, 100 + n) for n in range(LINES_MAX + 1)]
    assert [len(basket.units) for basket in fill(rows, starts_at=SUNDAY, stores=1)] == [LINES_MAX, 1]


@pytest.mark.parametrize(
    ("quantity", "amount", "units"),
    [
        (1, 1_000, {1_000: 1}),
        (3, 3_000, {1_000: 3}),
        (2, 2_200, {1_000: 1, 1_200: 1}),
        (3, 3_400, {1_000: 1, 1_200: 2}),
        (3, 2_000, {666: 1, 667: 2}),
        (2, 0, {0: 2}),
    ],
)
def test_units_are_split_over_known_prices_to_the_cent(quantity: int, amount: int, units: dict[int, int]) -> None:
    known = PriceList(Purchase(date(1997, 1, 1), 1, 1, price) for price in (1_000, 1_200, 5_000))
    assert known.split(quantity, amount) == Counter(units)


def ad(kind: str, iat: int, jti: str, vendor: str = "vendor") -> AdSeen:
    return AdSeen("token", kind, vendor, iat, jti)


@pytest.mark.parametrize(
    ("ads", "event"),
    [
        ([], None),
        ([ad("click", 1, "a", "another")], None),
        ([ad("impression", 9, "a"), ad("click", 1, "b")], "b"),
        ([ad("impression", 1, "a"), ad("impression", 2, "b")], "b"),
        ([ad("click", 2, "b"), ad("click", 2, "a"), ad("click", 1, "0")], "a"),
    ],
)
def test_an_order_is_owed_to_a_click_then_to_the_newest_then_to_the_smallest(
    ads: list[AdSeen], event: str | None
) -> None:
    assert credited(ads, "vendor") == event


BASKET = Basket(SUNDAY + timedelta(hours=3), 0, Counter({500: 2}), [Purchase(date(1997, 1, 1), 7, 2, 1_000)])


def answer(**changes: Any) -> dict[str, Any]:
    """What a checkout of BASKET gets."""
    order = {
        "vendor_store_id": "vendor", "buyer_store_id": "buyer", "total_cents": 1_000,
        "line_items": [{"quantity": 2}], "attribution": {"jti": "a"},
    }  # fmt: skip
    done = {"checkout_group_id": "group", "vendor_orders": [order | changes], "total_cents": 1_000}
    return {**done, "rejected_vendors": []}


def receipts(done: dict[str, Any]) -> Receipts:
    book = Receipts(shelves={"product": 2})
    book.take(BASKET, done, due={"vendor": 1_000}, units={"vendor": 2}, ads=[ad("click", 1, "a")])
    return book


def stored() -> StoredSales:
    facts = OrderFacts(DAY, "buyer", 1_000, 2, "a")
    return StoredSales({KEY: facts}, [], Counter({"group": 1}))


def test_what_was_bought_and_is_stored_adds_up() -> None:
    assert check_sales([BASKET], receipts(answer()), stored()) == []
    assert sales_lines(receipts(answer()), stored()) == {DAY: SalesLine(1, 1, 1, 2, 1_000, 1, 1_000)}


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({"total_cents": 999}, "answer: cents, units"),
        ({"line_items": [{"quantity": 1}]}, "answer: cents, units"),
        ({"attribution": None}, "answer: ad"),
        ({"attribution": {"jti": "b"}}, "answer: ad"),
        ({"vendor_store_id": "another"}, "answer: vendors"),
    ],
)
def test_an_answer_that_is_not_what_is_due_is_noticed(changes: dict[str, Any], level: str) -> None:
    assert level in {one.level for one in check_sales([BASKET], receipts(answer(**changes)), stored())}


FACTS = stored().orders[KEY]


@pytest.mark.parametrize(
    ("spoil", "level"),
    [
        (lambda rows: replace(rows, orders={}), "cents in the file = ordered"),
        (lambda rows: replace(rows, orders={KEY: FACTS._replace(total_cents=1_001)}), "cents in the file = ordered"),
        (lambda rows: replace(rows, orders={KEY: FACTS._replace(units=1)}), "units in the file = ordered"),
        (lambda rows: replace(rows, orders={KEY: FACTS._replace(ad_event=None)}), "orders"),
        (lambda rows: replace(rows, unlike=["order"]), "intents and lines"),
        (lambda rows: replace(rows, told=Counter()), "checkout events"),
        (lambda rows: replace(rows, told=Counter({"group": 2})), "checkout events"),
    ],
)
def test_rows_that_are_not_as_answered_are_noticed(spoil: Callable[[StoredSales], StoredSales], level: str) -> None:
    assert level in {one.level for one in check_sales([BASKET], receipts(answer()), spoil(stored()))}


def test_a_purchase_that_got_no_answer_is_noticed() -> None:
    book = Receipts(failures=["no answer"])
    levels = {one.level for one in check_sales([BASKET], book, StoredSales({}, [], Counter()))}
    assert levels == {"checkouts", "units in the file = ordered", "cents in the file = ordered"}
