"""A vendor's ads over HTTP: create, list, change, live counters."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from models.ads.gateway import CounterSink
from models.ads.rules import day_number, shard_of
from models.database import new_id
from schemas.codec import decode
from schemas.records import AdChanged
from tests.ads_driver import NOON, active_ad, at, create_ad, draft, execute, make_eligible, open_gates, register_vendor
from tests.api_driver import Api, created, fields, ok, problem

ADS = "/api/v1/vendor/ads"


async def test_new_ad_is_a_draft_with_its_audit_entry_and_its_event_in_one_transaction(api: Api) -> None:
    vendor = await api.register("vendor")
    ad = created(await api.as_(vendor).post(ADS, json=draft(ends_at="2027-06-01T02:00:00+02:00"), headers=at()))
    assert ad == draft() | {
        "id": ad["id"],
        "store_id": vendor.store["id"],
        "billing_model": "cpm",
        "target_product_id": None,
        "creative_media_id": None,
        "ends_at": "2027-06-01T00:00:00Z",
        "status": "draft",
        "created_at": "2027-03-01T12:00:05Z",
        "updated_at": "2027-03-01T12:00:05Z",
    }
    [event] = await execute(api, "SELECT * FROM outbox_events WHERE aggregateid = :id", id=ad["id"])
    record = decode(event.payload)
    assert isinstance(record, AdChanged)
    assert (record.ad_id, record.status, record.occurred_at) == (UUID(ad["id"]), "draft", NOON)
    [entry] = await execute(api, "SELECT * FROM audit_log WHERE object_id = :id", id=ad["id"])
    assert (entry.action, entry.actor) == ("ad_created", f"user:{vendor.user['id']}")


BAD_BODIES: dict[str, tuple[dict[str, Any], str]] = {
    "no bid": ({"bid_cpm_cents": 0}, "bid_cpm_cents"),
    "negative bid": ({"bid_cpm_cents": -5}, "bid_cpm_cents"),
    "absurd bid": ({"bid_cpm_cents": 100_001}, "bid_cpm_cents"),
    "bid beyond any integer": ({"bid_cpm_cents": 10**30}, "bid_cpm_cents"),
    "bid as text": ({"bid_cpm_cents": "5"}, "bid_cpm_cents"),
    "fractional bid": ({"bid_cpm_cents": 5.5}, "bid_cpm_cents"),
    "bid a truth": ({"bid_cpm_cents": True}, "bid_cpm_cents"),
    "small budget": ({"daily_budget_cents": 99}, "daily_budget_cents"),
    "absurd budget": ({"daily_budget_cents": 10_000_001}, "daily_budget_cents"),
    "unknown placement": ({"placement": "footer"}, "placement"),
    "unknown target": ({"target_type": "category"}, "target_type"),
    "unknown billing": ({"billing_model": "cpc"}, "billing_model"),
    "naive time": ({"starts_at": "2027-01-01T00:00:00"}, "starts_at"),
    "time as number": ({"starts_at": 1_800_000_000}, "starts_at"),
    "no such day": ({"starts_at": "2027-02-30T00:00:00Z"}, "starts_at"),
    "flight without length": ({"ends_at": draft()["starts_at"]}, "body"),
    "flight backwards": ({"ends_at": "2025-01-01T00:00:00Z"}, "body"),
    "product without id": ({"target_type": "product"}, "body"),
    "store with product": ({"target_product_id": str(new_id())}, "body"),
    "empty name": ({"name": "  "}, "name"),
    "long headline": ({"headline": "x" * 201}, "headline"),
    "NUL": ({"headline": "a\0b"}, "body"),
    "unknown field": ({"status": "active"}, "status"),
    "null": ({"name": None}, "name"),
}


@pytest.mark.parametrize(("changes", "field"), BAD_BODIES.values(), ids=BAD_BODIES.keys())
async def test_bad_ad_is_refused_by_field_and_nothing_is_written(api: Api, changes: dict[str, Any], field: str) -> None:
    vendor = await api.register("vendor")
    body = problem(await api.as_(vendor).post(ADS, json=draft(**changes)), 422, "validation_failed")
    assert fields(body) == {field}
    assert (await api.as_(vendor).get(ADS)).json()["data"] == []


@pytest.mark.parametrize(
    "changes",
    [
        {"target_type": "product", "target_product_id": str(new_id())},
        {"creative_media_id": str(new_id())},
    ],
)
async def test_product_or_creative_that_is_not_the_stores_is_not_found(api: Api, changes: dict[str, Any]) -> None:
    vendor = await api.register("vendor")
    problem(await api.as_(vendor).post(ADS, json=draft(**changes)), 404, "not_found")
    ad = await create_ad(api, vendor)
    problem(await api.as_(vendor).patch(f"{ADS}/{ad['id']}", json=changes), 404, "not_found")


async def test_ads_are_the_vendors_own(api: Api) -> None:
    vendor, other, buyer = await api.register("vendor"), await api.register("vendor"), await api.register("buyer")
    path = f"{ADS}/{(await create_ad(api, vendor))['id']}"
    for method, url, body in (("GET", path, None), ("PATCH", path, {"name": "x"}), ("GET", f"{path}/live", None)):
        problem(await api.as_(other).request(method, url, json=body), 404, "not_found")
        problem(await api.as_(buyer).request(method, url, json=body), 403, "forbidden")
        problem(await api.http.request(method, url, json=body), 401, "unauthenticated")
    problem(await api.as_(vendor).get(f"{ADS}/not-an-id"), 404, "not_found")
    problem(await api.as_(vendor).get(f"{ADS}/{new_id()}"), 404, "not_found")
    assert ok(await api.as_(vendor).get(path))["name"] == "Spring"


MOVES = {
    ("draft", "active"): 200,
    ("draft", "paused"): 409,
    ("draft", "archived"): 200,
    ("active", "active"): 200,
    ("active", "paused"): 200,
    ("active", "archived"): 200,
    ("paused", "active"): 200,
    ("paused", "archived"): 200,
    ("archived", "active"): 409,
    ("archived", "paused"): 409,
    ("archived", "archived"): 200,
}


@pytest.mark.parametrize(("current", "wanted"), MOVES)
async def test_status_moves_as_the_machine_allows(api: Api, current: str, wanted: str) -> None:
    vendor = await register_vendor(api)
    ad = await create_ad(api, vendor)
    await execute(api, "UPDATE ads SET status = :status WHERE id = :id", status=current, id=UUID(ad["id"]))
    response = await api.as_(vendor).patch(f"{ADS}/{ad['id']}", json={"status": wanted})
    if MOVES[current, wanted] == 409:
        assert current in problem(response, 409, "state_conflict")["detail"]
    else:
        assert ok(response)["status"] == wanted


@pytest.mark.parametrize("standing", [{"kyc": "pending"}, {"kyc": "expired"}, {"subscribed": False}])
async def test_vendor_that_may_not_sell_cannot_activate(api: Api, standing: dict[str, Any]) -> None:
    vendor = await api.register("vendor")
    await make_eligible(api, vendor.store["id"], **standing)
    path = f"{ADS}/{(await create_ad(api, vendor))['id']}"
    problem(await api.as_(vendor).patch(path, json={"status": "active"}), 403, "vendor_not_eligible")
    assert ok(await api.as_(vendor).get(path))["status"] == "draft"
    await make_eligible(api, vendor.store["id"])
    assert ok(await api.as_(vendor).patch(path, json={"status": "active"}))["status"] == "active"


async def test_active_ad_keeps_its_placement_but_not_its_bid(api: Api) -> None:
    vendor = await register_vendor(api)
    path = f"{ADS}/{(await active_ad(api, vendor))['id']}"
    client = api.as_(vendor)
    problem(await client.patch(path, json={"placement": "search"}), 409, "state_conflict")
    ok(await client.patch(path, json={"placement": "home"}))
    changed = ok(await client.patch(path, json={"bid_cpm_cents": 300, "daily_budget_cents": 500, "name": "Summer"}))
    assert (changed["bid_cpm_cents"], changed["daily_budget_cents"], changed["name"]) == (300, 500, "Summer")
    moved = ok(await client.patch(path, json={"placement": "search", "status": "paused"}))
    assert (moved["placement"], moved["status"]) == ("search", "paused")
    ok(await client.patch(path, json={"status": "archived"}))
    problem(await client.patch(path, json={"name": "late"}), 409, "state_conflict")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"ends_at": "2025-12-31T00:00:00Z"}, "ends_at"),
        ({"starts_at": "2028-01-01T00:00:00Z"}, "ends_at"),
        ({"target_type": "product"}, "target_product_id"),
        ({"name": None}, "body"),
        ({"status": "draft"}, "status"),
        ({"status": None}, "body"),
        ({"bid_cpm_cents": 0}, "bid_cpm_cents"),
        ({"id": str(new_id())}, "id"),
    ],
)
async def test_bad_change_is_refused_whole(api: Api, change: dict[str, Any], field: str) -> None:
    vendor = await api.register("vendor")
    ad = await create_ad(api, vendor, ends_at="2027-06-01T00:00:00Z")
    path = f"{ADS}/{ad['id']}"
    body = problem(await api.as_(vendor).patch(path, json={"headline": "new", **change}), 422, "validation_failed")
    assert fields(body) == {field}
    assert ok(await api.as_(vendor).get(path)) == ad


async def test_flight_can_be_made_open_ended_and_what_changes_nothing_publishes_nothing(api: Api) -> None:
    vendor = await api.register("vendor")
    ad = await create_ad(api, vendor, ends_at="2027-06-01T00:00:00Z")
    path = f"{ADS}/{ad['id']}"
    for change in ({"ends_at": None}, {"ends_at": None}, {}, {"name": "Spring"}):
        assert ok(await api.as_(vendor).patch(path, json=change))["ends_at"] is None
    rows = await execute(api, "SELECT change FROM audit_log WHERE object_id = :id ORDER BY created_at, id", id=ad["id"])
    assert [row.change for row in rows] == [{}, {"ends_at": ["2027-06-01T00:00:00+00:00", None]}]
    events = await execute(api, "SELECT 1 FROM outbox_events WHERE aggregateid = :id", id=ad["id"])
    assert len(events) == 2


async def test_pages_of_ads_made_at_one_instant_lose_and_repeat_none(api: Api) -> None:
    vendor = await api.register("vendor")
    client = api.as_(vendor)
    made = [created(await client.post(ADS, json=draft(), headers=at()))["id"] for _ in range(7)]
    seen, cursor = [], None
    for _ in range(3):
        page = await client.get(ADS, params={"limit": 3} | ({"cursor": cursor} if cursor else {}))
        seen += [ad["id"] for ad in page.json()["data"]]
        cursor = page.json()["meta"]["next_cursor"]
    assert cursor is None
    assert seen == sorted(made, reverse=True)
    assert (await client.get(ADS, params={"status": "active"})).json()["data"] == []


async def test_limit_out_of_range_and_foreign_cursor_are_refused(api: Api) -> None:
    vendor, other = await api.register("vendor"), await api.register("vendor")
    for _ in range(2):
        await create_ad(api, vendor)
    cursor = (await api.as_(vendor).get(ADS, params={"limit": 1})).json()["meta"]["next_cursor"]
    for params in ({"limit": 0}, {"limit": 101}, {"cursor": "x"}):
        problem(await api.as_(vendor).get(ADS, params=params), 422, "validation_failed")
    problem(await api.as_(other).get(ADS, params={"cursor": cursor}), 422, "validation_failed")


async def test_live_counters_are_the_streams_with_their_age(api: Api) -> None:
    vendor = await register_vendor(api)
    ad = await active_ad(api, vendor, daily_budget_cents=700)
    client, path = api.as_(vendor), f"{ADS}/{ad['id']}/live"
    nothing = ok(await client.get(path, headers=at()))
    assert nothing == {
        "day": "2027-03-01",
        "impressions": 0,
        "clicks": 0,
        "spend_micros": 0,
        "reserved_micros": 0,
        "budget_micros": 7_000_000,
        "as_of": None,
        "lag_ms": None,
    }
    await open_gates(api)
    as_of = NOON - timedelta(milliseconds=80)
    ad_id = UUID(ad["id"])
    await CounterSink(api.services.redis).publish(
        shard_of(ad_id, api.services.settings.ad_shards),
        watermark_us=int(as_of.timestamp() * 1_000_000),
        ticked=True,
        days=[(ad_id.bytes, day_number(NOON.date()), 5, 4, 1, 10_000, ())],
    )
    live = ok(await client.get(path, headers=at()))
    assert (live["impressions"], live["clicks"], live["spend_micros"]) == (4, 1, 10_000)
    assert (live["as_of"], live["lag_ms"]) == ("2027-03-01T12:00:04.920000Z", 80)
    assert ok(await client.get(path, headers=at(as_of - timedelta(seconds=9))))["lag_ms"] == 0
