"""The collector, the deletion agent and ads' pictures: each test on a database and a bucket of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import select

from agents import housekeeping_media, media
from agents.housekeeping_media import Collector, collecting_media
from models.clock import set_clock
from models.database import new_id
from models.errors import Unavailable
from models.media import rules, writes
from models.media.gateway import GcsStore
from models.media.tables import Media, MediaDeletion
from models.outbox import OutboxEvent
from ops.object_store import object_store
from ops.settings import Settings
from schemas.codec import decode
from schemas.records import MediaDeleted
from tests.ads_driver import NOON, active_ad, at, make_eligible, open_gates, serve
from tests.api_driver import Api, Person, ok, running
from tests.local_stack import Database, Stack, settings_for
from tests.media_bucket import (
    CONTENT,
    MEDIA,
    announce,
    as_owner,
    bucket_of,
    make_bucket,
    object_name,
    push,
    put,
    uploaded,
)

HOUR = timedelta(hours=1)
PNG = CONTENT["image/png"]


@pytest.fixture
def settings(stack: Stack, database: Database, redis_url: str, gcs: str) -> Settings:
    bucket = f"bucket-{uuid4().hex}"
    make_bucket(gcs, bucket)
    places = {"redis_url": redis_url, "gcs_endpoint": gcs, "gcs_bucket": bucket}
    return settings_for(stack, database, log_level="warning", **places)


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Api]:
    async with running(settings) as started:
        yield started


@pytest.fixture
async def person(api: Api) -> Person:
    return await api.register("vendor")


@pytest.fixture
def store(settings: Settings) -> Iterator[GcsStore]:
    with bucket_of(settings) as store:
        yield store


@pytest.fixture(autouse=True)
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids may be new: the logical clock alone decides."""
    monkeypatch.setattr(rules, "UPLOAD_GRACE", timedelta(0))


def later(api: Api, store: Any, after: timedelta) -> Collector:
    """A collector whose time is `after` from now."""
    return Collector(partial(as_owner, api), store, lambda: datetime.now(UTC) + after)


async def names(store: GcsStore) -> set[str]:
    return {listed.name for listed in (await store.page("")).objects}


async def deletion(api: Api, media_id: str) -> MediaDeletion:
    async with as_owner(api) as tx:
        return await tx.get_one(MediaDeletion, UUID(media_id))


async def row(api: Api, media_id: str) -> Media | None:
    async with as_owner(api) as tx:
        return await tx.get(Media, UUID(media_id))


async def deleted_events(api: Api) -> list[MediaDeleted]:
    async with as_owner(api) as tx:
        query = select(OutboxEvent.payload).where(OutboxEvent.type == "media_deleted").order_by(OutboxEvent.seq)
        return [event for event in map(decode, await tx.scalars(query)) if isinstance(event, MediaDeleted)]


async def carry_out(api: Api, store: GcsStore) -> None:
    """What the agent does with each event, twice."""
    for event in 2 * await deleted_events(api):
        async with as_owner(api) as tx:
            await media.delete_objects(tx, event, store=store, now=lambda: datetime.now(UTC))


# -- the agent --------------------------------------------------------------------------------------------------------


async def test_agent_deletes_original_and_derived_and_keeps_the_outcome(
    api: Api, person: Person, store: GcsStore
) -> None:
    kept, gone = await uploaded_in(api, person), await uploaded_in(api, person)
    derived = f"{person.store['id']}/{gone['id']}/small.webp"
    await put_object(store, derived)
    assert (await api.as_(person).delete(f"{MEDIA}/{gone['id']}")).status_code == 204
    await carry_out(api, store)
    assert await names(store) == {f"{person.store['id']}/{kept['id']}/original"}
    found = await deletion(api, gone["id"])
    assert (found.status, found.objects_deleted, found.objects_missing, found.attempts) == ("done", 2, 1, 2)
    assert found.completed_at is not None


