"""Licences by the calendar: announced two weeks ahead, expired, deleted a month later; once, wholly or not at all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from agents import notifications
from agents.housekeeping.leader import housekeeping
from agents.housekeeping.licenses import LICENSES_A_STEP, keep_licenses
from models.licensing import reads as licensing
from models.media.tables import Media, MediaDeletion
from models.stores import reads as stores
from ops.settings import Settings
from tests.ads_driver import active_ad, create_ad, execute, open_gates, serve
from tests.api_driver import Api, Person, created, ok, problem
from tests.licences import (
    LICENSES,
    application,
    approved,
    audited,
    decide,
    kyc_of,
    submitted,
    subscribe,
    told,
)
from tests.media_bucket import MEDIA, as_owner, uploaded

DAY = timedelta(days=1)
END = datetime.now(UTC).date() + timedelta(days=100)  #: the last day that licences here are good


@pytest.fixture
def api(gcs_alone: Api) -> Api:
    return gcs_alone


@pytest.fixture
async def vendor(api: Api) -> Person:
    return await api.register("vendor")


@pytest.fixture
async def admin(api: Api) -> Person:
    return await api.register_admin()


def at(day: date, clock: str = "00:00:00") -> datetime:
    return datetime.combine(day, time_of_day.fromisoformat(clock), UTC)


async def keep(api: Api, now: datetime) -> int:
    """One turn of the housekeeper at this time; how many licences it did something with."""
    async with as_owner(api) as tx:
        return await keep_licenses(tx, now=now)


async def statuses(api: Api, person: Person) -> list[str]:
    return [row["status"] for row in ok(await api.as_(person).get(LICENSES))]


async def hear(api: Api, person: Person) -> list[dict[str, Any]]:
    """What the store reads once the notifications agent has had its requests."""
    tell = notifications.handlers(lambda: datetime.now(UTC))["notification_requested"]
    for event in await told(api, person, "notification_requested"):
        async with as_owner(api) as tx:
            await tell(tx, event)
    shown: list[dict[str, Any]] = ok(await api.as_(person).get("/api/v1/notifications"))
    return shown


async def test_its_end_is_announced_two_weeks_ahead_once(api: Api, vendor: Person, admin: Person) -> None:
    made = await approved(api, vendor, admin, expires_on=END)
    assert await keep(api, at(END - 15 * DAY, "23:59:59")) == 0
    assert [await keep(api, at(END - n * DAY)) for n in (14, 14, 13, 1, 0)] == [1, 0, 0, 0, 0]
    (warning,) = await told(api, vendor, "license_expiring")
    assert (warning.license_id, warning.expires_on) == (UUID(made["id"]), END)
    (_, notice) = await told(api, vendor, "notification_requested")
    assert (notice.kind, notice.values["expires_on"]) == ("license_expiring", END.isoformat())
    assert (await audited(api, made["id"]))[2:] == [("housekeeping", "license.warned")]
    assert (await statuses(api, vendor), await kyc_of(api, vendor)) == (["verified"], "verified")
    newest, _ = await hear(api, vendor)
    assert newest["title"] == f"Licence OR-1024 expires on {END}"
    mails = [event.template for event in await told(api, vendor, "email_requested")]
    assert mails == ["license_decided", "license_expiring"]


async def test_what_is_not_verified_is_not_announced(api: Api, vendor: Person, admin: Person) -> None:
    await submitted(api, vendor, expires_on=END)
    rejected = await submitted(api, vendor, expires_on=END)
    ok(await decide(api, admin, rejected["id"], "reject", reason="Blurred."))
    assert await keep(api, at(END)) == 0


async def test_a_licence_is_good_through_its_last_day_and_no_longer(api: Api, vendor: Person, admin: Person) -> None:
    made = await approved(api, vendor, admin, expires_on=END)
    await keep(api, at(END, "23:59:59"))
    assert (await statuses(api, vendor), await kyc_of(api, vendor)) == (["verified"], "verified")
    assert [await keep(api, at(END + DAY)) for _ in range(2)] == [1, 0]
    assert (await statuses(api, vendor), await kyc_of(api, vendor)) == (["expired"], "expired")
    *_, change = await told(api, vendor, "license_status_changed")
    assert (change.actor, change.before, change.after) == ("housekeeping", "verified", "expired")
    assert (change.license_id, change.occurred_at) == (UUID(made["id"]), at(END + DAY))
    *_, compliance = await told(api, vendor, "store_compliance_changed")
    assert (compliance.before, compliance.after) == ("verified", "expired")
    assert (await audited(api, made["id"]))[3:] == [("housekeeping", "license.expired")]
    newest = (await hear(api, vendor))[0]
    assert (newest["kind"], newest["title"]) == ("license_expired", "Licence OR-1024 has expired")
    *_, mail = await told(api, vendor, "email_requested")
    assert (mail.template, mail.user_id) == ("license_expired", UUID(vendor.user["id"]))


async def test_nobody_decides_on_what_has_expired(api: Api, vendor: Person, admin: Person) -> None:
    made = await submitted(api, vendor, expires_on=END)
    assert await keep(api, at(END + DAY)) == 1
    assert (await statuses(api, vendor), await kyc_of(api, vendor)) == (["expired"], "expired")
    problem(await decide(api, admin, made["id"]), 409, "state_conflict")


async def test_another_verified_licence_keeps_the_store_verified(api: Api, vendor: Person, admin: Person) -> None:
    await approved(api, vendor, admin, expires_on=END)
    await approved(api, vendor, admin, expires_on=END + 20 * DAY)
    assert await keep(api, at(END + DAY)) == 1
    assert (await statuses(api, vendor), await kyc_of(api, vendor)) == (["verified", "expired"], "verified")
    assert len(await told(api, vendor, "store_compliance_changed")) == 1
    await keep(api, at(END + 21 * DAY))
    assert await kyc_of(api, vendor) == "expired"


async def test_a_month_after_its_end_it_goes_with_its_document(api: Api, vendor: Person, admin: Person) -> None:
    made = await approved(api, vendor, admin, expires_on=END)
    client, path = api.as_(vendor), f"{MEDIA}/{made['media_id']}"
    assert await keep(api, at(END + DAY)) == 1
    assert await keep(api, at(END + 30 * DAY, "23:59:59")) == 0
    problem(await client.delete(path), 409, "media_protected")
    assert [await keep(api, at(END + 31 * DAY)) for _ in range(2)] == [1, 0]
    assert (await statuses(api, vendor), await kyc_of(api, vendor)) == ([], "pending")
    problem(await client.get(path), 404, "not_found")
    async with as_owner(api) as tx:
        assert (await tx.get_one(MediaDeletion, UUID(made["media_id"]))).status == "pending"  # for the media agent
    assert await execute(api, "SELECT 1 FROM media_attachments") == []
    assert (await audited(api, made["id"]))[-1] == ("housekeeping", "license.expunged")


async def test_a_document_that_something_else_uses_stays(api: Api, vendor: Person, admin: Person) -> None:
    first = await approved(api, vendor, admin, expires_on=END)
    await approved(api, vendor, admin, expires_on=END + 300 * DAY, media_id=first["media_id"])
    await keep(api, at(END + DAY))
    await keep(api, at(END + 31 * DAY))
    assert await statuses(api, vendor) == ["verified"]
    async with as_owner(api) as tx:
        assert await tx.get(Media, UUID(first["media_id"])) is not None
    problem(await api.as_(vendor).delete(f"{MEDIA}/{first['media_id']}"), 409, "media_protected")


async def test_a_store_may_delete_what_has_expired_and_then_its_document(
    api: Api, vendor: Person, admin: Person
) -> None:
    made = await approved(api, vendor, admin, expires_on=END)
    await keep(api, at(END + DAY))
    client, path = api.as_(vendor), f"{LICENSES}/{made['id']}"
    problem(await api.as_(await api.register("vendor")).delete(path), 404, "not_found")
    assert (await client.delete(path)).status_code == 204
    problem(await client.delete(path), 404, "not_found")
    assert (await statuses(api, vendor), await kyc_of(api, vendor)) == ([], "pending")
    assert (await audited(api, made["id"]))[-1] == (f"user:{vendor.user['id']}", "license.deleted")
    document = f"{MEDIA}/{made['media_id']}"
    assert ok(await client.get(document))["status"] == "uploaded"
    assert (await client.delete(document)).status_code == 204


async def test_an_expired_licence_ends_the_vendors_ads(api: Api, vendor: Person, admin: Person) -> None:
    await subscribe(api, vendor)
    await approved(api, vendor, admin, expires_on=END)
    ad, draft = await active_ad(api, vendor), await create_ad(api, vendor)
    await open_gates(api)
    buyer = await api.register("buyer")
    served = await serve(api, buyer, now=at(END, "12:00:00"))
    assert served["ad"]["ad_id"] == ad["id"]
    await keep(api, at(END + DAY))
    await asyncio.sleep(1)  # the catalogue follows within a second
    refused = await serve(api, buyer, now=at(END + DAY, "12:00:00"))
    assert (refused["ad"], refused["reason"]) == (None, "no_candidates")
    client, active = api.as_(vendor), {"status": "active"}
    problem(await client.patch(f"/api/v1/vendor/ads/{draft['id']}", json=active), 403, "vendor_not_eligible")


async def many(api: Api, admin: Person, count: int) -> list[Person]:
    """Vendors with three verified licences each, `count` in all, of one document a vendor."""
    people = [await api.register("vendor") for _ in range(count // 3)]
    for person in people:
        media = await uploaded(api, person, "license")
        for _ in range(3):
            body = application(media["id"], expires_on=END)
            made = created(await api.as_(person).post(LICENSES, json=body))
            ok(await decide(api, admin, made["id"]))
    return people


async def test_housekeepers_at_once_act_once(api: Api, admin: Person) -> None:
    people = await many(api, admin, LICENSES_A_STEP + 10)

    async def turns(day: date) -> int:
        """Turns of four at once until none of them finds anything."""
        done = 0
        while found := sum(await asyncio.gather(*(keep(api, at(day)) for _ in range(4)))):
            done += found
        return done

    assert [await turns(END + n * DAY) for n in (-1, 1, 31)] == [LICENSES_A_STEP + 10] * 3
    for person in people:
        assert len(await told(api, person, "license_expiring")) == 3
        changes = [event.after for event in await told(api, person, "license_status_changed")]
        assert changes.count("expired") == 3
        standings = [event.after for event in await told(api, person, "store_compliance_changed")]
        assert standings == ["verified", "expired", "pending"]
        kinds = [event.kind for event in await told(api, person, "notification_requested")]
        assert sorted(kinds) == ["license_decided"] * 3 + ["license_expired"] * 3 + ["license_expiring"] * 3
    assert await execute(api, "SELECT 1 FROM licenses UNION ALL SELECT 1 FROM media") == []
    rows = await execute(api, "SELECT action, count(*) FROM audit_log WHERE object_type = 'license' GROUP BY 1")
    steps = ("pending", "verified", "warned", "expired", "expunged")
    assert dict(tuple(row) for row in rows) == {f"license.{step}": LICENSES_A_STEP + 10 for step in steps}


async def test_a_submission_holds_no_document_while_it_waits_for_its_store(api: Api, vendor: Person) -> None:
    """The deletion of old licences takes the store first and then the document: the other way round is a deadlock."""
    media = await uploaded(api, vendor, "license")
    async with as_owner(api) as tx:
        await stores.store(tx, UUID(vendor.store["id"]), lock=True)
        submission = asyncio.create_task(api.as_(vendor).post(LICENSES, json=application(media["id"])))
        await asyncio.sleep(0.5)
        assert not submission.done()
        await tx.get_one(Media, UUID(media["id"]), with_for_update={"nowait": True})
    assert created(await submission)["status"] == "pending"


@pytest.mark.parametrize("held", ["store", "licence"])
async def test_what_somebody_has_locked_is_left_to_the_next_turn(
    api: Api, vendor: Person, admin: Person, held: str
) -> None:
    """To wait for it would be a deadlock where its holder waits for the catalogue's version, which flips lock."""
    other = await api.register("vendor")
    made, _ = [await approved(api, person, admin, expires_on=END) for person in (vendor, other)]
    async with as_owner(api) as tx:
        if held == "store":
            await stores.store(tx, UUID(vendor.store["id"]), lock=True)
        else:
            await licensing.license_of(tx, UUID(made["id"]), store_id=None, lock=True)
        async with asyncio.timeout(5):
            assert await keep(api, at(END + DAY)) == 1
    assert (await kyc_of(api, vendor), await kyc_of(api, other)) == ("verified", "expired")
    assert await keep(api, at(END + DAY)) == 1
    assert await kyc_of(api, vendor) == "expired"


