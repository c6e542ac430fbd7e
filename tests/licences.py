"""Licences in tests: submitted with a real document, decided by an admin, and what was written about them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
from sqlalchemy import select

from models.audit import AuditEntry
from models.outbox import OutboxEvent
from models.stores import writes as stores
from schemas.codec import decode
from tests.api_driver import Api, Person, created, ok
from tests.media_bucket import as_owner, uploaded

LICENSES = "/api/v1/licenses"
QUEUE = "/api/admin/licenses"
YEAR = timedelta(days=365)


def application(media_id: str, **changes: Any) -> dict[str, Any]:
    """A body that POST /licenses takes; `date` values are written out."""
    today = datetime.now(UTC).date()
    body = {
        "media_id": media_id,
        "type": "producer",
        "number": "OR-1024",
        "issuing_state": "OR",
        "issued_on": today - YEAR,
        "expires_on": today + YEAR,
        **changes,
    }
    return {name: value.isoformat() if isinstance(value, date) else value for name, value in body.items()}


async def submitted(api: Api, person: Person, **changes: Any) -> dict[str, Any]:
    """A pending licence with a document of its own."""
    media_id = changes.pop("media_id", None) or (await uploaded(api, person, "license"))["id"]
    found: dict[str, Any] = created(await api.as_(person).post(LICENSES, json=application(media_id, **changes)))
    return found


async def decide(api: Api, admin: Person, license_id: str, decision: str = "approve", **body: Any) -> httpx.Response:
    return await api.as_(admin).post(f"{QUEUE}/{license_id}/decision", json={"decision": decision, **body})


async def approved(api: Api, person: Person, admin: Person, **changes: Any) -> dict[str, Any]:
    """A verified licence."""
    made = await submitted(api, person, **changes)
    found: dict[str, Any] = ok(await decide(api, admin, made["id"]))
    return found


async def subscribe(api: Api, person: Person) -> None:
    """What Stripe's news of an active subscription does."""
    async with as_owner(api) as tx:
        await stores.set_subscription(tx, UUID(person.store["id"]), True, actor="test", now=datetime.now(UTC))


async def kyc_of(api: Api, person: Person) -> str:
    return str(ok(await api.as_(person).get("/api/v1/stores/me"))["kyc_status"])


async def told(api: Api, person: Person, *kinds: str) -> list[Any]:
    """The events about the person's store, of these kinds, in order; all of them without any."""
    async with as_owner(api) as tx:
        query = select(OutboxEvent).where(OutboxEvent.aggregateid == person.store["id"]).order_by(OutboxEvent.seq)
        return [decode(row.payload) for row in await tx.scalars(query) if not kinds or row.type in kinds]


async def audited(api: Api, license_id: str) -> list[tuple[str, str]]:
    """Actor and action of every entry about the licence, in order."""
    async with as_owner(api) as tx:
        query = select(AuditEntry).where(AuditEntry.object_type == "license", AuditEntry.object_id == license_id)
        return [(row.actor, row.action) for row in await tx.scalars(query.order_by(AuditEntry.id))]