async def test_agent_says_when_the_storage_is_away(api: Api, person: Person, settings: Settings) -> None:
    gone = await uploaded_in(api, person)
    await api.as_(person).delete(f"{MEDIA}/{gone['id']}")
    with bucket_of(settings.model_copy(update={"gcs_endpoint": "http://127.0.0.1:1"})) as away:
        with pytest.raises(Unavailable):
            await carry_out(api, away)
    assert (await deletion(api, gone["id"])).status == "pending"


async def test_late_upload_is_deleted_too(api: Api, person: Person, store: GcsStore) -> None:
    made = await announce(api, person)
    await api.as_(person).delete(f"{MEDIA}/{made['media']['id']}")
    await carry_out(api, store)
    await put(made["upload"], PNG)
    assert await push_in(api, made, person) == 204
    await carry_out(api, store)
    assert await names(store) == set()
    assert (await deletion(api, made["media"]["id"])).status == "done"


# -- the collector ----------------------------------------------------------------------------------------------------


async def test_stale_pending_row_without_an_object_goes(api: Api, person: Person, store: GcsStore) -> None:
    made = await announce(api, person)
    await later(api, store, timedelta(minutes=29)).sweep()
    assert await row(api, made["media"]["id"]) is not None
    await later(api, store, timedelta(minutes=31)).sweep()
    assert await row(api, made["media"]["id"]) is None
    (event,) = await deleted_events(api)
    assert (event.reason, event.actor) == ("stale", "housekeeping")


async def test_pending_row_whose_news_was_lost_is_finalised(api: Api, person: Person, store: GcsStore) -> None:
    good, bad = await announce(api, person), await announce(api, person)
    await put(good["upload"], PNG)
    await put(bad["upload"], b"something else")
    await later(api, store, HOUR).sweep()
    found = [await row(api, made["media"]["id"]) for made in (good, bad)]
    assert [one and one.status for one in found] == ["uploaded", "failed"]


async def test_grace_protects_uploads_just_announced_whatever_the_clock_says(
    api: Api, person: Person, store: GcsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "UPLOAD_GRACE", HOUR)
    made = await announce(api, person)
    await later(api, store, timedelta(days=400)).sweep()
    assert await row(api, made["media"]["id"]) is not None


async def test_failed_upload_goes_after_a_week_with_its_object(api: Api, person: Person, store: GcsStore) -> None:
    made = await announce(api, person, "license")
    await put(made["upload"], b"no pdf")
    await push_in(api, made, person)
    await later(api, store, timedelta(days=6)).sweep()
    assert await row(api, made["media"]["id"]) is not None
    await later(api, store, timedelta(days=8)).sweep()
    assert await row(api, made["media"]["id"]) is None
    await carry_out(api, store)
    assert await names(store) == set()


async def test_deletion_that_nobody_finished_is_done_again(
    api: Api, person: Person, store: GcsStore, settings: Settings
) -> None:
    gone = await uploaded_in(api, person)
    await api.as_(person).delete(f"{MEDIA}/{gone['id']}")
    await later(api, store, timedelta(minutes=9)).sweep()
    assert len(await names(store)) == 1
    with bucket_of(settings.model_copy(update={"gcs_endpoint": "http://127.0.0.1:1"})) as away:
        with pytest.raises(Unavailable):
            await later(api, away, timedelta(minutes=11)).sweep()
    failed = await deletion(api, gone["id"])
    assert (failed.status, failed.attempts) == ("pending", 1)
    assert failed.last_error
    await later(api, store, timedelta(minutes=30)).sweep()
    assert await names(store) == set()
    done = await deletion(api, gone["id"])
    assert (done.status, done.attempts, done.last_error) == ("done", 2, None)


async def test_objects_without_a_row_go_and_others_stay(api: Api, person: Person, store: GcsStore) -> None:
    kept = await uploaded_in(api, person)
    orphan, foreign = f"{new_id()}/{new_id()}", "backups/today.tar"
    for name in (f"{orphan}/original", f"{orphan}/ocr.txt", foreign):
        await put_object(store, name)
    mine = f"{person.store['id']}/{kept['id']}/original"
    await later(api, store, timedelta(minutes=50)).delete_orphans()
    assert len(await names(store)) == 4
    assert await later(api, store, 2 * HOUR).delete_orphans() == 1
    assert await names(store) == {mine, foreign}
    found = await deletion(api, orphan.split("/")[1])
    assert (found.status, found.reason, found.objects_deleted) == ("done", "orphan", 2)


