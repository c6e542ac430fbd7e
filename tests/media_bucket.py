"""A fake GCS of the test run, and what clients of it do: upload, and push its news as Pub/Sub would."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from models.database import make_engine, make_sessions
from models.media.gateway import GcsStore
from models.outbox import OutboxEvent
from ops.object_store import object_store
from ops.settings import Settings
from ops.stack.local import stack_down, stack_up
from ops.stack.paths import DataDir
from schemas.codec import decode
from tests.api_driver import Api, Person, created, ok

MEDIA = "/api/v1/media"
PUSH = "/webhooks/gcs?token=dev-gcs-webhook-token"
CONTENT = {
    "image/png": b"\x89PNG\r\n\x1a\n" + bytes(24),
    "image/jpeg": b"\xff\xd8\xff\xe0" + bytes(28),
    "image/webp": b"RIFF\x18\0\0\0WEBPVP8 " + bytes(16),
    "application/pdf": b"%PDF-1.7\n" + bytes(23),
    "video/mp4": b"\0\0\0\x18ftypisom" + bytes(20),
}
TYPES = {"license": "application/pdf", "coa": "application/pdf"}


@contextmanager
def fake_gcs(root: Path) -> Iterator[str]:
    """A fake GCS with the media bucket; its address."""
    data = DataDir.at(root)
    try:
        yield asyncio.run(stack_up(data, ("gcs",), bound=True)).site.addresses["GCS_ENDPOINT"]
    finally:
        asyncio.run(stack_down(data, ("gcs",)))


def make_bucket(endpoint: str, name: str) -> None:
    """Another bucket in the fake GCS."""
    httpx.post(f"{endpoint}/storage/v1/b", params={"project": "local"}, json={"name": name}).raise_for_status()


@contextmanager
def bucket_of(settings: Settings) -> Iterator[GcsStore]:
    """The bucket, as the processes see it."""
    store = object_store(settings)
    try:
        yield store
    finally:
        store.close()


@asynccontextmanager
async def as_owner(api: Api) -> AsyncIterator[AsyncSession]:
    """A transaction of the database's owner, as agents and housekeeping have."""
    engine = make_engine(api.services.settings.sqlalchemy_url, pool_size=1, application="test")
    try:
        async with make_sessions(engine).begin() as tx:
            yield tx
    finally:
        await engine.dispose()


def announcement(kind: str = "product", **changes: Any) -> dict[str, Any]:
    """A body that POST /media takes."""
    content_type = changes.get("content_type") or TYPES.get(kind, "image/png")
    body = {"kind": kind, "file_name": "x.bin", "content_type": content_type}
    return {**body, "size_bytes": len(CONTENT.get(content_type, b"?" * 32)), **changes}


async def announce(api: Api, person: Person, kind: str = "product", **changes: Any) -> dict[str, Any]:
    """Media without content, and how to upload it."""
    data: dict[str, Any] = created(await api.as_(person).post(MEDIA, json=announcement(kind, **changes)))
    return data


async def put(upload: dict[str, Any], content: bytes) -> httpx.Response:
    """Make the upload's request."""
    async with httpx.AsyncClient() as client:
        return await client.request(upload["method"], upload["url"], headers=upload["headers"], content=content)


def object_name(made: dict[str, Any], person: Person) -> str:
    return f"{person.store['id']}/{made['media']['id']}/original"


def push_body(name: str, *, bucket: str = "packstream-media", event: str = "OBJECT_FINALIZE") -> dict[str, Any]:
    attributes = {"eventType": event, "bucketId": bucket, "objectId": name, "objectGeneration": "1"}
    return {"message": {"attributes": attributes, "data": "", "messageId": "1"}, "subscription": "s"}


async def push(api: Api, name: str, **changes: Any) -> httpx.Response:
    """The storage's news of an object."""
    return await api.http.post(PUSH, json=push_body(name, **changes))


async def uploaded(
    api: Api, person: Person, kind: str = "product", bucket: str = "packstream-media", **changes: Any
) -> dict[str, Any]:
    """Media with content."""
    made = await announce(api, person, kind, **changes)
    assert (await put(made["upload"], CONTENT[made["media"]["content_type"]])).status_code == 200
    assert (await push(api, object_name(made, person), bucket=bucket)).status_code == 204
    media: dict[str, Any] = made["media"]
    return media


async def events(api: Api, media_id: str) -> list[Any]:
    """What was published about the media, decoded."""
    async with as_owner(api) as tx:
        query = select(OutboxEvent.payload).where(OutboxEvent.aggregateid == media_id)
        return [decode(payload) for payload in await tx.scalars(query.order_by(OutboxEvent.seq))]


async def status_of(api: Api, person: Person, media_id: str) -> str:
    return str(ok(await api.as_(person).get(f"{MEDIA}/{media_id}"))["status"])
