"""A vendor's products over HTTP: terms, tiers, media, SKUs, deletion, and who may touch them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from models.database import new_id
from schemas.records import ProductChanged
from tests.api_driver import Api, Person, created, fields, ok, problem
from tests.catalogue import PRODUCTS, SHOP, audited, draft, ids, in_state, listing, product, published, seller
from tests.media_bucket import MEDIA, announce, uploaded

TIERS = [
    {"min_qty": 100, "type": "fixed_price", "value": 9000},
    {"min_qty": 10, "type": "percent", "value": 1000},
]


async def test_new_product_says_all_that_was_sent_and_what_was_left_out_has_its_default(api: Api) -> None:
    vendor = await api.register("vendor")
    body = draft(title="  Blue Dream ", volume_discounts=TIERS)
    made = created(await api.as_(vendor).post(PRODUCTS, json=body))
    assert made == body | {
        "id": made["id"],
        "store_id": vendor.store["id"],
        "title": "Blue Dream",
        "description": None,
        "currency": "USD",
        "moq": 1,
        "max_qty": None,
        "active": True,
        "volume_discounts": TIERS[::-1],
        "gallery_media_ids": [],
        "gallery": [],
        "coa_media_id": None,
        "coa": None,
        "vendor": {"store_id": vendor.store["id"], "name": "Analytical Goods", "logo_url": None},
        "available_qty": 0,
        "created_at": made["created_at"],
        "updated_at": made["created_at"],
    }
    assert UUID(made["id"]).version == 7
    assert ok(await api.as_(vendor).get(f"{PRODUCTS}/{made['id']}")) == made
    assert await listing(api, vendor, PRODUCTS) == [made]


async def test_every_change_has_its_audit_row_and_its_event(api: Api) -> None:
    vendor = await api.register("vendor")
    made = await product(api, vendor, sku="A-1")
    path, actor = f"{PRODUCTS}/{made['id']}", f"user:{vendor.user['id']}"
    changed = ok(await api.as_(vendor).patch(path, json={"price_cents": 11000, "title": "Blue Dream"}))
    assert (changed["price_cents"], changed["title"], changed["sku"]) == (11000, "Blue Dream", "A-1")
    ok(await api.as_(vendor).patch(path, json={"price_cents": 11000}))
    ok(await api.as_(vendor).patch(path, json={}))
    assert (await api.as_(vendor).delete(path)).status_code == 204
    entries = await audited(api, made["id"])
    assert [entry[:2] for entry in entries] == [
        (actor, "product.created"),
        (actor, "product.changed"),
        (actor, "product.deleted"),
    ]
    assert entries[1][2] == {"price_cents": [12000, 11000]}
    events = await published(api, made["id"])
    assert all(isinstance(event, ProductChanged) for event in events)
    assert [(event.price_cents, event.deleted) for event in events] == [(12000, False), (11000, False), (11000, True)]
    assert {(str(event.store_id), event.actor, event.sku) for event in events} == {(vendor.store["id"], actor, "A-1")}


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "free": ({"price_cents": 0}, "price_cents"),
    "negative price": ({"price_cents": -1}, "price_cents"),
    "absurd price": ({"price_cents": 100_000_001}, "price_cents"),
    "price beyond any integer": ({"price_cents": 10**30}, "price_cents"),
    "price as text": ({"price_cents": "100"}, "price_cents"),
    "fractional price": ({"price_cents": 99.5}, "price_cents"),
    "price a truth": ({"price_cents": True}, "price_cents"),
    "no smallest order": ({"moq": 0}, "moq"),
    "negative smallest order": ({"moq": -1}, "moq"),
    "bounds crossed": ({"moq": 5, "max_qty": 4}, "max_qty"),
    "largest order of nothing": ({"max_qty": 0}, "max_qty"),
    "unknown category": ({"category": "cheese"}, "category"),
    "unknown unit": ({"unit": "litre"}, "unit"),
    "empty SKU": ({"sku": "  "}, "sku"),
    "long SKU": ({"sku": "x" * 65}, "sku"),
    "empty title": ({"title": ""}, "title"),
    "null title": ({"title": None}, "title"),
    "NUL": ({"description": "a\0b"}, "body"),
    "not a truth": ({"active": "yes"}, "active"),
    "unknown field": ({"deleted_at": None}, "deleted_at"),
    "another store": ({"store_id": str(new_id())}, "store_id"),
    "malformed media": ({"gallery_media_ids": ["x"]}, "gallery_media_ids.0"),
    "too many media": ({"gallery_media_ids": [str(new_id())] * 21}, "gallery_media_ids"),
    "tier of nothing": (
        {"volume_discounts": [{"min_qty": 0, "type": "percent", "value": 1}]},
        "volume_discounts.0.min_qty",
    ),
    "tier without a discount": (
        {"volume_discounts": [{"min_qty": 2, "type": "percent", "value": 0}]},
        "volume_discounts.0.value",
    ),
    "more than all": ({"volume_discounts": [{"min_qty": 2, "type": "percent", "value": 10_001}]}, "volume_discounts.0"),
    "unknown tier": ({"volume_discounts": [{"min_qty": 2, "type": "amount", "value": 1}]}, "volume_discounts.0.type"),
    "fixed price not below the list's": (
        {"volume_discounts": [{"min_qty": 2, "type": "fixed_price", "value": 12000}]},
        "volume_discounts.0.value",
    ),
    "overlapping tiers": ({"volume_discounts": [TIERS[1], TIERS[0] | {"min_qty": 10}]}, "volume_discounts.1.min_qty"),
    "rising tiers": (
        {"volume_discounts": [TIERS[1], {"min_qty": 20, "type": "fixed_price", "value": 10_800}]},
        "volume_discounts.1.value",
    ),
    "too many tiers": (
        {"volume_discounts": [{"min_qty": n, "type": "percent", "value": n} for n in range(1, 22)]},
        "volume_discounts",
    ),
}


async def test_bad_product_is_refused_by_field_and_nothing_is_written(api: Api) -> None:
    vendor = await api.register("vendor")
    for why, (changes, field) in BAD.items():
        body = problem(await api.as_(vendor).post(PRODUCTS, json=draft(**changes)), 422, "validation_failed")
        assert fields(body) == {field}, why
    assert await listing(api, vendor, PRODUCTS) == []


async def test_bad_change_is_refused_and_nothing_is_written(api: Api) -> None:
    vendor = await api.register("vendor")
    made = await product(api, vendor)
    for why, (changes, _) in BAD.items():
        answer = await api.as_(vendor).patch(f"{PRODUCTS}/{made['id']}", json=changes)
        assert answer.status_code == 422, why
    assert await listing(api, vendor, PRODUCTS) == [made]


@pytest.mark.parametrize(
    ("kept", "change", "field"),
    [
        ({"moq": 5}, {"max_qty": 4}, "max_qty"),
        ({"moq": 2, "max_qty": 4}, {"moq": 5}, "max_qty"),
        ({"volume_discounts": TIERS}, {"price_cents": 9000}, "volume_discounts.1.value"),
    ],
)
async def test_change_is_held_against_what_the_product_says_already(
    api: Api, kept: dict[str, Any], change: dict[str, Any], field: str
) -> None:
    vendor = await api.register("vendor")
    made = await product(api, vendor, **kept)
    body = problem(await api.as_(vendor).patch(f"{PRODUCTS}/{made['id']}", json=change), 422, "validation_failed")
    assert fields(body) == {field}
    assert ok(await api.as_(vendor).get(f"{PRODUCTS}/{made['id']}")) == made


async def test_what_may_be_taken_away_is_taken_away_by_null(api: Api) -> None:
    vendor = await api.register("vendor")
    made = await product(api, vendor, description="Sweet", max_qty=5, volume_discounts=TIERS)
    change = {"description": None, "max_qty": None, "volume_discounts": []}
    changed = ok(await api.as_(vendor).patch(f"{PRODUCTS}/{made['id']}", json=change))
    assert changed == made | change | {"updated_at": changed["updated_at"]}


async def test_sku_is_the_stores_once_and_free_again_after_deletion(api: Api) -> None:
    vendor, other = await api.register("vendor"), await api.register("vendor")
    made = await product(api, vendor, sku="A-1")
    second = await product(api, vendor, sku="A-2")
    await product(api, other, sku="A-1")
    problem(await api.as_(vendor).post(PRODUCTS, json=draft(sku="A-1")), 409, "already_exists")
    key = {"Idempotency-Key": "again"}
    refused = await api.as_(vendor).post(PRODUCTS, json=draft(sku="A-1"), headers=key)
    problem(refused, 409, "already_exists")  # and kept: the transaction that keeps it is whole
    assert (await api.as_(vendor).post(PRODUCTS, json=draft(sku="A-1"), headers=key)).content == refused.content
    problem(await api.as_(vendor).patch(f"{PRODUCTS}/{second['id']}", json={"sku": "A-1"}), 409, "already_exists")
    assert ok(await api.as_(vendor).get(f"{PRODUCTS}/{second['id']}"))["sku"] == "A-2"
    assert (await api.as_(vendor).delete(f"{PRODUCTS}/{made['id']}")).status_code == 204
    again = await product(api, vendor, sku="A-1")
    assert await ids(api, vendor, PRODUCTS) == [again["id"], second["id"]]


async def test_repeated_creation_makes_one_product(api: Api) -> None:
    vendor = await api.register("vendor")
    body, key = draft(), {"Idempotency-Key": "one"}
    first = await api.as_(vendor).post(PRODUCTS, json=body, headers=key)
    again = await api.as_(vendor).post(PRODUCTS, json=body, headers=key)
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["idempotent-replayed"] == "true"
    assert len(await listing(api, vendor, PRODUCTS)) == 1
    problem(await api.as_(vendor).post(PRODUCTS, json=body | {"moq": 2}, headers=key), 422, "idempotency_key_reused")


async def test_deleted_product_is_gone_everywhere_but_for_orders(api: Api) -> None:
    vendor, buyer = await seller(api, "AK"), await in_state(api, "buyer", "AK")
    made = await product(api, vendor)
    path = f"{PRODUCTS}/{made['id']}"
    assert (await api.as_(vendor).delete(path)).status_code == 204
    for method, url, body in (
        ("GET", path, None),
        ("PATCH", path, {"title": "x"}),
        ("DELETE", path, None),
        ("PUT", f"/api/v1/inventory/{made['id']}", {"on_hand": 1}),
    ):
        answer = await api.as_(vendor).request(method, url, json=body, headers={"Idempotency-Key": "k"})
        problem(answer, 404, "not_found")
    problem(await api.as_(buyer).get(f"{SHOP}/{made['id']}"), 404, "not_found")
    assert await listing(api, vendor, PRODUCTS) == await listing(api, vendor, "/api/v1/inventory") == []
    assert await listing(api, buyer) == []


async def test_products_are_the_vendors_own(api: Api) -> None:
    vendor, other, buyer = await api.register("vendor"), await api.register("vendor"), await api.register("buyer")
    path = f"{PRODUCTS}/{(await product(api, vendor))['id']}"
    for method, body in (("GET", None), ("PATCH", {"title": "Mine"}), ("DELETE", None)):
        problem(await api.as_(other).request(method, path, json=body), 404, "not_found")
        problem(await api.as_(buyer).request(method, path, json=body), 403, "forbidden")
        problem(await api.http.request(method, path, json=body), 401, "unauthenticated")
    for path in (f"{PRODUCTS}/{new_id()}", f"{PRODUCTS}/x"):
        problem(await api.as_(vendor).get(path), 404, "not_found")
    problem(await api.as_(buyer).post(PRODUCTS, json=draft()), 403, "forbidden")
    assert await listing(api, other, PRODUCTS) == []


async def test_list_is_newest_first_and_its_pages_neither_lose_nor_repeat(api: Api) -> None:
    vendor = await api.register("vendor")
    now = {"X-Now": "2027-03-01T12:00:00Z"}  # all at one time: the id decides
    made = [created(await api.as_(vendor).post(PRODUCTS, json=draft(), headers=now))["id"] for _ in range(7)]
    for limit in (1, 2, 3, 7, 100):
        assert await ids(api, vendor, PRODUCTS, limit=limit) == sorted(made, reverse=True)


@pytest.mark.parametrize("path", [PRODUCTS, "/api/v1/inventory", "/api/v1/vendor/promos"])
async def test_limit_and_cursor_out_of_range_or_of_another_list_are_refused(api: Api, path: str) -> None:
    vendor = await api.register("vendor")
    for _ in range(2):
        await product(api, vendor)
    for limit in ("0", "-1", "101", "1000000000", "x", ""):
        problem(await api.as_(vendor).get(path, params={"limit": limit}), 422, "validation_failed")
    foreign = (await api.as_(vendor).get(PRODUCTS, params={"limit": 1})).json()["meta"]["next_cursor"]
    other = await api.register("vendor")
    for person, cursor in ((vendor, "made-up"), (other, foreign)):
        answer = await api.as_(person).get(path, params={"cursor": cursor})
        assert fields(problem(answer, 422, "validation_failed")) == {"cursor"}


# -- media ------------------------------------------------------------------------------------------------------------


async def test_gallery_keeps_its_order_and_the_certificate_is_protected_until_let_go(
    gcs_api: Api, uploader: Person
) -> None:
    first, second = [(await uploaded(gcs_api, uploader))["id"] for _ in range(2)]
    coa = (await uploaded(gcs_api, uploader, "coa"))["id"]
    client = gcs_api.as_(uploader)
    made = await product(gcs_api, uploader, gallery_media_ids=[second, first], coa_media_id=coa)
    assert made["gallery_media_ids"] == [second, first] == [one["media_id"] for one in made["gallery"]]
    assert all(one["media_id"] in one["url"] and one["content_type"] == "image/png" for one in made["gallery"])
    assert made["coa"]["media_id"] == made["coa_media_id"] == coa
    path = f"{PRODUCTS}/{made['id']}"
    problem(await client.delete(f"{MEDIA}/{coa}"), 409, "media_protected")
    assert (await client.delete(f"{MEDIA}/{second}")).status_code == 204
    assert ok(await client.get(path))["gallery_media_ids"] == [first]
    third = (await uploaded(gcs_api, uploader))["id"]
    changed = ok(await client.patch(path, json={"gallery_media_ids": [third, first], "coa_media_id": None}))
    assert (changed["gallery_media_ids"], changed["coa"]) == ([third, first], None)
    assert (await audited(gcs_api, made["id"]))[-1][2] == {
        "gallery_media_ids": [[first], [third, first]],
        "coa_media_id": [[coa], []],
    }
    assert (await client.delete(f"{MEDIA}/{coa}")).status_code == 204


async def test_deleted_product_lets_go_of_its_certificate(gcs_api: Api, uploader: Person) -> None:
    coa = (await uploaded(gcs_api, uploader, "coa"))["id"]
    made = await product(gcs_api, uploader, coa_media_id=coa)
    assert (await gcs_api.as_(uploader).delete(f"{PRODUCTS}/{made['id']}")).status_code == 204
    assert (await gcs_api.as_(uploader).delete(f"{MEDIA}/{coa}")).status_code == 204


@pytest.mark.parametrize(("field", "right", "wrong"), [("gallery", "product", "coa"), ("coa", "coa", "product")])
async def test_media_must_be_the_stores_uploaded_and_of_the_kind(
    gcs_api: Api, uploader: Person, field: str, right: str, wrong: str
) -> None:
    def body(media_id: str) -> dict[str, Any]:
        return {"coa_media_id": media_id} if field == "coa" else {"gallery_media_ids": [media_id]}

    other = await gcs_api.register("vendor")
    name = next(iter(body("")))
    cases = [
        ((await uploaded(gcs_api, other, right))["id"], 404, "not_found"),
        (str(new_id()), 404, "not_found"),
        ((await announce(gcs_api, uploader, right))["media"]["id"], 409, "state_conflict"),
        ((await uploaded(gcs_api, uploader, wrong))["id"], 422, "validation_failed"),
    ]
    path = f"{PRODUCTS}/{(await product(gcs_api, uploader))['id']}"
    for media_id, status, code in cases:
        refused = problem(await gcs_api.as_(uploader).post(PRODUCTS, json=draft(**body(media_id))), status, code)
        problem(await gcs_api.as_(uploader).patch(path, json=body(media_id)), status, code)
        assert fields(refused) == ({name} if status == 422 else set())
    assert len(await listing(gcs_api, uploader, PRODUCTS)) == 1


async def test_picture_named_twice_is_refused(gcs_api: Api, uploader: Person) -> None:
    media_id = (await uploaded(gcs_api, uploader))["id"]
    body = draft(gallery_media_ids=[media_id, media_id])
    assert fields(problem(await gcs_api.as_(uploader).post(PRODUCTS, json=body), 422, "validation_failed")) == {
        "gallery_media_ids"
    }
