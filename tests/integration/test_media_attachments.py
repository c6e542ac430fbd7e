"""What uses media, what protects them, and what their deletion takes away."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import select

from models.media import writes
from models.media.rules import EntityType, Slot
from models.media.tables import Media, MediaAttachment, MediaDeletion
from schemas.records import MediaDeleted
from tests.api_driver import Api, Person, fields, ok, problem
from tests.media_bucket import (
    CONTENT,
    MEDIA,
    announce,
    as_owner,
    events,
    object_name,
    push,
    put,
    uploaded,
)


async def test_deletion_takes_the_row_and_publishes_the_objects(gcs_api: Api, uploader: Person) -> None:
    media = await uploaded(gcs_api, uploader)
    client, path = gcs_api.as_(uploader), f"{MEDIA}/{media['id']}"
    assert (await client.delete(path)).status_code == 204
    problem(await client.get(path), 404, "not_found")
    problem(await client.delete(path), 404, "not_found")
    _, event = await events(gcs_api, media["id"])
    assert isinstance(event, MediaDeleted)
    assert event.object_names == [f"{uploader.store['id']}/{media['id']}/original"]
    async with as_owner(gcs_api) as tx:
        row = await tx.get_one(MediaDeletion, UUID(media["id"]))
        assert (row.status, row.reason) == ("pending", "deleted")


async def attached(
    gcs_api: Api, uploader: Person, media_id: str, entity_type: EntityType, slot: Slot, *, entity_id: UUID | None = None
) -> UUID:
    entity_id = entity_id or uuid4()
    async with as_owner(gcs_api) as tx:
        await writes.attach(
            tx,
            media_id=UUID(media_id),
            store_id=UUID(uploader.store["id"]),
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
    gcs_api: Api, uploader: Person, kind: str, entity_type: EntityType, slot: Slot, protected: bool
) -> None:
    media = await uploaded(gcs_api, uploader, kind)
    client, path = gcs_api.as_(uploader), f"{MEDIA}/{media['id']}"
    entity_id = await attached(gcs_api, uploader, media["id"], entity_type, slot)
    if protected:
        problem(await client.delete(path), 409, "media_protected")
        async with as_owner(gcs_api) as tx:
            gone = await writes.detach_entity(tx, entity_type=entity_type, entity_id=entity_id)
            assert gone == [UUID(media["id"])]
    assert (await client.delete(path)).status_code == 204
    async with as_owner(gcs_api) as tx:
        query = select(MediaAttachment).where(MediaAttachment.media_id == UUID(media["id"]))
        assert (await tx.scalars(query)).all() == []


async def test_licence_media_that_are_not_whole_stay(gcs_api: Api, uploader: Person) -> None:
    pending = await announce(gcs_api, uploader, "license")
    path = f"{MEDIA}/{pending['media']['id']}"
    problem(await gcs_api.as_(uploader).delete(path), 409, "media_protected")
    await put(pending["upload"], b"not a pdf, by no means a pdf ...")
    await push(gcs_api, object_name(pending, uploader))
    problem(await gcs_api.as_(uploader).delete(path), 409, "media_protected")
    whole = await uploaded(gcs_api, uploader, "license")
    assert (await gcs_api.as_(uploader).delete(f"{MEDIA}/{whole['id']}")).status_code == 204


async def test_deletion_and_attachment_at_once_leave_no_loose_end(gcs_api: Api, uploader: Person) -> None:
    for _ in range(5):
        media = await uploaded(gcs_api, uploader, "coa")
        deletion = gcs_api.as_(uploader).delete(f"{MEDIA}/{media['id']}")
        attachment = attached(gcs_api, uploader, media["id"], EntityType.PRODUCT, Slot.COA)
        answer, _ = await asyncio.gather(deletion, attachment, return_exceptions=True)
        assert isinstance(answer, httpx.Response)
        async with as_owner(gcs_api) as tx:
            row = await tx.get(Media, UUID(media["id"]))
            query = select(MediaAttachment).where(MediaAttachment.media_id == UUID(media["id"]))
            uses = (await tx.scalars(query)).all()
        assert (row is None, len(uses)) == ((True, 0) if answer.status_code == 204 else (False, 1))


async def test_store_shows_its_logo_and_banner(gcs_api: Api, uploader: Person) -> None:
    logo, banner = await uploaded(gcs_api, uploader, "store_logo"), await uploaded(gcs_api, uploader, "store_banner")
    client = gcs_api.as_(uploader)
    body = {"logo_media_id": logo["id"], "banner_media_id": banner["id"]}
    shown = ok(await client.patch("/api/v1/stores/me", json=body))
    assert f"{logo['id']}/original?" in shown["logo_url"]
    assert f"{banner['id']}/original?" in shown["banner_url"]
    again = ok(await client.get("/api/v1/stores/me"))
    assert again == shown  # the same signature: it is kept
    async with httpx.AsyncClient() as web:
        assert (await web.get(shown["logo_url"])).content == CONTENT["image/png"]
    other = await uploaded(gcs_api, uploader, "store_logo")
    assert other["id"] in ok(await client.patch("/api/v1/stores/me", json={"logo_media_id": other["id"]}))["logo_url"]
    assert ok(await client.patch("/api/v1/stores/me", json={"logo_media_id": None}))["logo_url"] is None
    assert (await client.delete(f"{MEDIA}/{banner['id']}")).status_code == 204
    assert ok(await client.get("/api/v1/stores/me"))["banner_url"] is None


async def test_user_shows_an_avatar(gcs_api: Api, uploader: Person) -> None:
    media = await uploaded(gcs_api, uploader, "avatar")
    client = gcs_api.as_(uploader)
    shown = ok(await client.patch("/api/v1/users/me", json={"avatar_media_id": media["id"]}))
    assert f"{media['id']}/original?" in shown["avatar_url"]
    assert ok(await client.get("/api/v1/users/me")) == shown
    assert ok(await client.get("/api/v1/stores/me/users"))[0]["user"] == shown
    login = {"email": uploader.email, "password": "correct horse battery"}
    assert ok(await gcs_api.http.post("/api/v1/auth/login", json=login))["user"] == shown
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
    gcs_api: Api, uploader: Person, path: str, field: str, kind: str
) -> None:
    client = gcs_api.as_(uploader)
    strange = await uploaded(gcs_api, await gcs_api.register(), kind)
    wrong = await uploaded(gcs_api, uploader, "coa")
    pending = (await announce(gcs_api, uploader, kind))["media"]
    problem(await client.patch(path, json={field: strange["id"]}), 404, "not_found")
    problem(await client.patch(path, json={field: str(uuid4())}), 404, "not_found")
    assert fields(problem(await client.patch(path, json={field: wrong["id"]}), 422, "validation_failed")) == {field}
    problem(await client.patch(path, json={field: pending["id"]}), 409, "state_conflict")


async def test_admin_has_no_media_to_show(gcs_api: Api, uploader: Person) -> None:
    media = await uploaded(gcs_api, uploader, "avatar")
    admin = gcs_api.as_(await gcs_api.register_admin())
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


async def test_ad_has_its_creative_until_the_media_go(gcs_api: Api, uploader: Person) -> None:
    client, path = gcs_api.as_(uploader), "/api/v1/vendor/ads"
    first, second = await uploaded(gcs_api, uploader, "ad_creative"), await uploaded(gcs_api, uploader, "ad_creative")
    ad = (await client.post(path, json=new_ad(creative_media_id=first["id"]))).json()["data"]
    assert ad["creative_media_id"] == first["id"]
    changed = ok(await client.patch(f"{path}/{ad['id']}", json={"creative_media_id": second["id"]}))
    assert changed["creative_media_id"] == second["id"]
    assert (await client.delete(f"{MEDIA}/{second['id']}")).status_code == 204
    assert ok(await client.get(f"{path}/{ad['id']}"))["creative_media_id"] is None
    strange = await uploaded(gcs_api, await gcs_api.register("vendor"), "ad_creative")
    for media_id in (strange["id"], str(uuid4())):
        problem(await client.post(path, json=new_ad(creative_media_id=media_id)), 404, "not_found")
        problem(await client.patch(f"{path}/{ad['id']}", json={"creative_media_id": media_id}), 404, "not_found")
    logo = await uploaded(gcs_api, uploader, "store_logo")
    refused = problem(await client.post(path, json=new_ad(creative_media_id=logo["id"])), 422, "validation_failed")
    assert fields(refused) == {"creative_media_id"}
