"""Cart arithmetic: examples at the edges, and thousands of carts against an oracle that reckons in fractions."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from random import Random
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.cart.rules import (
    AskedPromo,
    Line,
    Product,
    Promo,
    Quote,
    Wanted,
    price_cart,
    price_line,
    promo_discount,
    share,
    tier_for,
)
from models.catalog.rules import DiscountType, PromoType
from models.catalog.rules import VolumeDiscount as Tier

PERCENT, FIXED, AMOUNT = DiscountType.PERCENT, DiscountType.FIXED_PRICE, PromoType.AMOUNT
VENDOR, OTHER = UUID(int=1), UUID(int=2)
ITEM = UUID(int=100)


def product(**changes: Any) -> Product:
    fields: dict[str, Any] = {
        "id": ITEM,
        "vendor_store_id": VENDOR,
        "title": "Blue Dream",
        "category": "flower",
        "price_cents": 1_000,
        "moq": 1,
        "max_qty": None,
        "available": 1_000_000,
        "tiers": (),
        "offered": True,
        "vendor_may_sell": True,
    }
    return Product(**(fields | changes))


def line(quantity: int, **changes: Any) -> Line:
    return price_line(Wanted(ITEM, quantity), product(**changes))


def codes(warnings: Sequence[Any]) -> list[str]:
    return [warning.code.value for warning in warnings]


def cart(quantity: int, promo: Promo | None = None, *, asked: bool = True, **changes: Any) -> Quote:
    """A cart of one line, with a promo asked for unless there is none."""
    wants = [AskedPromo(VENDOR, "TEN")] if asked and promo else []
    return price_cart([Wanted(ITEM, quantity)], {ITEM: product(**changes)}, wants, {VENDOR: promo} if promo else {})


def percent(value: int) -> Promo:
    return Promo(UUID(int=9), "TEN", PromoType.PERCENT, value)


@pytest.mark.parametrize(
    ("cents", "bp", "expected"),
    [(1, 5_000, 0), (3, 5_000, 2), (5, 5_000, 2), (999, 1_000, 100), (25, 1_000, 2), (35, 1_000, 4), (7, 10_000, 7)],
)
def test_a_share_is_rounded_once_half_to_even(cents: int, bp: int, expected: int) -> None:
    assert share(cents, bp) == expected


@pytest.mark.parametrize(("quantity", "min_qty"), [(1, None), (9, None), (10, 10), (49, 10), (50, 50), (10**7, 50)])
def test_the_highest_tier_not_above_the_quantity_applies(quantity: int, min_qty: int | None) -> None:
    tiers = [Tier(50, PERCENT, 100), Tier(10, PERCENT, 2_000)]  # in no order, and the higher one is no better
    found = tier_for(tiers, quantity)
    assert (found.min_qty if found else None) == min_qty


def test_percent_is_rounded_per_line_and_fixed_price_is_exact() -> None:
    tenth = line(3, price_cents=335, tiers=[Tier(2, PERCENT, 1_000)])
    assert (tenth.subtotal_cents, tenth.total_cents) == (1_005, 905)  # 100.5 is 100
    assert tenth.applied == (2, PERCENT, 1_000, 100)
    fixed = line(3, price_cents=335, tiers=[Tier(3, FIXED, 300)])
    assert (fixed.applied, fixed.total_cents) == ((3, FIXED, 300, 105), 900)


def test_a_fixed_price_above_the_list_price_takes_nothing_off_and_adds_nothing() -> None:
    dear = line(4, price_cents=100, tiers=[Tier(1, FIXED, 150)])
    assert (dear.applied, dear.total_cents) == ((1, FIXED, 150, 0), 400)


def test_the_tier_is_that_of_the_quantity_after_clamping() -> None:
    raised = line(1, moq=10, tiers=[Tier(10, PERCENT, 1_000)])
    assert (raised.quantity, raised.total_cents, codes(raised.warnings)) == (10, 9_000, ["clamped_to_moq"])
    lowered = line(99, max_qty=5, tiers=[Tier(10, PERCENT, 1_000)])
    assert (lowered.quantity, lowered.applied, codes(lowered.warnings)) == (5, None, ["clamped_to_max_qty"])


@pytest.mark.parametrize(
    ("requested", "changes", "status", "quantity", "warnings"),
    [
        (5, {"available": 5}, "ok", 5, []),
        (6, {"available": 5}, "not_available", 6, ["insufficient_stock"]),
        (9, {"available": 5, "max_qty": 5}, "ok", 5, ["clamped_to_max_qty"]),
        (9, {"available": 5, "max_qty": 6}, "not_available", 6, ["clamped_to_max_qty", "insufficient_stock"]),
        (1, {"available": 5, "moq": 6}, "not_available", 6, ["clamped_to_moq", "insufficient_stock"]),
        (6, {"moq": 6, "max_qty": 6, "available": 6}, "ok", 6, []),
        (1, {"available": 0}, "not_available", 1, ["insufficient_stock"]),
        (1, {"offered": False, "moq": 2, "available": 0}, "not_available", 1, ["product_unavailable"]),
        (1, {"vendor_may_sell": False, "moq": 2}, "invalid", 1, ["vendor_not_eligible"]),
        (1, {"vendor_may_sell": False, "offered": False}, "invalid", 1, ["vendor_not_eligible"]),
    ],
)
def test_bounds_come_before_stock_and_what_is_not_on_sale_comes_before_both(
    requested: int, changes: dict[str, Any], status: str, quantity: int, warnings: list[str]
) -> None:
    found = line(requested, **changes)
    assert (found.status, found.requested_qty, found.quantity) == (status, requested, quantity)
    assert codes(found.warnings) == warnings


def test_an_unknown_product_is_invalid_with_no_vendor_and_no_group() -> None:
    quote = price_cart([Wanted(ITEM, 3)], {}, [], {})
    (found,) = quote.lines
    assert (found.status, found.product, codes(found.warnings)) == ("invalid", None, ["product_unavailable"])
    assert (found.subtotal_cents, found.total_cents) == (0, 0)
    assert (quote.groups, quote.total_cents, quote.warnings) == ((), 0, ())


def test_a_promo_takes_off_the_sum_after_volume_discounts_rounded_once() -> None:
    products = {UUID(int=n): product(id=UUID(int=n), price_cents=15) for n in (1, 2)}
    wanted = [Wanted(one, 1) for one in products]
    quote = price_cart(wanted, products, [AskedPromo(VENDOR, "TEN")], {VENDOR: percent(1_000)})
    assert quote.groups[0].promo is not None
    assert quote.groups[0].promo.discount_cents == 3  # by line it would be 2 + 2
    both = cart(10, percent(1_000), price_cents=105, tiers=[Tier(10, PERCENT, 1_000)])
    assert (both.subtotal_cents, both.discounts_cents, both.total_cents) == (1_050, 199, 851)  # 105, then 94.5


def test_a_promo_never_goes_below_zero_and_needs_to_be_asked_for() -> None:
    amount = Promo(UUID(int=9), "TEN", AMOUNT, 5_000)
    assert promo_discount(amount, 4_999) == 4_999
    quote = cart(1, amount)
    assert (quote.total_cents, quote.discounts_cents) == (0, 1_000)
    assert cart(1, amount, asked=False).total_cents == 1_000


def test_a_promo_counts_ok_lines_alone() -> None:
    nothing = cart(1, percent(1_000), available=0)
    assert (nothing.groups[0].status, nothing.total_cents, nothing.discounts_cents) == ("invalid", 0, 0)
    assert nothing.groups[0].promo is not None
    assert nothing.groups[0].promo.discount_cents == 0


def test_a_promo_that_is_not_valid_warns_the_group_and_one_for_a_stranger_warns_the_cart() -> None:
    asked = [AskedPromo(VENDOR, "NOPE"), AskedPromo(OTHER, "AWAY")]
    quote = price_cart([Wanted(ITEM, 1)], {ITEM: product()}, asked, {OTHER: percent(1_000)})
    assert codes(quote.groups[0].warnings) == codes(quote.warnings) == ["invalid_promo"]
    assert (quote.groups[0].promo, quote.groups[0].status, quote.total_cents) == (None, "ok", 1_000)


def test_a_vendor_that_may_not_sell_is_warned_of_once_in_its_group() -> None:
    ids = [UUID(int=n) for n in (1, 2)]
    products = {one: product(id=one, vendor_may_sell=False) for one in ids}
    quote = price_cart([Wanted(one, 1) for one in ids], products, [], {})
    assert (quote.groups[0].status, codes(quote.groups[0].warnings)) == ("invalid", ["vendor_not_eligible"])


# -- against an oracle ------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    wanted: list[Wanted]
    products: dict[UUID, Product]
    asked: list[AskedPromo]
    promos: dict[UUID, Promo]


VENDORS = [UUID(int=n) for n in range(1, 5)]
SEEDS = 5_000


def some_tiers(dice: Random) -> list[Tier]:
    steps = dice.sample(range(1, 60), dice.randint(0, 3))
    return [
        Tier(step, *dice.choice([(PERCENT, dice.randint(1, 10_000)), (FIXED, dice.randint(0, 12_000))]))
        for step in steps
    ]


def some_product(dice: Random, number: int, barred: UUID | None) -> Product:
    vendor, moq = dice.choice(VENDORS), dice.choice([1, 1, 5, 12])
    return product(
        id=UUID(int=1_000 + number),
        vendor_store_id=vendor,
        price_cents=dice.choice([dice.randint(1, 10_000), dice.randint(1, 10**8)]),
        moq=moq,
        max_qty=dice.choice([None, dice.randint(moq, 80)]),
        available=dice.choice([dice.randint(0, 100), 10**9]),
        tiers=some_tiers(dice),
        offered=dice.randint(0, 9) > 0,
        vendor_may_sell=vendor != barred,
    )


def some_promo(dice: Random, vendor: UUID) -> Promo:
    kind = dice.choice([(PromoType.PERCENT, dice.randint(1, 10_000)), (AMOUNT, dice.randint(1, 10**6))])
    return Promo(UUID(int=50 + vendor.int), f"C{vendor.int}", *kind)


def some_case(dice: Random) -> Case:
    barred = dice.choice([None, *VENDORS])
    products = [some_product(dice, number, barred) for number in range(dice.randint(0, 7))]
    ids = [one.id for one in products] + [UUID(int=7)] * dice.randint(0, 1)
    dice.shuffle(ids)
    return Case(
        wanted=[Wanted(one, dice.choice([dice.randint(1, 100), dice.randint(1, 10**7)])) for one in ids],
        products={one.id: one for one in products},
        asked=[AskedPromo(v, f"C{v.int}") for v in dice.sample(VENDORS, dice.randint(0, 4))],
        promos={v: some_promo(dice, v) for v in dice.sample(VENDORS, dice.randint(0, 4))},
    )


def exact(amount: Fraction) -> int:
    """Half to even, by the decimal library."""
    return int((Decimal(amount.numerator) / Decimal(amount.denominator)).quantize(Decimal(1), ROUND_HALF_EVEN))


def fate(item: Product | None, asked: int) -> tuple[str, int, set[str]]:
    """Status, quantity and warnings, by elimination."""
    if item is None:
        return "invalid", asked, {"product_unavailable"}
    for bad, status, code in (
        (not item.vendor_may_sell, "invalid", "vendor_not_eligible"),
        (not item.offered, "not_available", "product_unavailable"),
    ):
        if bad:
            return status, asked, {code}
    allowed = sorted((item.moq, asked, item.max_qty or max(asked, item.moq)))[1]  # the middle one of the three
    marks = {"clamped_to_moq"} if asked < allowed else {"clamped_to_max_qty"} if asked > allowed else set()
    if item.available - allowed < 0:
        return "not_available", allowed, marks | {"insufficient_stock"}
    return "ok", allowed, marks


def line_price(item: Product, quantity: int) -> tuple[int, int]:
    """Subtotal and total of a line, from the price of one unit as a fraction."""
    ladder = dict(sorted((tier.min_qty, tier) for tier in item.tiers))
    unit, rung = Fraction(item.price_cents), None
    for step, tier in ladder.items():
        rung = tier if step <= quantity else rung
    if rung is None:
        return int(unit * quantity), int(unit * quantity)
    if rung.type == FIXED:
        return int(unit * quantity), int(min(unit, Fraction(rung.value)) * quantity)
    off = exact(unit * quantity * Fraction(rung.value, 10_000))
    return int(unit * quantity), int(unit * quantity) - off


def books(case: Case) -> dict[UUID, list[int]]:
    """Of each vendor in the cart: subtotal, total after volume, total after the promo."""
    sums: dict[UUID, list[int]] = {}
    for one in case.wanted:
        item = case.products.get(one.product_id)
        if item is None:
            continue
        row = sums.setdefault(item.vendor_store_id, [0, 0, 0])
        status, quantity, _ = fate(item, one.quantity)
        if status == "ok":
            subtotal, total = line_price(item, quantity)
            row[0] += subtotal
            row[1] += total
    for vendor, row in sums.items():
        promo = case.promos.get(vendor) if vendor in {one.vendor_store_id for one in case.asked} else None
        row[2] = row[1]
        if promo is not None and promo.type == AMOUNT:
            row[2] = max(0, row[1] - promo.value)
        elif promo is not None:
            row[2] = row[1] - exact(Fraction(row[1] * promo.value, 10_000))
    return sums


def check_against_oracle(case: Case) -> None:
    quote = price_cart(*case)
    assert [found.product_id for found in quote.lines] == [one.product_id for one in case.wanted]
    for one, found in zip(case.wanted, quote.lines, strict=True):
        item = case.products.get(one.product_id)
        status, quantity, marks = fate(item, one.quantity)
        assert (found.status, found.quantity, set(codes(found.warnings))) == (status, quantity, marks)
        if item is not None:
            assert (found.subtotal_cents, found.total_cents) == line_price(item, quantity)
    sums = books(case)
    groups = {group.vendor_store_id: group for group in quote.groups}
    assert groups.keys() == sums.keys()
    for vendor, (subtotal, _, total) in sums.items():
        assert (groups[vendor].subtotal_cents, groups[vendor].total_cents) == (subtotal, total)
    assert quote.subtotal_cents == sum(row[0] for row in sums.values())
    assert quote.total_cents == sum(row[2] for row in sums.values())


def check_sums(case: Case) -> None:
    quote = price_cart(*case)
    for level in (*quote.groups, quote):
        assert level.total_cents == level.subtotal_cents - level.discounts_cents
        assert 0 <= level.total_cents <= level.subtotal_cents < 2**63
    for found in quote.lines:
        assert found.subtotal_cents == found.unit_price_cents * found.quantity
        off = found.applied.discount_cents if found.applied else 0
        assert 0 <= found.total_cents == found.subtotal_cents - off
    by_volume = sum(f.applied.discount_cents for f in quote.lines if f.applied and f.status == "ok")
    by_promo = sum(group.promo.discount_cents for group in quote.groups if group.promo)
    assert quote.discounts_cents == by_volume + by_promo


@settings(max_examples=100, deadline=None)
@given(st.randoms(use_true_random=False))
def test_quotes_agree_with_an_oracle_and_add_up(dice: Random) -> None:
    case = some_case(dice)
    check_against_oracle(case)
    check_sums(case)


def test_thousands_of_quotes_agree_with_an_oracle_and_add_up() -> None:
    for seed in range(SEEDS):
        case = some_case(Random(seed))
        check_against_oracle(case)
        check_sums(case)