async def test_bucket_of_another_database_is_left_alone(
    api: Api, store: GcsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping_media, "UNKNOWN_OF", 3)
    for _ in range(3):
        await put_object(store, f"{new_id()}/{new_id()}/original")
    assert await later(api, store, 2 * HOUR).delete_orphans() == 0
    assert len(await names(store)) == 3


async def test_attached_media_are_not_collected(api: Api, person: Person, store: GcsStore) -> None:
    logo = await uploaded_in(api, person, "store_logo")
    ok(await api.as_(person).patch("/api/v1/stores/me", json={"logo_media_id": logo["id"]}))
    async with as_owner(api) as tx:
        assert not await writes.collect(
            tx,
            UUID(logo["id"]),
            status=rules.MediaStatus.UPLOADED,
            reason=rules.DeletionReason.STALE,
            actor="test",
            now=datetime.now(UTC),
        )


async def test_collector_runs_by_the_logical_clock_and_survives_an_outage(
    api: Api, person: Person, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping_media, "POLL_S", 0.05)
    monkeypatch.setattr(housekeeping_media, "PAUSE_AFTER_ERROR_S", 0.05)
    broken = [Unavailable("away"), OSError("gone"), ValueError("a fault of ours")]
    sweep = Collector.sweep

    async def sweep_after_faults(self: Collector) -> None:
        if broken:
            raise broken.pop()
        await sweep(self)

    monkeypatch.setattr(Collector, "sweep", sweep_after_faults)
    made = await announce(api, person)
    async with collecting_media(settings):
        await asyncio.sleep(1)
        assert await row(api, made["media"]["id"]) is not None
        async with as_owner(api) as tx:
            await set_clock(tx, datetime.now(UTC) + HOUR, wall=datetime.now(UTC))
        for _ in range(200):
            if await row(api, made["media"]["id"]) is None:
                break
            await asyncio.sleep(0.05)
    assert await row(api, made["media"]["id"]) is None


# -- ads --------------------------------------------------------------------------------------------------------------


async def test_served_ad_shows_its_picture_until_the_media_go(api: Api, person: Person) -> None:
    await make_eligible(api, person.store["id"])
    creative = await uploaded_in(api, person, "ad_creative")
    await active_ad(api, person, creative_media_id=creative["id"])
    await open_gates(api)
    buyer = await api.register("buyer")
    image_url = (await serve(api, buyer))["ad"]["image_url"]
    assert (await serve(api, buyer))["ad"]["image_url"] == image_url
    async with httpx.AsyncClient() as web:
        assert (await web.get(image_url)).content == PNG
    assert (await api.as_(person).delete(f"{MEDIA}/{creative['id']}", headers=at(NOON))).status_code == 204
    for _ in range(100):
        if (await serve(api, buyer))["ad"]["image_url"] is None:
            break
        await asyncio.sleep(0.05)
    else:
        pytest.fail("the picture is still shown")


# -- shorthands -------------------------------------------------------------------------------------------------------


async def push_in(api: Api, made: dict[str, Any], person: Person) -> int:
    """News of an object in the test's own bucket."""
    return (await push(api, object_name(made, person), bucket=api.services.settings.gcs_bucket)).status_code


async def uploaded_in(api: Api, person: Person, kind: str = "product") -> dict[str, Any]:
    return await uploaded(api, person, kind, bucket=api.services.settings.gcs_bucket)


async def put_object(store: GcsStore, name: str) -> None:
    await put(
        (await store.sign_upload(name, content_type="image/png", size_bytes=32))._asdict() | {"method": "PUT"}, PNG
    )


def test_object_store_of_the_settings(settings: Settings) -> None:
    store = object_store(settings)
    assert store.bucket == settings.gcs_bucket
    store.close()