async def test_what_breaks_off_the_housekeeping_leaves_nothing_of_it(api: Api, vendor: Person, admin: Person) -> None:
    """The commit fails, as in a crash before it; the next turn does all of it."""
    made = await approved(api, vendor, admin, expires_on=END)
    before = await told(api, vendor), await audited(api, made["id"])
    await execute(
        api,
        "CREATE FUNCTION break_off() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'broken off' USING ERRCODE = 'admin_shutdown'; END $$",
    )
    for day, left in ((END, ["verified"]), (END + DAY, ["verified"]), (END + 31 * DAY, ["expired"])):
        await execute(
            api,
            "CREATE CONSTRAINT TRIGGER break_off AFTER UPDATE OR DELETE ON licenses"
            " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION break_off()",
        )
        with pytest.raises(DBAPIError, match="broken off"):
            await keep(api, at(day))
        assert (await told(api, vendor), await audited(api, made["id"])) == before
        assert await statuses(api, vendor) == left
        assert ok(await api.as_(vendor).get(f"{MEDIA}/{made['media_id']}"))["status"] == "uploaded"
        await execute(api, "DROP TRIGGER break_off ON licenses")
        assert await keep(api, at(day)) == 1
        before = await told(api, vendor), await audited(api, made["id"])
    assert await statuses(api, vendor) == []


