"""Serve: who wins, what the gate refuses, what a token says, and what is shed."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import pytest
from redis import Redis

from ops.settings import Settings
from schemas.http.ads import ServeOut
from tests.ads_driver import (
    NOON,
    active_ad,
    at,
    claims_of,
    create_ad,
    make_eligible,
    open_gates,
    register_vendor,
    serve,
)
from tests.api_driver import Api, fields, ok, problem, running
from tests.local_stack import Database, Stack, settings_for

DEAR = {"bid_cpm_cents": 100_000, "daily_budget_cents": 100}  #: one impression spends the whole budget


async def test_served_ad_comes_with_two_tokens_of_the_contract(alone: Api) -> None:
    vendor, buyer = await register_vendor(alone), await alone.register("buyer")
    ad = await active_ad(alone, vendor)
    await open_gates(alone)
    answer = await serve(alone, buyer)
    ServeOut.model_validate(answer)
    assert answer["ad"] == {
        "ad_id": ad["id"],
        "headline": "Fresh flower, fast",
        "image_url": None,
        "target_type": "store",
        "target_id": vendor.store["id"],
        "vendor_store_id": vendor.store["id"],
    }
    assert (answer["reason"], answer["expires_at"]) == (None, "2027-03-01T12:30:05Z")
    path, click = answer["click_url"].split("token=")
    assert path == "/ads/click?"
    impression, click = claims_of(answer["impression_token"]), claims_of(click)
    assert len({answer["request_id"], impression["jti"], click["jti"]}) == 3
    common = {
        "typ": "ad",
        "v": 1,
        "request_id": answer["request_id"],
        "ad_id": ad["id"],
        "store_id": vendor.store["id"],
        "target_type": "store",
        "target_id": vendor.store["id"],
        "buyer_store_id": buyer.store["id"],
        "placement": "home",
        "iat": int(NOON.timestamp()),
        "exp": int(NOON.timestamp()) + 1800,
    }
    assert impression == common | {"kind": "impression", "cost_micros": 2500, "jti": impression["jti"]}
    assert click == common | {"kind": "click", "cost_micros": 0, "jti": click["jti"]}
    assert UUID(impression["jti"]).version == UUID(click["jti"]).version == 7


async def test_highest_bid_wins_and_equal_bids_take_turns_by_minute(alone: Api) -> None:
    vendor, buyer = await register_vendor(alone), await alone.register("buyer")
    ads = [await active_ad(alone, vendor, bid_cpm_cents=200) for _ in range(3)]
    await open_gates(alone)
    winners = set()
    for minutes in range(12):
        now = NOON + timedelta(minutes=minutes)
        minute = int(now.timestamp()) // 60
        expected = min(ads, key=lambda ad: sha256(f"{ad['id']}{minute}".encode()).digest())["id"]
        assert (await serve(alone, buyer, now=now))["ad"]["ad_id"] == expected
        winners.add(expected)
    assert len(winners) > 1
    best = await active_ad(alone, vendor, bid_cpm_cents=201)
    assert (await serve(alone, buyer))["ad"]["ad_id"] == best["id"]


@pytest.mark.parametrize(
    "changes",
    [
        {"starts_at": "2027-03-01T12:00:05.000001Z"},
        {"ends_at": "2027-03-01T12:00:05Z"},
        {"placement": "search"},
    ],
)
async def test_ad_out_of_flight_or_place_is_not_served(alone: Api, changes: dict[str, Any]) -> None:
    vendor, buyer = await register_vendor(alone), await alone.register("buyer")
    await active_ad(alone, vendor, **changes)
    await open_gates(alone)
    answer = await serve(alone, buyer)
    assert (answer["ad"], answer["reason"]) == (None, "no_candidates")
    assert (answer["impression_token"], answer["click_url"], answer["expires_at"]) == (None, None, None)


async def test_vendor_of_another_state_is_not_served(alone: Api) -> None:
    vendor, buyer = await register_vendor(alone, state="NV"), await alone.register("buyer")
    await active_ad(alone, vendor)
    await open_gates(alone)
    assert (await serve(alone, buyer))["reason"] == "no_candidates"


async def reason_within_a_second(api: Api, buyer: Any, wanted: str | None) -> None:
    async with asyncio.timeout(1.0):
        while (await serve(api, buyer))["reason"] != wanted:
            await asyncio.sleep(0.02)


async def test_change_is_served_at_once_here_and_within_a_second_elsewhere(
    alone: Api, alone_settings: Settings
) -> None:
    vendor, buyer = await register_vendor(alone), await alone.register("buyer")
    ad = await create_ad(alone, vendor)
    await open_gates(alone)
    async with running(alone_settings) as other:
        for status, reason in (("active", None), ("paused", "no_candidates"), ("active", None)):
            ok(await alone.as_(vendor).patch(f"/api/v1/vendor/ads/{ad['id']}", json={"status": status}))
            assert (await serve(alone, buyer))["reason"] == reason
            await reason_within_a_second(other, buyer, reason)
        await make_eligible(alone, vendor.store["id"], kyc="expired")
        await reason_within_a_second(alone, buyer, "no_candidates")
        await reason_within_a_second(other, buyer, "no_candidates")


async def test_gate_that_refuses_gives_the_next_candidate_its_chance(alone: Api) -> None:
    vendor, buyer = await register_vendor(alone), await alone.register("buyer")
    dear = [await active_ad(alone, vendor, **DEAR) for _ in range(4)]
    cheap = await active_ad(alone, vendor, bid_cpm_cents=1)
    await open_gates(alone)
    served = [(await serve(alone, buyer))["ad"]["ad_id"] for _ in range(5)]
    assert sorted(served[:4]) == sorted(ad["id"] for ad in dear)
    assert served[4] == cheap["id"]
    ok(await alone.as_(vendor).patch(f"/api/v1/vendor/ads/{cheap['id']}", json={"status": "paused"}))
    answer = await serve(alone, buyer)
    assert (answer["ad"], answer["reason"]) == (None, "budget_exhausted")
    ok(await alone.as_(vendor).patch(f"/api/v1/vendor/ads/{dear[0]['id']}", json={"daily_budget_cents": 200}))
    assert (await serve(alone, buyer))["ad"]["ad_id"] == dear[0]["id"], "the budget in force now"


async def test_budget_is_of_the_utc_day(alone: Api) -> None:
    vendor, buyer = await register_vendor(alone), await alone.register("buyer")
    await active_ad(alone, vendor, **DEAR)
    await open_gates(alone)
    midnight = NOON.replace(hour=0, minute=0, second=0) + timedelta(days=1)
    reasons = [
        (await serve(alone, buyer, now=midnight + timedelta(milliseconds=ms)))["reason"] for ms in (-2, -1, 0, 1)
    ]
    assert reasons == [None, "budget_exhausted", None, "budget_exhausted"]


async def test_parallel_serves_never_reserve_more_than_the_budget(alone: Api) -> None:
    vendor, buyer = await register_vendor(alone), await alone.register("buyer")
    await active_ad(alone, vendor, bid_cpm_cents=10_000, daily_budget_cents=100)
    await open_gates(alone)
    answers = await asyncio.gather(*[serve(alone, buyer) for _ in range(60)])
    assert sum(answer["ad"] is not None for answer in answers) == 10


async def test_closed_gate_serves_nothing_and_says_so(alone: Api) -> None:
    vendor, buyer = await register_vendor(alone), await alone.register("buyer")
    await active_ad(alone, vendor)
    assert (await serve(alone, buyer))["reason"] == "gate_closed"
    await open_gates(alone, watermark=NOON + timedelta(hours=1))
    assert (await serve(alone, buyer))["reason"] == "gate_closed", "the minute is closed"
    assert (await serve(alone, buyer, now=NOON + timedelta(hours=1)))["reason"] is None


async def test_serve_is_for_buyers(api: Api) -> None:
    vendor, admin = await api.register("vendor"), await api.register_admin()
    url = "/ads/serve?placement=home"
    problem(await api.http.get(url), 401, "unauthenticated")
    problem(await api.client(authorization="Bearer x.y.z").get(url), 401, "unauthenticated")
    problem(await api.as_(vendor).get(url), 403, "forbidden")
    problem(await api.as_(admin).get(url), 403, "forbidden")


async def test_placement_is_checked(api: Api) -> None:
    buyer = await api.register("buyer")
    client = api.as_(buyer)
    for query in ("", "?placement=", "?placement=footer", "?Placement=home"):
        body = problem(await client.get(f"/ads/serve{query}"), 422, "validation_failed")
        assert fields(body) == {"placement"}
    assert (await client.get("/ads/serve?x=1&placement=category")).status_code == 200


async def test_serves_of_a_buyer_are_limited(stack: Stack, redis_url: str) -> None:
    settings = settings_for(stack, redis_url=redis_url, log_level="error", rate_limit_scale=0.01)
    async with running(settings) as api:
        one, two = await api.register("buyer"), await api.register("buyer")
        answers = [await api.as_(one).get("/ads/serve?placement=home") for _ in range(8)]
        assert [answer.status_code for answer in answers] == [200] * 6 + [429] * 2
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
        problem(answers[-1], 429, "rate_limited")
        assert (await api.as_(two).get("/ads/serve?placement=home")).status_code == 200


async def test_without_redis_serve_and_tracking_answer_503(stack: Stack, database: Database, own_redis: str) -> None:
    async with running(settings_for(stack, database, redis_url=own_redis, log_level="error")) as api:
        vendor, buyer = await register_vendor(api), await api.register("buyer")
        await active_ad(api, vendor)
        await open_gates(api)
        answer = await serve(api, buyer)
        with Redis.from_url(own_redis) as redis:
            redis.shutdown(nosave=True)
        for response in (
            await api.as_(buyer).get("/ads/serve?placement=home", headers=at()),
            await api.http.post("/ads/impression", json={"token": answer["impression_token"]}, headers=at()),
            await api.http.get(answer["click_url"], headers=at()),
        ):
            assert int(response.headers["retry-after"]) >= 1
            problem(response, 503, "unavailable")


async def test_exclusions_and_outcomes_are_counted(alone: Api) -> None:
    vendor, buyer = await register_vendor(alone), await alone.register("buyer")
    await active_ad(alone, vendor, **DEAR)
    await active_ad(alone, vendor, starts_at="2028-01-01T00:00:00Z")
    await open_gates(alone)
    before = await counters(alone)
    for _ in range(3):
        await serve(alone, buyer)
    after = await counters(alone)
    names = ['packstream_ad_serves_total{outcome="served"}', 'packstream_ad_serves_total{outcome="budget_exhausted"}']
    names += [f'packstream_ad_exclusions_total{{reason="{reason}"}}' for reason in ("budget_exhausted", "not_started")]
    assert [after[name] - before.get(name, 0) for name in names] == [1, 2, 2, 3]


async def counters(api: Api) -> dict[str, float]:
    lines = (await api.http.get("/metrics")).text.splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}
