"""What buyers see of the catalogue: who is shown at all, search, filters, sorts, pages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from models.catalog import reads
from models.database import new_id
from models.tenancy import Tenant
from tests.ads_driver import activate, create_ad, open_gates, serve
from tests.api_driver import Api, Person, created, fields, ok, problem
from tests.catalogue import PRODUCTS, SHOP, draft, ids, in_state, listing, product, seller, set_standing, stock
from tests.media_bucket import uploaded


def as_tenant(person: Person) -> Callable[[], Tenant]:
    """The scope of the person's transactions."""
    return lambda: Tenant(UUID(person.store["id"]), UUID(person.user["id"]))


async def orderable(api: Api, buyer: Person, product_id: str) -> bool:
    """Whether a quote would take the product."""
    async with api.services.transaction_for(as_tenant(buyer)) as tx:
        buyer_store_id = UUID(buyer.store["id"])
        found = (await reads.for_quote(tx, [UUID(product_id)], buyer_store_id=buyer_store_id))[UUID(product_id)]
        return found.offered and found.vendor_eligible


async def seen(api: Api, buyer: Person, product_id: str) -> set[str]:
    """Where the buyer meets the product."""
    detail = await api.as_(buyer).get(f"{SHOP}/{product_id}")
    ad = (await serve(api, buyer))["ad"]
    async with api.services.transaction_for(as_tenant(buyer)) as tx:
        policy = await tx.scalar(text("SELECT id FROM products WHERE id = :id"), {"id": UUID(product_id)})
    places = {
        "list": product_id in await ids(api, buyer),
        "search": product_id in await ids(api, buyer, q="dream"),
        "detail": detail.status_code == 200,
        "quote": await orderable(api, buyer, product_id),
        "ad": ad is not None and ad["target_id"] == product_id,
        "policy": policy is not None,
    }
    if detail.status_code != 200:
        problem(detail, 404, "not_found")
    return {place for place, there in places.items() if there}


EVERYWHERE = {"list", "search", "detail", "quote", "ad", "policy"}


async def test_each_condition_alone_hides_a_product_everywhere_and_its_return_shows_it_again(alone: Api) -> None:
    vendor, buyer = await seller(alone), await alone.register("buyer")
    made = await product(alone, vendor)
    await stock(alone, vendor, made["id"], 5)
    await open_gates(alone)
    await activate(alone, vendor, await create_ad(alone, vendor, target_type="product", target_product_id=made["id"]))
    path = f"{PRODUCTS}/{made['id']}"

    async def patch(active: bool) -> None:
        ok(await alone.as_(vendor).patch(path, json={"active": active}))

    async def move(state: str) -> None:
        address = vendor.store["address"] | {"state": state}
        ok(await alone.as_(vendor).patch("/api/v1/stores/me", json={"address": address}))

    async def standing(**to: Any) -> None:
        await set_standing(alone, vendor, **to)

    switches: list[tuple[Callable[[], Awaitable[None]], Callable[[], Awaitable[None]]]] = [
        *((lambda kyc=kyc: standing(kyc=kyc), standing) for kyc in ("pending", "rejected", "expired")),
        (lambda: standing(subscribed=False), standing),
        (lambda: patch(False), lambda: patch(True)),
        (lambda: move("WA"), lambda: move("OR")),
    ]
    assert await eventually(alone, buyer, made["id"], EVERYWHERE) == EVERYWHERE
    for number, (hide, show) in enumerate(switches):
        await hide()
        assert await eventually(alone, buyer, made["id"], set()) == set(), number
        await show()
        assert await eventually(alone, buyer, made["id"], EVERYWHERE) == EVERYWHERE, number
    assert (await alone.as_(vendor).delete(path)).status_code == 204
    problem(await alone.as_(buyer).get(f"{SHOP}/{made['id']}"), 404, "not_found")
    assert (await serve(alone, buyer))["ad"] is None


async def eventually(api: Api, buyer: Person, product_id: str, places: set[str]) -> set[str]:
    """Where the product is seen, as soon as that is `places`: an API reads the ads anew within a second."""
    for _ in range(30):
        found = await seen(api, buyer, product_id)
        if found == places:
            break
        await asyncio.sleep(0.1)
    return found


