"""Impressions and clicks: durable before the answer, once however often, refused when a tick has passed them."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import UUID

import jwt
import pytest

from models import outbox
from models.ads.rules import shard_of
from ops.settings import Settings
from tests.ads_driver import (
    NOON,
    active_ad,
    at,
    claims_of,
    execute,
    impression,
    open_gates,
    published,
    recorded,
    register_vendor,
    serve,
    status_of,
)
from tests.api_driver import Api, Person, fields, problem, running

SKEW, LIFE = timedelta(seconds=5), timedelta(seconds=1800)


@pytest.fixture
async def buyer(alone: Api) -> Person:
    """A buyer, in a market with one active ad and open gates."""
    await active_ad(alone, await register_vendor(alone), daily_budget_cents=10_000_000)
    await open_gates(alone)
    return await alone.register("buyer")


async def tokens(api: Api, buyer: Person, count: int) -> list[str]:
    return [(await serve(api, buyer))["impression_token"] for _ in range(count)]


def forged(api: Api, token: str, **claims: Any) -> str:
    """The token with other claims, signed with the real key."""
    [(kid, secret)] = api.services.settings.ad_token_keys.items()
    return jwt.encode(claims_of(token) | claims, secret, algorithm="HS256", headers={"kid": kid})


async def test_impression_is_durable_before_its_answer_and_counts_once(alone: Api, buyer: Person) -> None:
    [token] = await tokens(alone, buyer, 1)
    claims = claims_of(token)
    assert status_of(await impression(alone, token)) == "accepted"
    [batch] = await published(alone)
    assert batch.jti == (UUID(claims["jti"]).bytes,)
    assert batch.ads == (UUID(claims["ad_id"]).bytes,)
    assert (batch.iat_s, batch.exp_s, batch.cost_micros) == ((claims["iat"],), (claims["exp"],), (2500,))
    assert batch.shard == shard_of(UUID(claims["ad_id"]), alone.services.settings.ad_shards)
    for _ in range(3):
        assert status_of(await impression(alone, token)) == "duplicate"
    assert len(await recorded(alone)) == 1


async def test_a_thousand_parallel_replays_make_one_event(alone: Api, buyer: Person) -> None:
    [token] = await tokens(alone, buyer, 1)
    answers = await asyncio.gather(*[impression(alone, token) for _ in range(1000)])
    assert Counter(map(status_of, answers)) == {"accepted": 1, "duplicate": 999}
    assert await recorded(alone) == [UUID(claims_of(token)["jti"])]


async def test_replays_at_two_processes_make_one_event(alone: Api, alone_settings: Settings, buyer: Person) -> None:
    async with running(alone_settings) as other:
        for token in await tokens(alone, buyer, 10):
            answers = await asyncio.gather(*[impression(api, token) for api in (alone, other) for _ in range(20)])
            assert Counter(map(status_of, answers)) == {"accepted": 1, "duplicate": 39}
    assert len(await recorded(alone)) == 10


async def test_many_impressions_travel_in_few_records(alone: Api, buyer: Person) -> None:
    views = await tokens(alone, buyer, 300)
    answers = await asyncio.gather(*[impression(alone, token) for token in views])
    assert Counter(map(status_of, answers)) == {"accepted": 300}
    assert sorted(await recorded(alone)) == sorted(UUID(claims_of(token)["jti"]) for token in views)
    assert len(await published(alone)) < 100


async def test_event_that_a_tick_has_passed_is_refused_and_leaves_nothing(alone: Api, buyer: Person) -> None:
    late, good = await tokens(alone, buyer, 2)
    limit = NOON + LIFE + SKEW
    await execute(alone, "UPDATE ad_shards SET ticked_until = :at", at=limit)
    problem(await impression(alone, late), 400, "invalid_token")
    assert await recorded(alone) == []
    await execute(alone, "UPDATE ad_shards SET ticked_until = :at", at=limit - timedelta(microseconds=1))
    assert status_of(await impression(alone, late)) == "accepted", "its mark was taken away again"
    assert status_of(await impression(alone, good)) == "accepted"


async def test_tick_that_waits_for_a_flush_excludes_the_next_one(alone: Api, buyer: Person) -> None:
    """A flush that holds the shard's lock delays the tick, so that its events come before it."""
    [token] = await tokens(alone, buyer, 1)
    shard = shard_of(UUID(claims_of(token)["ad_id"]), alone.services.settings.ad_shards)
    async with alone.services.transaction() as tick:
        await outbox.lock_aggregate(tick, "ads.events", str(shard))
        waiting = asyncio.create_task(impression(alone, token))
        await asyncio.sleep(0.2)
        assert not waiting.done(), "the flush waits for the tick"
        await execute(alone, "UPDATE ad_shards SET ticked_until = :at", at=NOON + LIFE + SKEW)
    problem(await waiting, 400, "invalid_token")


