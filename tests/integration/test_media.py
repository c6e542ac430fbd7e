"""Media over HTTP, with URLs that are used for real, and the webhook by which the storage tells of uploads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import select

from models.media import writes
from models.media.rules import EntityType, Slot
from models.media.tables import Media, MediaAttachment, MediaDeletion
from models.outbox import OutboxEvent
from ops.settings import Settings
from schemas.codec import decode
from schemas.records import MediaDeleted, MediaUploaded
from tests.api_driver import Api, Person, fields, ok, problem, running
from tests.local_stack import Stack, settings_for
from tests.media_bucket import (
    CONTENT,
    MEDIA,
    PUSH,
    announce,
    announcement,
    as_owner,
    bucket_of,
    object_name,
    push,
    push_body,
    put,
    uploaded,
)


@pytest.fixture
def settings(stack: Stack, redis_url: str, gcs: str) -> Settings:
    return settings_for(stack, redis_url=redis_url, gcs_endpoint=gcs, log_level="warning")


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Api]:
    async with running(settings) as started:
        yield started


@pytest.fixture
async def person(api: Api) -> Person:
    return await api.register("vendor")


async def events(api: Api, media_id: str) -> list[Any]:
    """What was published about the media, decoded."""
    async with as_owner(api) as tx:
        query = select(OutboxEvent.payload).where(OutboxEvent.aggregateid == media_id)
        return [decode(payload) for payload in await tx.scalars(query.order_by(OutboxEvent.seq))]


async def status_of(api: Api, person: Person, media_id: str) -> str:
    return str(ok(await api.as_(person).get(f"{MEDIA}/{media_id}"))["status"])


# -- upload -----------------------------------------------------------------------------------------------------------


async def test_upload_is_announced_made_finalised_and_read_back(api: Api, person: Person) -> None:
    content = CONTENT["image/png"]
    made = await announce(api, person, file_name="my logo.png")
    media, upload = made["media"], made["upload"]
    assert media["status"] == "pending"
    assert (media["file_name"], media["size_bytes"], media["derived"]) == ("my logo.png", len(content), [])
    assert upload["method"] == "PUT"
    assert upload["headers"] == {
        "Content-Type": "image/png",
        "x-goog-content-length-range": "32,32",
        "x-goog-if-generation-match": "0",
    }
    assert f"/packstream-media/{object_name(made, person)}?" in upload["url"]
    client = api.as_(person)
    problem(await client.get(f"{MEDIA}/{media['id']}/url"), 409, "state_conflict")
    assert (await put(upload, content)).status_code == 200
    assert await status_of(api, person, media["id"]) == "pending"
    assert (await push(api, object_name(made, person))).status_code == 204
    assert await status_of(api, person, media["id"]) == "uploaded"
    link = ok(await client.get(f"{MEDIA}/{media['id']}/url"))
    assert link["expires_at"].endswith("Z")
    async with httpx.AsyncClient() as web:
        read = await web.get(link["url"])
    assert (read.content, read.headers["content-type"]) == (content, "image/png")
    (event,) = await events(api, media["id"])
    assert isinstance(event, MediaUploaded)
    assert (event.object_name, event.size_bytes) == (object_name(made, person), 32)


async def test_same_news_twice_or_at_once_has_one_effect(api: Api, person: Person) -> None:
    made = await announce(api, person)
    await put(made["upload"], CONTENT["image/png"])
    answers = await asyncio.gather(*(push(api, object_name(made, person)) for _ in range(4)))
    assert {answer.status_code for answer in answers} == {204}
    assert (await push(api, object_name(made, person))).status_code == 204
    assert len(await events(api, made["media"]["id"])) == 1


@pytest.mark.parametrize("content_type", sorted(CONTENT))
async def test_each_type_is_known_by_its_first_bytes(api: Api, person: Person, content_type: str) -> None:
    kind = "coa" if content_type == "application/pdf" else "product"
    media = await uploaded(api, person, kind, content_type=content_type)
    assert await status_of(api, person, media["id"]) == "uploaded"


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
    api: Api, person: Person, content: bytes, failure: str
) -> None:
    made = await announce(api, person)
    await put(made["upload"], content)
    assert (await push(api, object_name(made, person))).status_code == 204
    client, path = api.as_(person), f"{MEDIA}/{made['media']['id']}"
    found = ok(await client.get(path))
    assert (found["status"], found["failure"]) == ("failed", failure)
    assert await events(api, found["id"]) == []
    problem(await client.get(f"{path}/url"), 409, "state_conflict")
    assert (await client.delete(path)).status_code == 204


async def test_content_under_another_type_fails(api: Api, person: Person) -> None:
    made = await announce(api, person)
    await put(made["upload"] | {"headers": {"Content-Type": "text/html"}}, CONTENT["image/png"])
    await push(api, object_name(made, person))
    assert ok(await api.as_(person).get(f"{MEDIA}/{made['media']['id']}"))["failure"] == "type_mismatch"


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
    api: Api, person: Person, changes: dict[str, Any], field: str
) -> None:
    body = announcement() | changes
    assert field in fields(problem(await api.as_(person).post(MEDIA, json=body), 422, "validation_failed"))


async def test_largest_upload_is_allowed(api: Api, person: Person) -> None:
    made = await announce(api, person, size_bytes=20 << 20)
    assert made["upload"]["headers"]["x-goog-content-length-range"] == "20971520,20971520"


# -- lists and tenancy ------------------------------------------------------------------------------------------------


async def test_list_pages_by_store_kind_and_status(api: Api, person: Person) -> None:
    made = [(await announce(api, person, "avatar"))["media"]["id"] for _ in range(5)]
    coa = await uploaded(api, person, "coa")
    await announce(api, await api.register())
    client = api.as_(person)
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        query = {"limit": 2, "kind": "avatar"} | ({"cursor": cursor} if cursor else {})
        page = (await client.get(MEDIA, params=query)).json()
        seen += [media["id"] for media in page["data"]]
        cursor = page["meta"]["next_cursor"]
    assert seen == made[::-1]
    assert [media["id"] for media in ok(await client.get(MEDIA, params={"status": "uploaded"}))] == [coa["id"]]
    assert len(ok(await client.get(MEDIA))) == 6
    first = (await client.get(MEDIA, params={"limit": 1})).json()["meta"]["next_cursor"]
    problem(await client.get(MEDIA, params={"cursor": first, "kind": "avatar"}), 422, "validation_failed")


@pytest.mark.parametrize("query", ["limit=0", "limit=-1", "limit=1000000000", "cursor=abc", "kind=x", "status=gone"])
async def test_bad_list_queries_are_refused(api: Api, person: Person, query: str) -> None:
    problem(await api.as_(person).get(f"{MEDIA}?{query}"), 422, "validation_failed")


async def test_media_of_another_store_do_not_exist(api: Api, person: Person) -> None:
    media = await uploaded(api, person)
    stranger = api.as_(await api.register())
    for path in (f"{MEDIA}/{media['id']}", f"{MEDIA}/{media['id']}/url", f"{MEDIA}/{uuid4()}", f"{MEDIA}/nonsense"):
        problem(await stranger.get(path), 404, "not_found")
    problem(await stranger.delete(f"{MEDIA}/{media['id']}"), 404, "not_found")
    assert await status_of(api, person, media["id"]) == "uploaded"


async def test_media_routes_want_a_member_of_a_store(api: Api) -> None:
    problem(await api.http.get(MEDIA), 401, "unauthenticated")
    problem(await api.as_(await api.register_admin()).post(MEDIA, json=announcement()), 403, "forbidden")


# -- webhook ----------------------------------------------------------------------------------------------------------


async def test_news_that_concern_nobody_are_taken(api: Api, person: Person) -> None:
    made = await announce(api, person)
    await put(made["upload"], CONTENT["image/png"])
    name = object_name(made, person)
    for answer in (
        await push(api, name, bucket="another"),
        await push(api, name, event="OBJECT_DELETE"),
        await push(api, "some/other/thing"),
        await push(api, name.upper()),
        await push(api, f"{uuid4()}/{uuid4()}/original"),
    ):
        assert answer.status_code == 204
    assert await status_of(api, person, made["media"]["id"]) == "pending"


async def test_push_must_come_from_where_it_should(api: Api) -> None:
    body = push_body("x")
    path = "/webhooks/gcs"
    for answer in (
        await api.http.post(path, json=body),
        await api.http.post(f"{path}?token=", json=body),
        await api.http.post(f"{path}?token=wrong", json=body),
        await api.http.post(path, json=body, headers={"authorization": "Bearer dev-gcs-webhook-token"}),
        await api.http.post(f"{path}?token=wrong", content=b"{"),
    ):
        problem(answer, 401, "unauthenticated")


async def test_shared_token_is_good_in_dev_and_test_only(settings: Settings) -> None:
    async with running(settings.model_copy(update={"packstream_env": "prod"})) as api:
        problem(await api.http.post(PUSH, json=push_body("x")), 401, "unauthenticated")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"{}", b'{"message": 7}', b'{"message": {"attributes": {"eventType": "x"}}}', b"\xff"],
)
async def test_malformed_pushes_are_refused(api: Api, body: bytes) -> None:
    problem(await api.http.post(PUSH, content=body), 422, "validation_failed")


async def test_push_is_not_taken_while_the_storage_is_away(settings: Settings) -> None:
    async with running(settings.model_copy(update={"gcs_endpoint": "http://127.0.0.1:1"})) as api:
        person = await api.register()
        made = await announce(api, person)
        problem(await push(api, object_name(made, person)), 503, "unavailable")


async def test_object_whose_row_has_gone_is_to_be_deleted(api: Api, person: Person) -> None:
    made = await announce(api, person)
    media_id = made["media"]["id"]
    assert (await api.as_(person).delete(f"{MEDIA}/{media_id}")).status_code == 204
    await put(made["upload"], CONTENT["image/png"])
    assert (await push(api, object_name(made, person))).status_code == 204
    first, late = await events(api, media_id)
    assert (first.reason, late.reason) == ("deleted", "late_upload")
    assert late.object_names == [object_name(made, person)]


# -- deletion ---------------------------------------------------------------------------------------------------------


async def test_deletion_takes_the_row_and_publishes_the_objects(api: Api, person: Person) -> None:
    media = await uploaded(api, person)
    client, path = api.as_(person), f"{MEDIA}/{media['id']}"
    assert (await client.delete(path)).status_code == 204
    problem(await client.get(path), 404, "not_found")
    problem(await client.delete(path), 404, "not_found")
    _, event = await events(api, media["id"])
    assert isinstance(event, MediaDeleted)
    assert event.object_names == [f"{person.store['id']}/{media['id']}/original"]
    async with as_owner(api) as tx:
        row = await tx.get_one(MediaDeletion, UUID(media["id"]))
        assert (row.status, row.reason) == ("pending", "deleted")


async def attached(
    api: Api, person: Person, media_id: str, entity_type: EntityType, slot: Slot, *, entity_id: UUID | None = None
) -> UUID:
    entity_id = entity_id or uuid4()
    async with as_owner(api) as tx:
        await writes.attach(
            tx,
            media_id=UUID(media_id),
            store_id=UUID(person.store["id"]),
            entity_type=entity_type,
            entity_id=entity_id,
            slot=slot,
            now=datetime.now(UTC),
        )
    return entity_id


@pytest.mark.parametrize(
    ("kind", "entity_type", "slot", "protected"),
    [
        ("license", EntityType.LICENSE, Slot.DOCUMENT, True),
        ("coa", EntityType.PRODUCT, Slot.COA, True),
        ("product", EntityType.PRODUCT, Slot.GALLERY, False),
        ("store_logo", EntityType.STORE, Slot.LOGO, False),
        ("avatar", EntityType.USER, Slot.AVATAR, False),
    ],
)
async def test_licences_and_certificates_protect_their_media(
    api: Api, person: Person, kind: str, entity_type: EntityType, slot: Slot, protected: bool
) -> None:
    media = await uploaded(api, person, kind)
    client, path = api.as_(person), f"{MEDIA}/{media['id']}"
    entity_id = await attached(api, person, media["id"], entity_type, slot)
    if protected:
        problem(await client.delete(path), 409, "media_protected")
        async with as_owner(api) as tx:
            gone = await writes.detach_entity(tx, entity_type=entity_type, entity_id=entity_id)
            assert gone == [UUID(media["id"])]
    assert (await client.delete(path)).status_code == 204
    async with as_owner(api) as tx:
        query = select(MediaAttachment).where(MediaAttachment.media_id == UUID(media["id"]))
        assert (await tx.scalars(query)).all() == []


async def test_licence_media_that_are_not_whole_stay(api: Api, person: Person) -> None:
    pending = await announce(api, person, "license")
    path = f"{MEDIA}/{pending['media']['id']}"
    problem(await api.as_(person).delete(path), 409, "media_protected")
    await put(pending["upload"], b"not a pdf, by no means a pdf ...")
    await push(api, object_name(pending, person))
    problem(await api.as_(person).delete(path), 409, "media_protected")
    whole = await uploaded(api, person, "license")
    assert (await api.as_(person).delete(f"{MEDIA}/{whole['id']}")).status_code == 204


async def test_deletion_and_attachment_at_once_leave_no_loose_end(api: Api, person: Person) -> None:
    for _ in range(5):
        media = await uploaded(api, person, "coa")
        deletion = api.as_(person).delete(f"{MEDIA}/{media['id']}")
        attachment = attached(api, person, media["id"], EntityType.PRODUCT, Slot.COA)
        answer, _ = await asyncio.gather(deletion, attachment, return_exceptions=True)
        assert isinstance(answer, httpx.Response)
        async with as_owner(api) as tx:
            row = await tx.get(Media, UUID(media["id"]))
            query = select(MediaAttachment).where(MediaAttachment.media_id == UUID(media["id"]))
            uses = (await tx.scalars(query)).all()
        assert (row is None, len(uses)) == ((True, 0) if answer.status_code == 204 else (False, 1))


# -- attachments ------------------------------------------------------------------------------------------------------


async def test_store_shows_its_logo_and_banner(api: Api, person: Person) -> None:
    logo, banner = await uploaded(api, person, "store_logo"), await uploaded(api, person, "store_banner")
    client = api.as_(person)
    body = {"logo_media_id": logo["id"], "banner_media_id": banner["id"]}
    shown = ok(await client.patch("/api/v1/stores/me", json=body))
    assert f"{logo['id']}/original?" in shown["logo_url"]
    assert f"{banner['id']}/original?" in shown["banner_url"]
    again = ok(await client.get("/api/v1/stores/me"))
    assert again == shown  # the same signature: it is kept
    async with httpx.AsyncClient() as web:
        assert (await web.get(shown["logo_url"])).content == CONTENT["image/png"]
    other = await uploaded(api, person, "store_logo")
    assert other["id"] in ok(await client.patch("/api/v1/stores/me", json={"logo_media_id": other["id"]}))["logo_url"]
    assert ok(await client.patch("/api/v1/stores/me", json={"logo_media_id": None}))["logo_url"] is None
    assert (await client.delete(f"{MEDIA}/{banner['id']}")).status_code == 204
    assert ok(await client.get("/api/v1/stores/me"))["banner_url"] is None


async def test_user_shows_an_avatar(api: Api, person: Person) -> None:
    media = await uploaded(api, person, "avatar")
    client = api.as_(person)
    shown = ok(await client.patch("/api/v1/users/me", json={"avatar_media_id": media["id"]}))
    assert f"{media['id']}/original?" in shown["avatar_url"]
    assert ok(await client.get("/api/v1/users/me")) == shown
    assert ok(await client.get("/api/v1/stores/me/users"))[0]["user"] == shown
    login = {"email": person.email, "password": "correct horse battery"}
    assert ok(await api.http.post("/api/v1/auth/login", json=login))["user"] == shown
    assert ok(await client.patch("/api/v1/users/me", json={"avatar_media_id": None}))["avatar_url"] is None


@pytest.mark.parametrize(
    ("path", "field", "kind"),
    [
        ("/api/v1/stores/me", "logo_media_id", "store_logo"),
        ("/api/v1/stores/me", "banner_media_id", "store_banner"),
        ("/api/v1/users/me", "avatar_media_id", "avatar"),
    ],
)
async def test_only_own_whole_media_of_the_kind_can_be_attached(
    api: Api, person: Person, path: str, field: str, kind: str
) -> None:
    client = api.as_(person)
    strange = await uploaded(api, await api.register(), kind)
    wrong = await uploaded(api, person, "coa")
    pending = (await announce(api, person, kind))["media"]
    problem(await client.patch(path, json={field: strange["id"]}), 404, "not_found")
    problem(await client.patch(path, json={field: str(uuid4())}), 404, "not_found")
    assert fields(problem(await client.patch(path, json={field: wrong["id"]}), 422, "validation_failed")) == {field}
    problem(await client.patch(path, json={field: pending["id"]}), 409, "state_conflict")


async def test_admin_has_no_media_to_show(api: Api, person: Person) -> None:
    media = await uploaded(api, person, "avatar")
    admin = api.as_(await api.register_admin())
    problem(await admin.patch("/api/v1/users/me", json={"avatar_media_id": media["id"]}), 404, "not_found")


def new_ad(**changes: Any) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "name": "Spring",
        "placement": "home",
        "target_type": "store",
        "bid_cpm_cents": 100,
        "daily_budget_cents": 10_000,
        "starts_at": (now - timedelta(hours=1)).isoformat(),
        "headline": "Fresh",
        **changes,
    }


async def test_ad_has_its_creative_until_the_media_go(api: Api, person: Person) -> None:
    client, path = api.as_(person), "/api/v1/vendor/ads"
    first, second = await uploaded(api, person, "ad_creative"), await uploaded(api, person, "ad_creative")
    ad = (await client.post(path, json=new_ad(creative_media_id=first["id"]))).json()["data"]
    assert ad["creative_media_id"] == first["id"]
    changed = ok(await client.patch(f"{path}/{ad['id']}", json={"creative_media_id": second["id"]}))
    assert changed["creative_media_id"] == second["id"]
    assert (await client.delete(f"{MEDIA}/{second['id']}")).status_code == 204
    assert ok(await client.get(f"{path}/{ad['id']}"))["creative_media_id"] is None
    strange = await uploaded(api, await api.register("vendor"), "ad_creative")
    for media_id in (strange["id"], str(uuid4())):
        problem(await client.post(path, json=new_ad(creative_media_id=media_id)), 404, "not_found")
        problem(await client.patch(f"{path}/{ad['id']}", json={"creative_media_id": media_id}), 404, "not_found")
    logo = await uploaded(api, person, "store_logo")
    refused = problem(await client.post(path, json=new_ad(creative_media_id=logo["id"])), 422, "validation_failed")
    assert fields(refused) == {"creative_media_id"}


# -- the bucket -------------------------------------------------------------------------------------------------------


async def test_bucket_tells_facts_and_forgets(settings: Settings) -> None:
    with bucket_of(settings) as store:
        assert await store.facts("never/was/there") is None
        assert await store.delete("never/was/there") is False
        assert (await store.page("never/")).objects == []