async def test_product_in_the_shop_has_its_vendor_with_a_logo_its_pictures_and_what_is_left(gcs_api: Api) -> None:
    vendor, buyer = await seller(gcs_api, "ND"), await in_state(gcs_api, "buyer", "ND")
    logo, picture, coa = [(await uploaded(gcs_api, vendor, kind))["id"] for kind in ("store_logo", "product", "coa")]
    ok(await gcs_api.as_(vendor).patch("/api/v1/stores/me", json={"logo_media_id": logo}))
    made = await product(gcs_api, vendor, gallery_media_ids=[picture], coa_media_id=coa)
    await stock(gcs_api, vendor, made["id"], 7)
    [shown] = await listing(gcs_api, buyer)
    assert shown["available_qty"] == 7
    assert shown["vendor"]["store_id"] == vendor.store["id"]
    assert shown["vendor"]["name"] == "Goods of ND"
    assert f"{logo}/original?" in shown["vendor"]["logo_url"]
    assert [one["media_id"] for one in shown["gallery"]] == [picture]
    assert f"{coa}/original?" in shown["coa"]["url"]
    assert ok(await gcs_api.as_(buyer).get(f"{SHOP}/{made['id']}")) == shown


async def test_shop_is_for_buyers(api: Api) -> None:
    vendor = await seller(api)
    path = f"{SHOP}/{(await product(api, vendor))['id']}"
    for url in (SHOP, path):
        problem(await api.as_(vendor).get(url), 403, "forbidden")
        problem(await api.http.get(url), 401, "unauthenticated")
    buyer = await api.register("buyer")
    for unknown in (str(new_id()), "x"):
        problem(await api.as_(buyer).get(f"{SHOP}/{unknown}"), 404, "not_found")


async def test_search_knows_words_of_title_and_description_their_forms_phrases_and_exclusions(api: Api) -> None:
    vendor, buyer = await seller(api, "VT"), await in_state(api, "buyer", "VT")
    dream = (await product(api, vendor, title="Blue Dream", description="Notes of sweet berries"))["id"]
    cheese = (await product(api, vendor, title="Blue Cheese", description="Pungent"))["id"]
    gone = (await product(api, vendor, title="Blue Moon", active=False))["id"]
    for words, found in {
        "blue": {dream, cheese},
        "DREAM": {dream},
        "dreams": {dream},
        "berry": {dream},
        '"blue cheese"': {cheese},
        '"cheese blue"': set(),
        "blue -cheese": {dream},
        "dream or pungent": {dream, cheese},
        "blue pungent": {cheese},
        "moon": set(),
        "the": set(),
        "'; DROP TABLE products; --": set(),
        "& | ! ( <->": set(),
        "  ": {dream, cheese},
    }.items():
        assert set(await ids(api, buyer, q=words)) == found, words
    assert gone not in await ids(api, buyer)
    ok(await api.as_(vendor).patch(f"{PRODUCTS}/{cheese}", json={"title": "Stilton"}))
    assert set(await ids(api, buyer, q="blue")) == {dream}
    assert set(await ids(api, buyer, q="stilton")) == {cheese}


async def test_filters_are_all_held_to(api: Api) -> None:
    first, second = await seller(api, "ME"), await seller(api, "ME")
    buyer = await in_state(api, "buyer", "ME")
    cheap = (await product(api, first, price_cents=100, category="edible"))["id"]
    middle = (await product(api, first, price_cents=200))["id"]
    dear = (await product(api, second, price_cents=300))["id"]
    elsewhere = await seller(api, "NH")
    await product(api, elsewhere)
    for filters, found in (
        ({}, [dear, middle, cheap]),
        ({"category": "edible"}, [cheap]),
        ({"category": "seed"}, []),
        ({"vendor_store_id": first.store["id"]}, [middle, cheap]),
        ({"vendor_store_id": elsewhere.store["id"]}, []),
        ({"vendor_store_id": str(new_id())}, []),
        ({"min_price_cents": 200}, [dear, middle]),
        ({"max_price_cents": 200}, [middle, cheap]),
        ({"min_price_cents": 200, "max_price_cents": 200}, [middle]),
        ({"min_price_cents": 201, "max_price_cents": 200}, []),
        ({"sort": "price_asc"}, [cheap, middle, dear]),
        ({"sort": "price_desc"}, [dear, middle, cheap]),
        ({"sort": "price_asc", "category": "flower", "vendor_store_id": first.store["id"]}, [middle]),
    ):
        assert await ids(api, buyer, **filters) == found, filters


