"""Media over HTTP, with URLs that are used for real."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest

from ops.settings import Settings
from schemas.records import MediaUploaded
from tests.api_driver import Api, Person, fields, ok, problem
from tests.media_bucket import (
    CONTENT,
    MEDIA,
    announce,
    announcement,
    bucket_of,
    events,
    object_name,
    push,
    put,
    status_of,
    uploaded,
)


async def test_upload_is_announced_made_finalised_and_read_back(gcs_api: Api, uploader: Person) -> None:
    content = CONTENT["image/png"]
    made = await announce(gcs_api, uploader, file_name="my logo.png")
    media, upload = made["media"], made["upload"]
    assert media["status"] == "pending"
    assert (media["file_name"], media["size_bytes"], media["derived"]) == ("my logo.png", len(content), [])
    assert upload["method"] == "PUT"
    assert upload["headers"] == {
        "Content-Type": "image/png",
        "x-goog-content-length-range": "32,32",
        "x-goog-if-generation-match": "0",
    }
    assert f"/packstream-media/{object_name(made, uploader)}?" in upload["url"]
    client = gcs_api.as_(uploader)
    problem(await client.get(f"{MEDIA}/{media['id']}/url"), 409, "state_conflict")
    assert (await put(upload, content)).status_code == 200
    assert await status_of(gcs_api, uploader, media["id"]) == "pending"
    assert (await push(gcs_api, object_name(made, uploader))).status_code == 204
    assert await status_of(gcs_api, uploader, media["id"]) == "uploaded"
    link = ok(await client.get(f"{MEDIA}/{media['id']}/url"))
    assert link["expires_at"].endswith("Z")
    async with httpx.AsyncClient() as web:
        read = await web.get(link["url"])
    assert (read.content, read.headers["content-type"]) == (content, "image/png")
    (event,) = await events(gcs_api, media["id"])
    assert isinstance(event, MediaUploaded)
    assert (event.object_name, event.size_bytes) == (object_name(made, uploader), 32)


async def test_same_news_twice_or_at_once_has_one_effect(gcs_api: Api, uploader: Person) -> None:
    made = await announce(gcs_api, uploader)
    await put(made["upload"], CONTENT["image/png"])
    answers = await asyncio.gather(*(push(gcs_api, object_name(made, uploader)) for _ in range(4)))
    assert {answer.status_code for answer in answers} == {204}
    assert (await push(gcs_api, object_name(made, uploader))).status_code == 204
    assert len(await events(gcs_api, made["media"]["id"])) == 1


@pytest.mark.parametrize("content_type", sorted(CONTENT))
async def test_each_type_is_known_by_its_first_bytes(gcs_api: Api, uploader: Person, content_type: str) -> None:
    kind = "coa" if content_type == "application/pdf" else "product"
    media = await uploaded(gcs_api, uploader, kind, content_type=content_type)
    assert await status_of(gcs_api, uploader, media["id"]) == "uploaded"


@pytest.mark.parametrize(
    ("content", "failure"),
    [
        (b"<html><script>" + bytes(18), "content_mismatch"),
        (CONTENT["image/jpeg"], "content_mismatch"),
        (CONTENT["image/png"] + b"!", "size_mismatch"),
        (b"", "size_mismatch"),
    ],
)
async def test_content_that_is_not_what_was_announced_fails(
    gcs_api: Api, uploader: Person, content: bytes, failure: str
) -> None:
    made = await announce(gcs_api, uploader)
    await put(made["upload"], content)
    assert (await push(gcs_api, object_name(made, uploader))).status_code == 204
    client, path = gcs_api.as_(uploader), f"{MEDIA}/{made['media']['id']}"
    found = ok(await client.get(path))
    assert (found["status"], found["failure"]) == ("failed", failure)
    assert await events(gcs_api, found["id"]) == []
    problem(await client.get(f"{path}/url"), 409, "state_conflict")
    assert (await client.delete(path)).status_code == 204


async def test_content_under_another_type_fails(gcs_api: Api, uploader: Person) -> None:
    made = await announce(gcs_api, uploader)
    await put(made["upload"] | {"headers": {"Content-Type": "text/html"}}, CONTENT["image/png"])
    await push(gcs_api, object_name(made, uploader))
    assert ok(await gcs_api.as_(uploader).get(f"{MEDIA}/{made['media']['id']}"))["failure"] == "type_mismatch"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"size_bytes": 0}, "size_bytes"),
        ({"size_bytes": -1}, "size_bytes"),
        ({"size_bytes": (20 << 20) + 1}, "size_bytes"),
        ({"size_bytes": 5 << 30}, "size_bytes"),
        ({"size_bytes": "12"}, "size_bytes"),
        ({"kind": "passport"}, "kind"),
        ({"content_type": "text/html"}, "content_type"),
        ({"content_type": "image/svg+xml"}, "content_type"),
        ({"content_type": "application/pdf"}, "content_type"),
        ({"content_type": ""}, "content_type"),
        ({"file_name": ""}, "file_name"),
        ({"file_name": "../../etc/passwd"}, "file_name"),
        ({"file_name": "a\\b.png"}, "file_name"),
        ({"file_name": ".."}, "file_name"),
        ({"file_name": "a\nb"}, "file_name"),
        ({"file_name": "x" * 256}, "file_name"),
        ({"store_id": str(uuid4())}, "store_id"),
    ],
)
async def test_what_may_not_be_uploaded_is_refused(
    gcs_api: Api, uploader: Person, changes: dict[str, Any], field: str
) -> None:
    body = announcement() | changes
    assert field in fields(problem(await gcs_api.as_(uploader).post(MEDIA, json=body), 422, "validation_failed"))


async def test_largest_upload_is_allowed(gcs_api: Api, uploader: Person) -> None:
    made = await announce(gcs_api, uploader, size_bytes=20 << 20)
    assert made["upload"]["headers"]["x-goog-content-length-range"] == "20971520,20971520"


async def test_list_pages_by_store_kind_and_status(gcs_api: Api, uploader: Person) -> None:
    made = [(await announce(gcs_api, uploader, "avatar"))["media"]["id"] for _ in range(5)]
    coa = await uploaded(gcs_api, uploader, "coa")
    await announce(gcs_api, await gcs_api.register())
    client = gcs_api.as_(uploader)
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        query = {"limit": "2", "kind": "avatar"} | ({"cursor": cursor} if cursor else {})
        page = (await client.get(MEDIA, params=query)).json()
        seen += [media["id"] for media in page["data"]]
        cursor = page["meta"]["next_cursor"]
    assert seen == made[::-1]
    assert [media["id"] for media in ok(await client.get(MEDIA, params={"status": "uploaded"}))] == [coa["id"]]
    assert len(ok(await client.get(MEDIA))) == 6
    first = (await client.get(MEDIA, params={"limit": 1})).json()["meta"]["next_cursor"]
    problem(await client.get(MEDIA, params={"cursor": first, "kind": "avatar"}), 422, "validation_failed")


@pytest.mark.parametrize("query", ["limit=0", "limit=-1", "limit=1000000000", "cursor=abc", "kind=x", "status=gone"])
async def test_bad_list_queries_are_refused(gcs_api: Api, uploader: Person, query: str) -> None:
    problem(await gcs_api.as_(uploader).get(f"{MEDIA}?{query}"), 422, "validation_failed")


async def test_media_of_another_store_do_not_exist(gcs_api: Api, uploader: Person) -> None:
    media = await uploaded(gcs_api, uploader)
    stranger = gcs_api.as_(await gcs_api.register())
    for path in (f"{MEDIA}/{media['id']}", f"{MEDIA}/{media['id']}/url", f"{MEDIA}/{uuid4()}", f"{MEDIA}/nonsense"):
        problem(await stranger.get(path), 404, "not_found")
    problem(await stranger.delete(f"{MEDIA}/{media['id']}"), 404, "not_found")
    assert await status_of(gcs_api, uploader, media["id"]) == "uploaded"


async def test_media_routes_want_a_member_of_a_store(gcs_api: Api) -> None:
    problem(await gcs_api.http.get(MEDIA), 401, "unauthenticated")
    problem(await gcs_api.as_(await gcs_api.register_admin()).post(MEDIA, json=announcement()), 403, "forbidden")


async def test_bucket_tells_facts_and_forgets(gcs_settings: Settings) -> None:
    with bucket_of(gcs_settings) as store:
        assert await store.facts("never/was/there") is None
        assert await store.delete("never/was/there") is False
        assert (await store.page("never/")).objects == []