async def test_forged_or_expired_impression_tokens_are_refused(alone: Api, buyer: Person) -> None:
    answer = await serve(alone, buyer)
    token, click = answer["impression_token"], answer["click_url"].split("token=")[1]
    other = "b" * 32
    bad = {
        "another key": jwt.encode(claims_of(token), other, algorithm="HS256", headers={"kid": "dev"}),
        "unknown kid": jwt.encode(claims_of(token), other, algorithm="HS256", headers={"kid": "nobody"}),
        "alg none": jwt.encode(claims_of(token), "", algorithm="none", headers={"kid": "dev"}),
        "click": click,
        "dearer": forged(alone, token, cost_micros=-1),
        "access token": buyer.access_token,
        "oversized": token + "x" * 1024,
        "empty": "",
        "half": token[: len(token) // 2],
    }
    for name, text in bad.items():
        response = await impression(alone, text)
        assert response.status_code == 400, name
        problem(response, 400, "invalid_token")
    problem(await impression(alone, token, NOON + LIFE + timedelta(seconds=1)), 400, "invalid_token")
    problem(await impression(alone, token, NOON - SKEW - timedelta(seconds=1)), 400, "invalid_token")
    assert await recorded(alone) == []
    assert status_of(await impression(alone, token, NOON + LIFE - timedelta(seconds=6))) == "accepted"
    problem(
        await alone.client(authorization=f"Bearer {token}").get("/ads/serve?placement=home"), 401, "unauthenticated"
    )


async def test_bad_body_of_an_impression_is_a_422_by_field(api: Api) -> None:
    for body, field in (({}, "token"), ({"token": 5}, "token"), ({"token": "x", "y": 1}, "y"), ([], "body")):
        assert fields(problem(await api.http.post("/ads/impression", json=body), 422, "validation_failed")) == {field}
    json = {"content-type": "application/json"}
    for text in ("", "{", '{"token":"\\ud800"}', "\xff"):
        response = await api.http.post("/ads/impression", content=text.encode("latin-1"), headers=json)
        assert response.status_code in (400, 422), text
    problem(await api.http.post("/ads/impression", content="x"), 415, "unsupported_media_type")
    huge = '{"token":"' + "x" * (1 << 20) + '"}'
    problem(await api.http.post("/ads/impression", content=huge, headers=json), 413, "payload_too_large")


async def test_click_goes_to_the_target_and_counts_once(alone: Api, buyer: Person) -> None:
    answer = await serve(alone, buyer)
    jti = UUID(claims_of(answer["click_url"].split("token=")[1])["jti"])
    for _ in range(3):
        response = await alone.http.get(answer["click_url"], headers=at())
        assert (response.status_code, response.headers["location"]) == (302, f"/stores/{answer['ad']['target_id']}")
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert await recorded(alone) == [jti]
    [batch] = await published(alone)
    assert (batch.kind, batch.cost_micros) == (b"\x01", (0,))


async def test_click_on_a_product_ad_goes_to_the_product(alone: Api, buyer: Person) -> None:
    token = (await serve(alone, buyer))["click_url"].split("token=")[1]
    product = "01a20e66-95d6-7427-8dbb-c191b71c15cb"
    other = forged(alone, token, target_type="product", target_id=product)
    response = await alone.http.get("/ads/click", params={"token": other}, headers=at())
    assert response.headers["location"] == f"/products/{product}"


@pytest.mark.parametrize(
    "headers",
    [
        {"Purpose": "prefetch"},
        {"Sec-Purpose": "prefetch;prerender"},
        {"X-Purpose": "preview"},
        {"X-Moz": "Prefetch"},
    ],
)
async def test_prefetch_is_sent_on_and_not_counted(alone: Api, buyer: Person, headers: dict[str, str]) -> None:
    url = (await serve(alone, buyer))["click_url"]
    assert (await alone.http.get(url, headers=at() | headers)).status_code == 302
    assert (await alone.http.head(url, headers=at())).status_code == 302
    assert await recorded(alone) == []
    assert (await alone.http.get(url, headers=at())).status_code == 302
    assert len(await recorded(alone)) == 1


async def test_expired_click_is_sent_on_and_not_counted_a_forged_one_is_refused(alone: Api, buyer: Person) -> None:
    answer = await serve(alone, buyer)
    url, token = answer["click_url"], answer["impression_token"]
    late = await alone.http.get(url, headers=at(NOON + LIFE + timedelta(days=40)))
    assert (late.status_code, late.headers["location"]) == (302, f"/stores/{answer['ad']['target_id']}")
    await execute(alone, "UPDATE ad_shards SET ticked_until = :at", at=NOON + LIFE + SKEW)
    assert (await alone.http.get(url, headers=at())).status_code == 302, "a tick has passed it"
    for bad in (f"/ads/click?token={token}", "/ads/click?token=x", "/ads/click", url + "x"):
        for method in ("GET", "HEAD"):
            assert (await alone.http.request(method, bad, headers=at())).status_code == 400
    assert await recorded(alone) == []


async def test_overflowing_collector_sheds_and_loses_nothing(
    alone_settings: Settings, alone: Api, buyer: Person
) -> None:
    views = await tokens(alone, buyer, 10)
    small = alone_settings.model_copy(update={"ad_queue_events_max": 4, "ad_flush_ms": 300})
    async with running(small) as api:
        answers = await asyncio.gather(*[impression(api, token) for token in views])
        assert Counter(answer.status_code for answer in answers) == {202: 4, 503: 6}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers if answer.status_code == 503)
        shed = [token for token, answer in zip(views, answers, strict=True) if answer.status_code == 503]
        for token in shed:
            assert status_of(await impression(api, token)) == "accepted"
    assert len(await recorded(alone)) == 10


