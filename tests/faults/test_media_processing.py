"""Workers are killed while they process media and people delete some of those: each that stays is made once, whole."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, Final
from uuid import UUID

import httpx
import pytest

from models.media.gateway import GcsStore
from schemas.codec import decode
from schemas.records import MediaProcessed
from tests.api_driver import registration
from tests.catalogue import draft
from tests.faults.system import System, until
from tests.media_bucket import MEDIA, announcement, bucket_of
from tests.media_samples import noise, pdf

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PARTS: Final = "postgres,kafka,redis,gcs"
DRAFTS: Final = "/api/v1/vendor/product-drafts"
PICTURES: Final = 14
KILLS: Final = 4
MADE: Final = ("original", "thumbnail", "web")
ARCHIVED: Final = "SELECT payload FROM outbox_archive WHERE type = 'media_processed'"


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MEDIA_LEASE_S", "2")
        with System(parts=PARTS) as system:
            yield system


@pytest.fixture
async def vendor(system: System) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=system.api, timeout=30) as http:
        answer = await http.post("/api/v1/auth/register", json=registration("vendor"))
        http.headers["authorization"] = f"Bearer {answer.raise_for_status().json()['data']['tokens']['access_token']}"
        yield http


async def upload(http: httpx.AsyncClient, kind: str, content: bytes, content_type: str) -> str:
    """Media whose content is there; the storage tells the API."""
    body = announcement(kind, content_type=content_type, size_bytes=len(content))
    made: dict[str, Any] = (await http.post(MEDIA, json=body)).raise_for_status().json()["data"]
    async with httpx.AsyncClient(timeout=30) as web:
        upload = made["upload"]
        (await web.put(upload["url"], headers=upload["headers"], content=content)).raise_for_status()
    return str(made["media"]["id"])


async def reaches(http: httpx.AsyncClient, path: str, status: str) -> dict[str, Any]:
    """What is at the path, once its status is this."""

    async def found() -> Any:
        data = (await http.get(path)).raise_for_status().json()["data"]
        return data if data["status"] == status else None

    answer: dict[str, Any] = await until(f"{path} is {status}", found, timeout_s=120)
    return answer


async def test_a_certificate_becomes_a_product_through_every_process(vendor: httpx.AsyncClient) -> None:
    media_id = await upload(vendor, "coa", pdf(), "application/pdf")
    media = await reaches(vendor, f"{MEDIA}/{media_id}", "ready")
    assert [made["kind"] for made in media["derived"]] == ["ocr.txt"]
    answer = await vendor.post(DRAFTS, json={"coa_media_id": media_id})
    assert (answer.status_code, answer.json()["data"]["status"]) == (202, "processing")
    made = await reaches(vendor, f"{DRAFTS}/{answer.json()['data']['id']}", "ready")
    assert made["fields"]["batch"] == "BD-2026-014"
    product = await vendor.post(f"{DRAFTS}/{made['id']}/publish", json=draft(title=made["fields"]["title"]))
    assert (product.status_code, product.json()["data"]["coa_media_id"]) == (201, media_id)


async def test_killed_workers_and_deletions_leave_whole_media_or_none(
    system: System, vendor: httpx.AsyncClient
) -> None:
    content = noise((2400, 2400))
    ids = [await upload(vendor, "product", content, "image/jpeg") for _ in range(PICTURES)]

    async def some_are_processed() -> Any:
        return await system.value("SELECT count(*) FROM media WHERE status = 'processing'")

    deleted: list[str] = []
    for _ in range(KILLS):
        await until("some media are being processed", some_are_processed, timeout_s=120)
        (busy, *_) = await system.rows("SELECT id FROM media WHERE status = 'processing' ORDER BY id")
        assert (await vendor.delete(f"{MEDIA}/{busy['id']}")).status_code == 204
        deleted.append(str(busy["id"]))
        await system.kill("worker")

    async def all_done() -> bool:
        rows = await system.rows("SELECT status FROM media")
        open_ = await system.value("SELECT count(*) FROM media_deletions WHERE status = 'pending'")
        return {row["status"] for row in rows} == {"ready"} and open_ == 0

    await until("all media are ready, all deletions done", all_done, timeout_s=180)
    kept = set(ids) - set(deleted)
    there = await system.rows("SELECT id FROM media WHERE kind = 'product'")
    assert {str(row["id"]) for row in there} == kept

    prefix = f"{await system.value('SELECT store_id FROM media WHERE id = ANY ($1) LIMIT 1', list(map(UUID, kept)))}/"
    settings = system.settings.model_copy(update={"gcs_endpoint": system.data.read_env()["GCS_ENDPOINT"]})
    with bucket_of(settings) as store:

        async def whole() -> bool:
            return await objects(store, prefix) == {f"{media_id}/{part}" for media_id in kept for part in MADE}

        await until("every object has its row, every row its objects", whole, timeout_s=60)
    await system.outbox_drained()
    told = [decode(row[0]) for row in await system.rows(ARCHIVED)]
    assert sorted(str(e.media_id) for e in told if isinstance(e, MediaProcessed) and e.kind == "product") == sorted(
        kept
    )


async def objects(store: GcsStore, prefix: str) -> set[str]:
    """Media and part of every object of a store."""
    return {listed.name.removeprefix(prefix) for listed in (await store.page(prefix)).objects}
