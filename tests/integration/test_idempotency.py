"""Idempotency-Key: one effect and one answer for one key."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from models import idempotency
from models.database import make_engine, make_sessions
from ops.settings import Settings
from tests.api_driver import Api, Person

ADS = "/api/v1/vendor/ads"


def draft(**changes: Any) -> dict[str, Any]:
    return {
        "name": "Autumn",
        "billing_model": "cpm",
        "placement": "home",
        "target_type": "store",
        "bid_cpm_cents": 250,
        "daily_budget_cents": 10_000,
        "starts_at": "2026-01-01T00:00:00Z",
        "headline": "Fresh",
    } | changes


@pytest.fixture
async def vendor(alone: Api) -> Person:
    return await alone.register("vendor")


async def count(alone: Api, sql: str) -> int:
    async with alone.services.transaction() as tx:
        return int(await tx.scalar(text(sql)) or 0)


async def post(alone: Api, vendor: Person, body: Any, key: str = "k1") -> httpx.Response:
    async with alone.as_(vendor) as client:
        return await client.post(ADS, json=body, headers={"idempotency-key": key})


async def test_a_replay_gives_the_first_answer_and_makes_nothing(alone: Api, vendor: Person) -> None:
    first = await post(alone, vendor, draft())
    again = await post(alone, vendor, draft())
    assert (first.status_code, "idempotent-replayed" in first.headers) == (201, False)
    assert (again.status_code, again.headers["idempotent-replayed"]) == (201, "true")
    assert again.content == first.content
    assert await count(alone, "SELECT count(*) FROM ads") == 1


async def test_the_same_value_written_otherwise_is_the_same_payload(alone: Api, vendor: Person) -> None:
    first = await post(alone, vendor, draft())
    async with alone.as_(vendor) as client:
        shuffled = dict(reversed(draft().items()))
        again = await client.post(ADS, json=shuffled, headers={"idempotency-key": "k1"})
    assert again.content == first.content


async def test_another_payload_under_the_key_is_refused(alone: Api, vendor: Person) -> None:
    await post(alone, vendor, draft())
    again = await post(alone, vendor, draft(name="Winter"))
    assert (again.status_code, again.json()["code"]) == (422, "idempotency_key_reused")


async def test_a_deterministic_refusal_is_kept_and_its_effect_is_not(alone: Api, vendor: Person) -> None:
    first = await post(alone, vendor, draft(bid_cpm_cents=0))
    again = await post(alone, vendor, draft(bid_cpm_cents=0))
    assert first.status_code == again.status_code == 422
    assert again.headers["idempotent-replayed"] == "true"
    assert again.content == first.content
    assert await count(alone, "SELECT count(*) FROM ads") == 0


async def test_keys_of_stores_and_paths_are_apart(alone: Api, vendor: Person) -> None:
    other = await alone.register("vendor")
    ids = {(await post(alone, person, draft())).json()["data"]["id"] for person in (vendor, other)}
    assert len(ids) == 2


async def test_parallel_twins_have_one_effect(alone: Api, vendor: Person) -> None:
    answers = await asyncio.gather(*(post(alone, vendor, draft()) for _ in range(20)))
    codes = {answer.status_code for answer in answers}
    assert codes <= {201, 409}
    assert all(a.json()["code"] == "idempotency_in_progress" for a in answers if a.status_code == 409)
    assert await count(alone, "SELECT count(*) FROM ads") == 1
    assert (await post(alone, vendor, draft())).status_code == 201


async def test_old_keys_are_forgotten(alone: Api, vendor: Person, alone_settings: Settings) -> None:
    await post(alone, vendor, draft())
    engine = make_engine(alone_settings.sqlalchemy_url, pool_size=1, application="test")
    async with make_sessions(engine).begin() as tx:
        assert await idempotency.reap(tx, wall=datetime.now(UTC) + timedelta(hours=47)) == 0
        assert await idempotency.reap(tx, wall=datetime.now(UTC) + timedelta(hours=49)) == 1
    await engine.dispose()


@pytest.mark.parametrize("value", ["1", "1.0", "1e0"])
def test_equal_numbers_are_equal_payloads(value: str) -> None:
    assert idempotency.fingerprint(f'{{"a": {value}}}'.encode()) == idempotency.fingerprint(b'{"a":1}')
