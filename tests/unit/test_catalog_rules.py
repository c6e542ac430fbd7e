"""The terms of products: bounds, tiers, stock, promo codes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.cart.rules import tier_for, volume_discount
from models.catalog.rules import DiscountType, VolumeDiscount, check_on_hand, check_terms, fold_code, in_force, in_order
from models.errors import Conflict, ValidationFailed

PERCENT, FIXED = DiscountType.PERCENT, DiscountType.FIXED_PRICE
NOON = datetime(2027, 3, 1, 12, tzinfo=UTC)


def refused(
    *tiers: tuple[int, DiscountType, int], price_cents: int = 1000, moq: int = 1, max_qty: int | None = None
) -> set[str]:
    """The fields that are wrong."""
    try:
        check_terms(price_cents=price_cents, moq=moq, max_qty=max_qty, tiers=[VolumeDiscount(*tier) for tier in tiers])
    except ValidationFailed as exc:
        return {entry.field for entry in exc.errors}
    return set()


@pytest.mark.parametrize(("moq", "max_qty", "fields"), [(1, None, set()), (5, 5, set()), (5, 4, {"max_qty"})])
def test_largest_order_is_not_below_the_smallest(moq: int, max_qty: int | None, fields: set[str]) -> None:
    assert refused(moq=moq, max_qty=max_qty) == fields


@pytest.mark.parametrize(
    ("tiers", "fields"),
    [
        ([(10, PERCENT, 1)], set()),
        ([(10, PERCENT, 10_000)], set()),
        ([(10, FIXED, 999)], set()),
        ([(10, FIXED, 1000)], {"volume_discounts.0.value"}),
        ([(10, FIXED, 1001)], {"volume_discounts.0.value"}),
        ([(10, PERCENT, 1000), (20, FIXED, 899)], set()),
        ([(10, PERCENT, 1000), (20, FIXED, 900)], {"volume_discounts.1.value"}),
        ([(20, FIXED, 900), (10, PERCENT, 1000)], {"volume_discounts.0.value"}),
        ([(10, PERCENT, 1000), (20, PERCENT, 1000)], {"volume_discounts.1.value"}),
        ([(10, PERCENT, 2000), (20, PERCENT, 1000)], {"volume_discounts.1.value"}),
        ([(10, PERCENT, 1000), (10, PERCENT, 2000)], {"volume_discounts.1.min_qty"}),
        (
            [(10, PERCENT, 1000), (20, FIXED, 950), (20, FIXED, 1)],
            {"volume_discounts.1.value", "volume_discounts.2.min_qty"},
        ),
    ],
)
def test_tiers_that_overlap_or_do_not_get_cheaper_are_named(
    tiers: list[tuple[int, DiscountType, int]], fields: set[str]
) -> None:
    assert refused(*tiers) == fields


def test_a_basis_point_of_a_small_price_still_counts() -> None:
    assert refused((2, PERCENT, 1), (3, PERCENT, 2), price_cents=1) == set()


def tiers_of(price_cents: int) -> st.SearchStrategy[list[VolumeDiscount]]:
    percent = st.builds(VolumeDiscount, st.integers(1, 50), st.just(PERCENT), st.integers(1, 10_000))
    fixed = st.builds(VolumeDiscount, st.integers(1, 50), st.just(FIXED), st.integers(1, price_cents + 10))
    return st.lists(percent | fixed, max_size=4)


@given(price_and_tiers=st.integers(1, 5000).flatmap(lambda price: st.tuples(st.just(price), tiers_of(price))))
def test_in_accepted_tiers_more_never_costs_more_a_unit(price_and_tiers: tuple[int, list[VolumeDiscount]]) -> None:
    price, tiers = price_and_tiers
    if refused(*tiers, price_cents=price):
        return
    kept = in_order(tiers)
    before = None
    for quantity in range(1, 60):
        tier = tier_for(kept, quantity)
        off = volume_discount(tier, unit_price_cents=price, quantity=quantity) if tier else 0
        total = price * quantity - off
        if before is not None:  # a line is rounded to the cent: it may be half a cent off, on either side
            assert total * (quantity - 1) <= before * quantity + quantity
        before = total


@pytest.mark.parametrize(("on_hand", "reserved", "allowed"), [(0, 0, True), (5, 5, True), (4, 5, False), (0, 1, False)])
def test_stock_is_not_set_below_what_is_reserved(on_hand: int, reserved: int, allowed: bool) -> None:
    if allowed:
        check_on_hand(on_hand, reserved)
    else:
        with pytest.raises(Conflict, match=f"{reserved} are reserved"):
            check_on_hand(on_hand, reserved)


@pytest.mark.parametrize("spelling", ["spring10", "SPRING10", " Spring10 ", "sPrInG10"])
def test_codes_ignore_case(spelling: str) -> None:
    assert fold_code(spelling) == "spring10"
    assert fold_code("STRASSE") == fold_code("straße")


def test_window_has_its_start_and_not_its_end() -> None:
    moment = timedelta(microseconds=1)
    assert in_force(None, None, NOON)
    assert in_force(NOON, NOON + moment, NOON)
    assert not in_force(NOON + moment, None, NOON)
    assert not in_force(None, NOON, NOON)