async def test_bad_question_is_refused_by_field(api: Api) -> None:
    buyer = await api.register("buyer")
    for name, value in (
        ("limit", "0"),
        ("limit", "-1"),
        ("limit", "1000000000"),
        ("cursor", "bm90LWEtY3Vyc29y"),
        ("cursor", "\u00fc"),
        ("category", "cheese"),
        ("sort", "cheapest"),
        ("vendor_store_id", "x"),
        ("min_price_cents", "-1"),
        ("min_price_cents", "1.5"),
        ("max_price_cents", str(10**30)),
        ("q", "a\0b"),
        ("q", "x" * 201),
    ):
        answer = await api.as_(buyer).get(SHOP, params={name: value})
        assert fields(problem(answer, 422, "validation_failed")) == {name}, value


@pytest.mark.parametrize("sort", ["newest", "price_asc", "price_desc"])
async def test_ties_are_neither_lost_nor_repeated_whatever_the_page(api: Api, sort: str) -> None:
    state = {"newest": "MT", "price_asc": "WY", "price_desc": "SD"}[sort]
    vendor, buyer = await seller(api, state), await in_state(api, "buyer", state)
    now = {"X-Now": "2027-03-01T12:00:00Z"}
    made = []
    for price in (500, 300, 500, 500, 300, 700, 500):
        body = draft(price_cents=price)
        made.append(created(await api.as_(vendor).post(PRODUCTS, json=body, headers=now)))
    expected = {
        "newest": sorted((one["id"] for one in made), reverse=True),
        "price_asc": [one["id"] for one in sorted(made, key=lambda one: (one["price_cents"], one["id"]))],
        "price_desc": [
            one["id"] for one in sorted(made, key=lambda one: (one["price_cents"], one["id"]), reverse=True)
        ],
    }[sort]
    for limit in (1, 2, 3, 100):
        assert await ids(api, buyer, sort=sort, limit=limit) == expected


async def test_page_goes_on_where_it_was_though_products_come_and_go(api: Api) -> None:
    vendor, buyer = await seller(api, "ID"), await in_state(api, "buyer", "ID")
    made = [(await product(api, vendor, price_cents=100 * n))["id"] for n in range(1, 6)]
    first = await api.as_(buyer).get(SHOP, params={"sort": "price_asc", "limit": 2})
    assert [one["id"] for one in ok(first)] == made[:2]
    await product(api, vendor, price_cents=50)
    assert (await api.as_(vendor).delete(f"{PRODUCTS}/{made[1]}")).status_code == 204
    cursor = first.json()["meta"]["next_cursor"]
    assert await ids_from(api, buyer, cursor, sort="price_asc", limit=2) == made[2:4]


async def ids_from(api: Api, buyer: Person, cursor: str, **params: Any) -> list[str]:
    return [one["id"] for one in ok(await api.as_(buyer).get(SHOP, params=params | {"cursor": cursor}))]


async def test_cursor_is_good_for_its_own_buyer_filters_and_sort_only(api: Api) -> None:
    vendor, buyer, other = (
        await seller(api, "UT"),
        await in_state(api, "buyer", "UT"),
        await in_state(api, "buyer", "UT"),
    )
    for _ in range(3):
        await product(api, vendor)
    own = {"sort": "price_asc", "category": "flower", "limit": 1}
    cursor = (await api.as_(buyer).get(SHOP, params=own)).json()["meta"]["next_cursor"]
    assert len(await ids_from(api, buyer, cursor, **own)) == 1
    assert len(await ids_from(api, buyer, cursor, **own | {"limit": 2})) == 2
    for changed in ({"sort": "price_desc"}, {"sort": "newest"}, {"category": "edible"}, {"q": "dream"}):
        answer = await api.as_(buyer).get(SHOP, params=own | changed | {"cursor": cursor})
        assert fields(problem(answer, 422, "validation_failed")) == {"cursor"}
    answer = await api.as_(other).get(SHOP, params=own | {"cursor": cursor})
    assert fields(problem(answer, 422, "validation_failed")) == {"cursor"}
