"""Uploaded media are processed: what is made of which, what fails, and what a crash or a deletion in between leaves."""

from __future__ import annotations

import asyncio
import io
import shutil
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from PIL import Image

from models.errors import Unavailable
from models.http_json import Refused
from models.media import processing
from models.media.deriving import Made
from models.media.making import Maker, Result
from models.media.ocr import Tesseract
from models.media.rules import MediaKind
from schemas.records import MediaDeleted, MediaProcessed
from tests.api_driver import Api, Person, ok, problem
from tests.catalogue import rows
from tests.media_bucket import CONTENT, MEDIA, announce, as_owner, events, status_of
from tests.media_samples import CERTIFICATE, bomb, film, pdf, photo, picture, scan, upload
from tests.media_workshop import Workshop, workshop


@pytest.fixture
def api(gcs_api: Api) -> Api:
    return gcs_api


@pytest.fixture
async def vendor(api: Api) -> Person:
    return await api.register("vendor")


@pytest.fixture
async def shop(api: Api, tmp_path: Path) -> AsyncIterator[Workshop]:
    await rows(api, "DELETE FROM media_jobs")
    async with workshop(api.services.settings, tmp_path) as found:
        yield found


async def seen(api: Api, person: Person, media_id: str) -> dict[str, Any]:
    found: dict[str, Any] = ok(await api.as_(person).get(f"{MEDIA}/{media_id}"))
    return found


async def names(shop: Workshop, person: Person) -> set[str]:
    page = await shop.store.page(f"{person.store['id']}/")
    return {listed.name.rpartition("/")[2] for listed in page.objects}


async def content(shop: Workshop, person: Person, media: dict[str, Any], part: str) -> bytes:
    found = await shop.store.read(f"{person.store['id']}/{media['id']}/{part}")
    assert found is not None
    return found


async def told(api: Api, media_id: str) -> list[tuple[str, str | None]]:
    """Status and reason of each `media_processed`."""
    found = [event for event in await events(api, media_id) if isinstance(event, MediaProcessed)]
    return [(event.status, event.reason) for event in found]


# -- what is made -----------------------------------------------------------------------------------------------------


async def test_a_picture_gets_smaller_ones_without_what_the_camera_knew(
    api: Api, vendor: Person, shop: Workshop
) -> None:
    media = await upload(api, vendor, "product", photo(), "image/jpeg")
    await shop.process(api, media["id"])
    found = await seen(api, vendor, media["id"])
    assert (found["status"], found["failure"]) == ("ready", None)
    assert found["derived"] == [
        {"kind": "thumbnail", "content_type": "image/webp"},
        {"kind": "web", "content_type": "image/webp"},
    ]
    for kind, size in (("thumbnail", (160, 320)), ("web", (800, 1600))):
        made = await content(shop, vendor, media, kind)
        assert b"Spy Camera" not in made
        with Image.open(io.BytesIO(made)) as opened:
            assert (opened.size, opened.format, dict(opened.getexif())) == (size, "WEBP", {})
    (_, event) = await events(api, media["id"])
    assert isinstance(event, MediaProcessed)
    assert (event.status, event.reason, len(event.object_names)) == ("ready", None, 2)


async def test_a_derived_picture_is_read_by_its_kind(api: Api, vendor: Person, shop: Workshop) -> None:
    media = await upload(api, vendor, "product", picture(), "image/jpeg")
    client, path = api.as_(vendor), f"{MEDIA}/{media['id']}/url"
    problem(await client.get(path, params={"derived": "web"}), 404, "not_found")
    await shop.process(api, media["id"])
    link = ok(await client.get(path, params={"derived": "thumbnail"}))["url"]
    async with httpx.AsyncClient() as web:
        read = await web.get(link)
    assert read.headers["content-type"] == "image/webp"
    assert read.content == await content(shop, vendor, media, "thumbnail")
    problem(await client.get(path, params={"derived": "original"}), 404, "not_found")


async def test_a_small_picture_is_not_enlarged(api: Api, vendor: Person, shop: Workshop) -> None:
    media = await upload(api, vendor, "avatar", picture((40, 30), "PNG"), "image/png")
    await shop.process(api, media["id"])
    with Image.open(io.BytesIO(await content(shop, vendor, media, "web"))) as opened:
        assert opened.size == (40, 30)