@asynccontextmanager
async def keepers(settings: Settings, count: int) -> AsyncIterator[None]:
    """Housekeepers as relay processes have them; one of them leads."""
    stop = asyncio.Event()
    running = [asyncio.create_task(housekeeping(settings, stop, lambda: None)) for _ in range(count)]
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*running)


async def eventually(check: Callable[[], Awaitable[bool]], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not await check():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.05)


async def set_clock(api: Api, admin: Person, now: datetime) -> None:
    ok(await api.as_(admin).post("/api/admin/ops/clock", json={"now": now.isoformat()}))


async def test_housekeepers_follow_the_logical_clock(
    api: Api, gcs_alone_settings: Settings, vendor: Person, admin: Person
) -> None:
    await approved(api, vendor, admin, expires_on=END)

    async def warned() -> bool:
        return len(await told(api, vendor, "license_expiring")) == 1

    async def expired() -> bool:
        return await kyc_of(api, vendor) == "expired"

    async def gone() -> bool:
        return await statuses(api, vendor) == []

    async with keepers(gcs_alone_settings, 2):
        for day, came in ((END - 14 * DAY, warned), (END + DAY, expired), (END + 31 * DAY, gone)):
            await set_clock(api, admin, at(day))
            await eventually(came, within_s=5)
    assert len(await told(api, vendor, "license_expiring")) == 1
    assert len(await told(api, vendor, "license_status_changed")) == 3


async def test_a_lock_that_somebody_holds_does_not_hold_up_ticks(
    api: Api, gcs_alone_settings: Settings, vendor: Person, admin: Person
) -> None:
    """Ticks are the leader's as well, and gates close without them."""
    await approved(api, vendor, admin, expires_on=END)

    async def ticked(until: datetime) -> bool:
        (row,) = await execute(api, "SELECT min(ticked_until) FROM ad_shards")
        return row[0] is not None and row[0] >= until

    async def expired() -> bool:
        return await kyc_of(api, vendor) == "expired"

    async with keepers(gcs_alone_settings, 1):
        async with as_owner(api) as tx:
            await tx.execute(text("SELECT 1 FROM ad_catalog_version FOR UPDATE"))  # which every flip needs
            await set_clock(api, admin, at(END + DAY))
            await eventually(lambda: ticked(at(END + DAY) + timedelta(seconds=5)), within_s=12)
            assert not await expired()
        await eventually(expired, within_s=5)
