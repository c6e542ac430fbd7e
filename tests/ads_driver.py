"""Drives the ads engine's HTTP side in tests: eligible vendors, ads, open gates, tokens, and what was published."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
from sqlalchemy import text

from models.ads.engine import freeze_shards
from models.ads.gateway import CounterSink
from models.database import make_engine, make_sessions, new_id
from models.outbox import OutboxEvent
from schemas.ad_columns import Columns, unpack
from schemas.codec import decode_dict
from tests.api_driver import Api, Person, created, ok

NOON = datetime(2027, 3, 1, 12, 0, 5, tzinfo=UTC)
ALWAYS = "2026-01-01T00:00:00Z"


def at(now: datetime = NOON) -> dict[str, str]:
    """The header that sets a request's time."""
    return {"X-Now": now.isoformat().replace("+00:00", "Z")}


def draft(**changes: Any) -> dict[str, Any]:
    """A body that creates an ad of the vendor's store."""
    body: dict[str, Any] = {
        "name": "Spring",
        "placement": "home",
        "target_type": "store",
        "bid_cpm_cents": 250,
        "daily_budget_cents": 10_000,
        "starts_at": ALWAYS,
        "headline": "Fresh flower, fast",
    }
    return body | changes


async def execute(api: Api, sql: str, **values: Any) -> Sequence[Any]:
    """Run a statement as the database's owner; its rows, if it has any."""
    engine = make_engine(api.services.settings.sqlalchemy_url, pool_size=1, application="test")
    async with engine.begin() as tx:
        result = await tx.execute(text(sql), values)
        rows: Sequence[Any] = result.all() if result.returns_rows else []
    await engine.dispose()
    return rows


async def make_eligible(api: Api, store: str, *, kyc: str = "verified", subscribed: bool = True) -> None:
    """What `packstream admin store` does, as far as ads see it."""
    await execute(
        api,
        "UPDATE stores SET kyc_status = :kyc, subscription_active = :subscribed WHERE id = :id",
        kyc=kyc,
        subscribed=subscribed,
        id=UUID(store),
    )


async def register_vendor(api: Api, **store: Any) -> Person:
    """A vendor that may advertise."""
    vendor = await api.register("vendor")
    if store:
        await execute(api, "UPDATE stores SET state = :state WHERE id = :id", id=UUID(vendor.store["id"]), **store)
    await make_eligible(api, vendor.store["id"])
    return vendor


async def create_ad(api: Api, vendor: Person, **changes: Any) -> dict[str, Any]:
    """An ad, as a draft."""
    ad: dict[str, Any] = created(await api.as_(vendor).post("/api/v1/vendor/ads", json=draft(**changes)))
    return ad


async def activate(api: Api, vendor: Person, ad: dict[str, Any]) -> None:
    ok(await api.as_(vendor).patch(f"/api/v1/vendor/ads/{ad['id']}", json={"status": "active"}))


async def active_ad(api: Api, vendor: Person, **changes: Any) -> dict[str, Any]:
    """An ad that is served."""
    ad = await create_ad(api, vendor, **changes)
    await activate(api, vendor, ad)
    return ad


async def open_gates(api: Api, *, watermark: datetime | None = None) -> None:
    """What ticks and the agent do: every shard has an epoch, a watermark and a fresh tick."""
    settings = api.services.settings
    engine = make_engine(settings.sqlalchemy_url, pool_size=1, application="test")
    async with make_sessions(engine).begin() as tx:
        await freeze_shards(tx, settings.ad_shards)
    await engine.dispose()
    sink = CounterSink(api.services.redis)
    until = watermark or datetime(2026, 1, 1, tzinfo=UTC)
    for shard in range(settings.ad_shards):
        assert await sink.begin_seeding(shard, "test", seen=None)
        assert await sink.open(shard, mark="test", epoch=new_id())
        await sink.publish(shard, watermark_us=int(until.timestamp() * 1_000_000), ticked=True, days=[])


async def serve(api: Api, buyer: Person, placement: str = "home", now: datetime = NOON) -> dict[str, Any]:
    """What a buyer's page view gets."""
    answer: dict[str, Any] = ok(
        await api.as_(buyer).get("/ads/serve", params={"placement": placement}, headers=at(now))
    )
    return answer


async def impression(api: Api, token: str, now: datetime = NOON) -> httpx.Response:
    return await api.http.post("/ads/impression", json={"token": token}, headers=at(now))


def status_of(response: httpx.Response) -> str:
    """`accepted` or `duplicate`."""
    assert response.status_code == 202, response.text
    return str(response.json()["data"]["status"])


def claims_of(token: str) -> dict[str, Any]:
    """The claims, unverified."""
    payload = token.split(".")[1]
    fields: dict[str, Any] = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return fields


async def published(api: Api) -> list[Columns]:
    """The batches of ad events in the outbox, ticks left out."""
    rows = await execute(api, f"SELECT payload FROM {OutboxEvent.__tablename__} WHERE type = 'ad_events' ORDER BY seq")
    batches = [unpack(decode_dict(row.payload)[1]) for row in rows]
    return [batch for batch in batches if batch.tick_us is None]


async def recorded(api: Api) -> list[UUID]:
    """The ids of the events in the outbox."""
    return [UUID(bytes=jti) for batch in await published(api) for jti in batch.jti]