@pytest.mark.parametrize("kind", ["coa", "license"])
async def test_a_document_gets_the_text_it_has(api: Api, vendor: Person, shop: Workshop, kind: str) -> None:
    media = await upload(api, vendor, kind, pdf(), "application/pdf")
    await shop.process(api, media["id"])
    found = await seen(api, vendor, media["id"])
    assert (found["status"], [made["kind"] for made in found["derived"]]) == ("ready", ["ocr.txt"])
    text = (await content(shop, vendor, media, "ocr.txt")).decode()
    assert [" ".join(line.split()) for line in text.splitlines()] == [
        " ".join(line.split()) for line in CERTIFICATE.splitlines()
    ]


class Dictated:
    """Reads what it is told to, or fails as it is told to."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.pages: list[int] = []

    async def read(self, pages: Sequence[Path]) -> str:
        self.pages.append(len([page for page in pages if page.read_bytes().startswith(b"\x89PNG")]))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(("content_type", "format_"), [("image/png", "PNG"), ("application/pdf", "PDF")])
async def test_a_scan_is_read_page_by_page(
    api: Api, vendor: Person, shop: Workshop, content_type: str, format_: str
) -> None:
    ocr = Dictated(CERTIFICATE)
    shop.reading_with(ocr)
    media = await upload(api, vendor, "coa", scan("A page of a scan", format_), content_type)
    await shop.process(api, media["id"])
    assert (await content(shop, vendor, media, "ocr.txt")).decode() == CERTIFICATE
    assert ocr.pages == [1]


@pytest.mark.parametrize(
    ("ocr", "reason"),
    [(None, "no_ocr"), (Dictated(Refused("too ugly")), "no_text"), (Dictated("  \n"), "no_text")],
)
async def test_a_scan_that_nobody_reads_is_ready_all_the_same(
    api: Api, vendor: Person, shop: Workshop, ocr: Dictated | None, reason: str
) -> None:
    shop.maker = Maker(shop.scratch, ocr=ocr, ffmpeg=None)
    media = await upload(api, vendor, "license", scan("A licence", "PDF"), "application/pdf")
    await shop.process(api, media["id"])
    assert (await seen(api, vendor, media["id"]))["status"] == "ready"
    assert await told(api, media["id"]) == [("ready", reason)]


async def test_little_text_is_kept_where_nobody_reads_more(api: Api, vendor: Person, shop: Workshop) -> None:
    media = await upload(api, vendor, "coa", pdf("Batch: B-7"), "application/pdf")
    await shop.process(api, media["id"])
    assert await content(shop, vendor, media, "ocr.txt") == b"Batch: B-7"
    assert await told(api, media["id"]) == [("ready", None)]


@pytest.mark.skipif(shutil.which("tesseract") is None, reason="needs tesseract")
async def test_tesseract_reads_a_scan(api: Api, vendor: Person, shop: Workshop) -> None:
    shop.reading_with(Tesseract("tesseract"))
    media = await upload(api, vendor, "coa", scan(), "image/jpeg")
    await shop.process(api, media["id"])
    text = (await content(shop, vendor, media, "ocr.txt")).decode()
    assert "BD-2026-014" in text
    assert "24.10" in next(line for line in text.splitlines() if line.startswith("THC"))


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
async def test_a_video_gets_a_smaller_one_and_a_still(api: Api, vendor: Person, shop: Workshop, tmp_path: Path) -> None:
    shop.maker = Maker(tmp_path, ocr=None, ffmpeg="ffmpeg")
    media = await upload(api, vendor, "product", film(tmp_path / "film.mp4"), "video/mp4")
    await shop.process(api, media["id"])
    found = await seen(api, vendor, media["id"])
    assert (found["status"], [made["kind"] for made in found["derived"]]) == ("ready", ["poster", "video"])
    with Image.open(io.BytesIO(await content(shop, vendor, media, "poster"))) as still:
        assert still.size == (1280, 640)
    assert (await content(shop, vendor, media, "video"))[4:8] == b"ftyp"


async def test_a_video_without_ffmpeg_is_ready_as_it_is(api: Api, vendor: Person, shop: Workshop) -> None:
    media = await upload(api, vendor, "product", CONTENT["video/mp4"], "video/mp4")
    await shop.process(api, media["id"])
    assert (await seen(api, vendor, media["id"]))["derived"] == []
    assert await told(api, media["id"]) == [("ready", "no_ffmpeg")]


# -- what fails -------------------------------------------------------------------------------------------------------


async def test_a_picture_that_is_none_fails_and_stays_readable(api: Api, vendor: Person, shop: Workshop) -> None:
    media = await upload(api, vendor, "store_logo", CONTENT["image/png"], "image/png")
    client = api.as_(vendor)
    ok(await client.patch("/api/v1/stores/me", json={"logo_media_id": media["id"]}))
    await shop.process(api, media["id"])
    found = await seen(api, vendor, media["id"])
    assert (found["status"], found["failure"], found["derived"]) == ("failed", "undecodable", [])
    assert await told(api, media["id"]) == [("failed", "undecodable")]
    ok(await client.get(f"{MEDIA}/{media['id']}/url"))
    assert ok(await client.get("/api/v1/stores/me"))["logo_url"] is not None


@pytest.mark.parametrize("side_px", [30_000, 7_500])
async def test_a_bomb_fails_and_is_shown_to_nobody(api: Api, vendor: Person, shop: Workshop, side_px: int) -> None:
    media = await upload(api, vendor, "store_logo", bomb(side_px), "image/png")
    client = api.as_(vendor)
    ok(await client.patch("/api/v1/stores/me", json={"logo_media_id": media["id"]}))
    await shop.process(api, media["id"])
    assert (await seen(api, vendor, media["id"]))["failure"] == "too_many_pixels"
    problem(await client.get(f"{MEDIA}/{media['id']}/url"), 409, "state_conflict")
    assert ok(await client.get("/api/v1/stores/me"))["logo_url"] is None
    assert (await client.delete(f"{MEDIA}/{media['id']}")).status_code == 204


async def test_a_licence_that_no_program_can_read_is_ready_for_people(api: Api, vendor: Person, shop: Workshop) -> None:
    media = await upload(api, vendor, "license", CONTENT["application/pdf"], "application/pdf")
    await shop.process(api, media["id"])
    assert (await seen(api, vendor, media["id"]))["status"] == "ready"
    assert await told(api, media["id"]) == [("ready", "undecodable")]


# -- once, whatever happens -------------------------------------------------------------------------------------------


async def test_the_news_twice_and_two_workers_make_it_once(api: Api, vendor: Person, shop: Workshop) -> None:
    media = await upload(api, vendor, "product", picture(), "image/jpeg")
    await shop.hear(api, media["id"])
    await shop.hear(api, media["id"])
    assert sorted(await asyncio.gather(*(shop.work().round() for _ in range(3)))) == [0, 0, 1]
    await shop.process(api, media["id"])
    assert await told(api, media["id"]) == [("ready", None)]


async def test_a_worker_that_vanished_leaves_its_media_to_the_next(api: Api, vendor: Person, shop: Workshop) -> None:
    media = await upload(api, vendor, "product", picture(), "image/jpeg")
    await shop.hear(api, media["id"])
    (vanished,) = await claimed(api)
    assert await status_of(api, vendor, media["id"]) == "processing"
    assert await shop.work().round() == 0
    (second,) = await claimed(api, later=timedelta(minutes=2))
    assert vanished.claim != second.claim
    async with as_owner(api) as tx:
        made = [Made("thumbnail", b"late")]
        assert await processing.finish(tx, vanished, made, None, now=datetime.now(UTC)) is None
    assert await status_of(api, vendor, media["id"]) == "processing"
    assert await claimed(api, later=timedelta(minutes=4))
    await due_again(api)
    await shop.process(api)
    assert await status_of(api, vendor, media["id"]) == "ready"
    assert await told(api, media["id"]) == [("ready", None)]


async def test_what_takes_worker_after_worker_is_given_up(api: Api, vendor: Person, shop: Workshop) -> None:
    media = await upload(api, vendor, "product", picture(), "image/jpeg")
    await shop.hear(api, media["id"])
    for n in range(processing.ATTEMPTS_MAX):
        assert await claimed(api, later=timedelta(minutes=2 * n))
    await due_again(api)
    await shop.process(api)
    assert (await seen(api, vendor, media["id"]))["failure"] == "gave_up"
    ok(await api.as_(vendor).get(f"{MEDIA}/{media['id']}/url"))


async def test_an_outage_is_waited_out_and_counts_for_nothing(api: Api, vendor: Person, shop: Workshop) -> None:
    media = await upload(api, vendor, "product", picture(), "image/jpeg")
    await shop.hear(api, media["id"])
    maker, shop.maker = shop.maker, Away(shop.scratch, ocr=None, ffmpeg=None)
    for _ in range(processing.ATTEMPTS_MAX + 1):
        assert await shop.work().round() == 1
        assert await shop.work().round() == 0, "not before a while"
        await due_again(api)
    shop.maker = maker
    await shop.process(api)
    assert await told(api, media["id"]) == [("ready", None)]


class Away(Maker):
    async def make(self, content: bytes, *, kind: MediaKind, content_type: str) -> Result:
        raise Unavailable("not now")


async def claimed(api: Api, later: timedelta = timedelta(0)) -> list[processing.Claimed]:
    """What a worker has claimed that is never heard of again."""
    wall = datetime.now(UTC) + later
    async with as_owner(api) as tx:
        return await processing.claim(tx, limit=5, until=wall + timedelta(minutes=1), wall=wall)


async def due_again(api: Api) -> None:
    """Time passes, by the wall clock."""
    await rows(api, "UPDATE media_jobs SET due_at = now()")


# -- deletion in between ----------------------------------------------------------------------------------------------


class Pausing(Maker):
    """Makes, and lets something happen before it hands out what it made."""

    async def make(self, content: bytes, *, kind: MediaKind, content_type: str) -> Result:
        made = await super().make(content, kind=kind, content_type=content_type)
        await self.meanwhile()
        return made

    async def meanwhile(self) -> None:
        raise NotImplementedError


async def test_media_deleted_while_they_are_processed_leave_nothing(api: Api, vendor: Person, shop: Workshop) -> None:
    media = await upload(api, vendor, "product", picture(), "image/jpeg")

    class Deleting(Pausing):
        async def meanwhile(self) -> None:
            assert (await api.as_(vendor).delete(f"{MEDIA}/{media['id']}")).status_code == 204
            await shop.hear(api, media["id"])
            assert await names(shop, vendor) == set()

    shop.maker = Deleting(shop.scratch, ocr=None, ffmpeg=None)
    await shop.process(api, media["id"])
    assert await names(shop, vendor) == {"thumbnail", "web"}, "they were made too late, or the test shows nothing"
    asked = [event.reason for event in await events(api, media["id"]) if isinstance(event, MediaDeleted)]
    assert asked == ["deleted", "late_upload"]
    await shop.hear(api, media["id"])
    assert await names(shop, vendor) == set()
    problem(await api.as_(vendor).get(f"{MEDIA}/{media['id']}"), 404, "not_found")
    assert await told(api, media["id"]) == []


async def test_media_deleted_after_they_were_processed_leave_nothing(api: Api, vendor: Person, shop: Workshop) -> None:
    media = await upload(api, vendor, "product", picture(), "image/jpeg")
    await shop.process(api, media["id"])
    assert await names(shop, vendor) == {"original", "thumbnail", "web"}
    assert (await api.as_(vendor).delete(f"{MEDIA}/{media['id']}")).status_code == 204
    await shop.hear(api, media["id"])
    assert await names(shop, vendor) == set()


async def test_media_deleted_before_their_turn_are_not_processed(api: Api, vendor: Person, shop: Workshop) -> None:
    media = await upload(api, vendor, "product", picture(), "image/jpeg")
    await shop.hear(api, media["id"])
    assert (await api.as_(vendor).delete(f"{MEDIA}/{media['id']}")).status_code == 204
    assert await shop.work().round() == 0
    await shop.hear(api, media["id"])
    assert await shop.work().round() == 0


async def test_media_without_content_are_not_queued(api: Api, vendor: Person, shop: Workshop) -> None:
    pending = await announce(api, vendor)
    async with as_owner(api) as tx:
        await processing.queue(tx, UUID(pending["media"]["id"]), wall=datetime.now(UTC))
    assert await shop.work().round() == 0
