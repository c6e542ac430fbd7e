"""Quotes over HTTP: the shape, the arithmetic, and every warning on real products, stock and promos."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from models.database import new_id
from tests.ads_driver import execute, make_eligible
from tests.api_driver import Api, Person, fields, ok, problem
from tests.cart_shop import CART, NOON, codes, look, open_shop, post, promise, quote, set_product, stock, wants

CART_FIELDS = {
    "id",
    "status",
    "currency",
    "valid_until",
    "items",
    "vendor_groups",
    "subtotal_cents",
    "discounts_cents",
    "total_cents",
    "warnings",
    "attribution_tokens",
    "checkout_group_id",
    "payment_method",
    "shipping_line",
    "converted_at",
}
ITEM_FIELDS = {
    "id",
    "product_id",
    "vendor_store_id",
    "requested_qty",
    "quantity",
    "unit_price_cents",
    "applied_volume_discount",
    "line_subtotal_cents",
    "line_total_cents",
    "moq",
    "max_qty",
    "status",
    "warnings",
}
GROUP_FIELDS = {"vendor_store_id", "status", "promo", "subtotal_cents", "discounts_cents", "total_cents", "warnings"}


# -- what a cart says -------------------------------------------------------------------------------------------------


async def test_a_cart_has_every_field_of_the_contract(api: Api, vendor: Person, buyer: Person) -> None:
    product = await stock(api, vendor)
    cart = await quote(api, buyer, (product, 2))
    assert cart.keys() >= CART_FIELDS
    (item,), (group,) = cart["items"], cart["vendor_groups"]
    assert (item.keys() >= ITEM_FIELDS, group.keys() >= GROUP_FIELDS) == (True, True)
    assert (cart["status"], cart["currency"], cart["valid_until"]) == ("active", "USD", "2027-03-01T12:15:00Z")
    unset = ("checkout_group_id", "payment_method", "shipping_line", "converted_at")
    assert [cart[name] for name in unset] == [None] * 4
    assert (item["product_id"], item["vendor_store_id"]) == (product, vendor.store["id"])
    assert (item["moq"], item["max_qty"], item["applied_volume_discount"], item["status"]) == (1, None, None, "ok")
    assert (item["line_subtotal_cents"], item["line_total_cents"], cart["total_cents"]) == (2_000, 2_000, 2_000)
    assert (cart["warnings"], item["warnings"], group["warnings"], cart["attribution_tokens"]) == ([], [], [], [])


async def test_the_cart_is_kept_as_it_was_answered(api: Api, vendor: Person, buyer: Person) -> None:
    problem(await look(api, buyer), 404, "not_found")
    ids = [await stock(api, vendor) for _ in range(3)]
    cart = await quote(api, buyer, *reversed(ids))
    assert [item["product_id"] for item in cart["items"]] == ids[::-1]
    assert ok(await look(api, buyer)) == cart


async def test_a_new_quote_replaces_the_old_one_and_the_cart_keeps_its_id(
    api: Api, vendor: Person, buyer: Person
) -> None:
    first, second = await stock(api, vendor), await stock(api, vendor)
    await promise(api, vendor)
    asked = [{"vendor_store_id": vendor.store["id"], "code": "TEN"}]
    before = await quote(api, buyer, first, promos=asked)
    after = await quote(api, buyer, (second, 3), now=NOON + timedelta(minutes=1))
    assert (after["id"], after["total_cents"]) == (before["id"], 3_000)
    assert [item["product_id"] for item in after["items"]] == [second]
    assert after["vendor_groups"][0]["promo"] is None
    assert after["valid_until"] == "2027-03-01T12:16:00Z"
    assert ok(await look(api, buyer)) == after


async def test_todays_price_counts_at_the_next_quote_and_not_before(api: Api, vendor: Person, buyer: Person) -> None:
    product = await stock(api, vendor)
    await quote(api, buyer, product)
    await set_product(api, product, price_cents=700)
    assert ok(await look(api, buyer))["total_cents"] == 1_000
    assert (await quote(api, buyer, product))["total_cents"] == 700


# -- money ------------------------------------------------------------------------------------------------------------


async def test_discounts_and_totals_add_up_over_vendors(api: Api, vendor: Person, buyer: Person) -> None:
    other = await open_shop(api)
    tiers = [{"min_qty": 3, "type": "percent", "value": 1_000}, {"min_qty": 10, "type": "fixed_price", "value": 250}]
    tiered = await stock(api, vendor, price_cents=335, volume_discounts=tiers)
    plain = await stock(api, vendor, price_cents=15)
    foreign = await stock(api, other, price_cents=99)
    await promise(api, vendor, value=1_000)
    await promise(api, other, code="Five", type="amount", value=500)
    asked = [
        {"vendor_store_id": vendor.store["id"], "code": "ten"},
        {"vendor_store_id": other.store["id"], "code": "FIVE"},
    ]
    cart = await quote(api, buyer, (tiered, 3), plain, foreign, promos=asked)
    assert cart["items"][0]["applied_volume_discount"] == {
        "min_qty": 3, "type": "percent", "value": 1_000, "discount_cents": 100,
    }  # fmt: skip
    mine, theirs = cart["vendor_groups"]
    assert (mine["subtotal_cents"], mine["discounts_cents"], mine["total_cents"]) == (1_020, 192, 828)
    assert {k: mine["promo"][k] for k in ("code", "type", "value", "discount_cents")} == {
        "code": "TEN", "type": "percent", "value": 1_000, "discount_cents": 92,
    }  # fmt: skip
    assert (theirs["discounts_cents"], theirs["total_cents"], theirs["promo"]["code"]) == (99, 0, "Five")
    assert (cart["subtotal_cents"], cart["discounts_cents"], cart["total_cents"]) == (1_119, 291, 828)
    fixed = await quote(api, buyer, (tiered, 10))
    assert (fixed["items"][0]["applied_volume_discount"]["discount_cents"], fixed["total_cents"]) == (850, 2_500)


@pytest.mark.parametrize(("asked", "ends"), [(10_000_000, "ok"), (9_999_999, "ok")])
async def test_huge_quantities_are_priced_exactly(api: Api, buyer: Person, asked: int, ends: str) -> None:
    shop = await open_shop(api)
    dear = await stock(api, shop, price_cents=99_999_999, on_hand=10_000_000)
    cart = await quote(api, buyer, (dear, asked))
    assert (cart["items"][0]["status"], cart["total_cents"]) == (ends, 99_999_999 * asked)


# -- warnings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terms", "on_hand", "asked", "quantity", "status", "warnings"),
    [
        ({"moq": 5}, 9, 1, 5, "ok", ["clamped_to_moq"]),
        ({"max_qty": 5}, 5, 9, 5, "ok", ["clamped_to_max_qty"]),
        ({}, 5, 6, 6, "not_available", ["insufficient_stock"]),
        ({}, 5, 5, 5, "ok", []),
        ({}, 0, 1, 1, "not_available", ["insufficient_stock"]),
        ({"moq": 5}, 4, 1, 5, "not_available", ["clamped_to_moq", "insufficient_stock"]),
        ({"max_qty": 5}, 4, 9, 5, "not_available", ["clamped_to_max_qty", "insufficient_stock"]),
    ],
)
async def test_quantities_are_clamped_and_held_against_the_stock(
    api: Api,
    vendor: Person,
    buyer: Person,
    terms: dict[str, Any],
    on_hand: int,
    asked: int,
    quantity: int,
    status: str,
    warnings: list[str],
) -> None:
    product = await stock(api, vendor, on_hand=on_hand, **terms)
    cart = await quote(api, buyer, (product, asked))
    (item,) = cart["items"]
    assert (item["requested_qty"], item["quantity"], item["status"]) == (asked, quantity, status)
    assert codes(item) == warnings
    assert cart["total_cents"] == (1_000 * quantity if status == "ok" else 0)


async def test_what_others_reserved_is_not_available(api: Api, vendor: Person, buyer: Person) -> None:
    product = await stock(api, vendor, on_hand=10)
    await execute(api, "UPDATE inventory SET reserved = 8 WHERE product_id = :id", id=product)
    assert (await quote(api, buyer, (product, 2)))["items"][0]["status"] == "ok"
    assert codes((await quote(api, buyer, (product, 3)))["items"][0]) == ["insufficient_stock"]


async def test_only_ok_lines_count(api: Api, vendor: Person, buyer: Person) -> None:
    good, short = await stock(api, vendor), await stock(api, vendor, on_hand=1)
    cart = await quote(api, buyer, (good, 2), (short, 5))
    assert (cart["total_cents"], cart["vendor_groups"][0]["total_cents"]) == (2_000, 2_000)
    assert cart["items"][1]["line_subtotal_cents"] == 5_000


@pytest.mark.parametrize("change", [{"active": False}, {"deleted_at": NOON}])
async def test_a_product_that_is_not_offered_is_not_available(
    api: Api, vendor: Person, buyer: Person, change: dict[str, Any]
) -> None:
    product = await stock(api, vendor)
    await set_product(api, product, **change)
    cart = await quote(api, buyer, product)
    (item,) = cart["items"]
    assert (item["status"], codes(item), item["vendor_store_id"]) == (
        "not_available", ["product_unavailable"], vendor.store["id"],
    )  # fmt: skip
    assert cart["total_cents"] == 0


async def test_a_vendor_of_another_state_has_nothing_for_the_buyer(api: Api, buyer: Person) -> None:
    away = await open_shop(api, state="CA")
    (item,) = (await quote(api, buyer, await stock(api, away)))["items"]
    assert (item["status"], codes(item)) == ("not_available", ["product_unavailable"])


async def test_an_unknown_product_is_invalid_with_no_vendor_and_no_group(
    api: Api, vendor: Person, buyer: Person
) -> None:
    cart = await quote(api, buyer, str(new_id()), await stock(api, vendor))
    item = cart["items"][0]
    assert (item["status"], item["vendor_store_id"], codes(item)) == ("invalid", None, ["product_unavailable"])
    assert (len(cart["vendor_groups"]), cart["total_cents"]) == (1, 1_000)
    alone = await quote(api, buyer, str(new_id()))
    assert (alone["vendor_groups"], alone["total_cents"], alone["warnings"]) == ([], 0, [])


async def test_a_vendor_that_loses_and_regains_its_licence_or_subscription(
    api: Api, vendor: Person, buyer: Person
) -> None:
    product = await stock(api, vendor)
    assert (await quote(api, buyer, product))["items"][0]["status"] == "ok"
    standings: list[dict[str, Any]] = [{"kyc": "expired"}, {"kyc": "pending"}, {"subscribed": False}]
    for standing in standings:
        await make_eligible(api, vendor.store["id"], **standing)
        cart = await quote(api, buyer, product)
        (item,), (group,) = cart["items"], cart["vendor_groups"]
        assert (item["status"], group["status"], cart["total_cents"]) == ("invalid", "invalid", 0)
        assert codes(item) == codes(group) == ["vendor_not_eligible"]
    await make_eligible(api, vendor.store["id"])
    assert (await quote(api, buyer, product))["total_cents"] == 1_000


# -- promos -----------------------------------------------------------------------------------------------------------


async def test_an_invalid_promo_is_a_warning_of_its_group(api: Api, vendor: Person, buyer: Person) -> None:
    other = await open_shop(api)
    await promise(api, other, code="THEIRS")
    product = await stock(api, vendor)
    for code in ("NOPE", "THEIRS", "x" * 200):
        cart = await quote(api, buyer, product, promos=[{"vendor_store_id": vendor.store["id"], "code": code}])
        (group,) = cart["vendor_groups"]
        assert (codes(group), group["promo"], group["status"]) == (["invalid_promo"], None, "ok")
        assert (cart["total_cents"], cart["warnings"]) == (1_000, [])


async def test_a_promo_for_a_vendor_that_is_not_in_the_cart_is_a_warning_of_the_cart(
    api: Api, vendor: Person, buyer: Person
) -> None:
    other = await open_shop(api)
    await promise(api, other)
    product = await stock(api, vendor)
    strangers = [other.store["id"], buyer.store["id"], str(new_id())]
    asked = [{"vendor_store_id": one, "code": "TEN"} for one in strangers]
    cart = await quote(api, buyer, product, promos=asked)
    assert (codes(cart), cart["total_cents"]) == (["invalid_promo"] * 3, 1_000)
    assert cart["vendor_groups"][0]["warnings"] == []


async def test_a_promo_counts_from_its_start_to_before_its_end(api: Api, vendor: Person, buyer: Person) -> None:
    product = await stock(api, vendor)
    window = {"starts_at": "2027-03-01T12:00:00Z", "ends_at": "2027-03-01T13:00:00Z"}
    await promise(api, vendor, **window)
    asked = [{"vendor_store_id": vendor.store["id"], "code": "TEN"}]
    minute, second = timedelta(minutes=60), timedelta(seconds=1)
    for off, total in ((-second, 1_000), (0 * second, 900), (minute - second, 900), (minute, 1_000)):
        cart = await quote(api, buyer, product, promos=asked, now=NOON + off)
        assert cart["total_cents"] == total
        assert codes(cart["vendor_groups"][0]) == ([] if total == 900 else ["invalid_promo"])


# -- requests that are refused ----------------------------------------------------------------------------------------

ONE = str(new_id())
ITEM = {"product_id": ONE, "quantity": 1}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "items"),
        ({"items": []}, "items"),
        ({"items": [ITEM] * 2}, "items"),
        ({"items": [ITEM, ITEM | {"product_id": ONE.upper(), "quantity": 2}]}, "items"),
        ({"items": [{"product_id": str(new_id()), "quantity": 1} for _ in range(101)]}, "items"),
        ({"items": [ITEM | {"quantity": 0}]}, "items.0.quantity"),
        ({"items": [ITEM | {"quantity": -1}]}, "items.0.quantity"),
        ({"items": [ITEM | {"quantity": 10_000_001}]}, "items.0.quantity"),
        ({"items": [ITEM | {"quantity": 10**30}]}, "items.0.quantity"),
        ({"items": [ITEM | {"quantity": 1.5}]}, "items.0.quantity"),
        ({"items": [ITEM | {"quantity": "1"}]}, "items.0.quantity"),
        ({"items": [ITEM | {"quantity": True}]}, "items.0.quantity"),
        ({"items": [ITEM | {"product_id": "x"}]}, "items.0.product_id"),
        ({"items": [ITEM | {"unit_price_cents": 1}]}, "items.0.unit_price_cents"),
        ({"items": [ITEM], "total_cents": 1}, "total_cents"),
        ({"items": [ITEM], "currency": "USD"}, "currency"),
        ({"items": [ITEM], "promos": [{"vendor_store_id": ONE, "code": c} for c in "ab"]}, "promos"),
        ({"items": [ITEM], "promos": [{"vendor_store_id": ONE, "code": " "}]}, "promos.0.code"),
        ({"items": [ITEM], "promos": [{"vendor_store_id": ONE, "code": "A", "value": 1}]}, "promos.0.value"),
        ({"items": [ITEM], "attribution_tokens": ["x"] * 21}, "attribution_tokens"),
        ({"items": [ITEM], "attribution_tokens": [1]}, "attribution_tokens.0"),
    ],
)
async def test_a_bad_quote_is_refused_and_leaves_no_cart(
    api: Api, buyer: Person, body: dict[str, Any], field: str
) -> None:
    assert fields(problem(await post(api, buyer, body), 422, "validation_failed")) == {field}
    problem(await look(api, buyer), 404, "not_found")


async def test_a_hundred_items_are_taken(api: Api, buyer: Person) -> None:
    cart = await quote(api, buyer, *(str(new_id()) for _ in range(100)))
    assert len(cart["items"]) == 100


async def test_only_buyers_have_carts(api: Api, vendor: Person, buyer: Person) -> None:
    admin = await api.register_admin()
    for person in (vendor, admin):
        problem(await post(api, person, {"items": [ITEM]}), 403, "forbidden")
        problem(await look(api, person), 403, "forbidden")
        async with api.as_(person) as client:
            problem(await client.post(CART, json={"items": [ITEM]}), 403, "forbidden")
    problem(await api.http.post(CART, json={"items": [ITEM]}), 401, "unauthenticated")
    problem(await api.http.get(CART), 401, "unauthenticated")
    async with api.as_(buyer) as client:
        problem(await client.post(CART, json={"items": wants(ONE)}), 400, "idempotency_key_missing")