async def test_process_that_stops_writes_what_it_has_taken(alone_settings: Settings, alone: Api, buyer: Person) -> None:
    first, *views = await tokens(alone, buyer, 21)
    slow = alone_settings.model_copy(update={"ad_flush_ms": 1000})
    async with running(slow) as api:
        assert status_of(await impression(api, first)) == "accepted"
        sent = [asyncio.create_task(impression(api, token)) for token in views]
        await asyncio.sleep(0.2)
        assert len(await recorded(alone)) == 1
    assert Counter([status_of(await task) for task in sent]) == {"accepted": 20}
    assert len(await recorded(alone)) == 21


async def test_request_that_is_given_up_does_not_hold_its_twins_nor_lose_its_event(
    alone_settings: Settings, alone: Api, buyer: Person
) -> None:
    first, token = await tokens(alone, buyer, 2)
    async with running(alone_settings.model_copy(update={"ad_flush_ms": 1000})) as slow:
        assert status_of(await impression(slow, first)) == "accepted"
        owner = asyncio.create_task(impression(slow, token))
        await asyncio.sleep(0.1)
        twin = asyncio.create_task(impression(slow, token))
        await asyncio.sleep(0.1)
        owner.cancel()
        problem(await twin, 503, "unavailable")
        assert len(await recorded(alone)) == 1
    assert status_of(await impression(alone, token)) == "duplicate"
    assert len(await recorded(alone)) == 2


async def test_failed_flush_is_a_503_and_the_same_token_is_accepted_later(alone: Api, buyer: Person) -> None:
    first, token = await tokens(alone, buyer, 2)
    assert status_of(await impression(alone, first)) == "accepted"
    await execute(alone, "ALTER TABLE outbox_events RENAME TO outbox_gone")
    answers = await asyncio.gather(*[impression(alone, token) for _ in range(5)])
    for answer in answers:
        problem(answer, 503, "unavailable")
    async with asyncio.timeout(1):
        while await alone.services.redis.execute("EXISTS", b"ads:seen:" + UUID(claims_of(token)["jti"]).bytes):
            await asyncio.sleep(0.01)
    await execute(alone, "ALTER TABLE outbox_gone RENAME TO outbox_events")
    assert status_of(await impression(alone, token)) == "accepted"
    assert len(await recorded(alone)) == 2


async def test_mark_left_by_a_dead_process_ends_by_itself(alone: Api, buyer: Person) -> None:
    """Its pending life is short; until then a twin is told to come again."""
    [token] = await tokens(alone, buyer, 1)
    jti = UUID(claims_of(token)["jti"]).bytes
    await alone.services.redis.execute("SET", b"ads:seen:" + jti, "p", "PX", 2500)
    problem(await impression(alone, token), 503, "unavailable")
    await asyncio.sleep(1.6)
    assert status_of(await impression(alone, token)) == "accepted"
