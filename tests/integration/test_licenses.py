"""Licences over HTTP: a store submits its document, an admin decides, the store's standing follows."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.ads_driver import create_ad, execute
from tests.api_driver import Api, Person, created, fields, ok, problem
from tests.licences import (
    LICENSES,
    QUEUE,
    YEAR,
    application,
    approved,
    audited,
    decide,
    kyc_of,
    submitted,
    subscribe,
    told,
)
from tests.media_bucket import MEDIA, announce, object_name, push, put, uploaded

SHAPE = {
    "id",
    "store_id",
    "media_id",
    "type",
    "number",
    "issuing_state",
    "issued_on",
    "expires_on",
    "status",
    "decision_reason",
    "decided_at",
    "created_at",
}


@pytest.fixture
async def admin(gcs_api: Api) -> Person:
    return await gcs_api.register_admin()


async def pages(api: Api, person: Person, path: str, **wanted: str) -> list[dict[str, Any]]:
    """All rows of a list, two a page."""
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        page = await api.as_(person).get(path, params={"limit": "2", **wanted} | ({"cursor": cursor} if cursor else {}))
        found += ok(page)
        cursor = page.json()["meta"]["next_cursor"]
        if cursor is None:
            return found


async def test_a_document_becomes_a_licence_and_the_store_is_verified(
    gcs_api: Api, uploader: Person, admin: Person
) -> None:
    made = await submitted(gcs_api, uploader, type="grower", number=" OR-7 ")
    assert made.keys() == SHAPE
    assert (made["status"], made["type"], made["number"], made["issuing_state"]) == ("pending", "grower", "OR-7", "OR")
    assert (made["store_id"], made["decided_at"], made["decision_reason"]) == (uploader.store["id"], None, None)
    assert await kyc_of(gcs_api, uploader) == "pending"
    verified = ok(await decide(gcs_api, admin, made["id"]))
    assert (verified["id"], verified["status"]) == (made["id"], "verified")
    assert verified["decided_at"].endswith("Z")
    assert await kyc_of(gcs_api, uploader) == "verified"
    assert ok(await gcs_api.as_(uploader).get(LICENSES)) == [verified]


async def test_every_step_is_told_and_audited(gcs_api: Api, uploader: Person, admin: Person) -> None:
    made = await approved(gcs_api, uploader, admin)
    actors = [f"user:{uploader.user['id']}", f"user:{admin.user['id']}"]
    statuses = [(e.actor, e.before, e.after) for e in await told(gcs_api, uploader, "license_status_changed")]
    assert statuses == [(actors[0], None, "pending"), (actors[1], "pending", "verified")]
    (compliance,) = await told(gcs_api, uploader, "store_compliance_changed")
    assert (compliance.before, compliance.after) == ("pending", "verified")
    (notice,) = await told(gcs_api, uploader, "notification_requested")
    assert (notice.kind, notice.subject_id) == ("license_decided", UUID(made["id"]))
    assert (notice.values["number"], notice.values["decision"]) == ("OR-1024", "approved")
    assert await audited(gcs_api, made["id"]) == [(actors[0], "license.pending"), (actors[1], "license.verified")]


async def test_a_rejection_needs_a_reason_and_gives_it(gcs_api: Api, uploader: Person, admin: Person) -> None:
    made = await submitted(gcs_api, uploader)
    for body in ({}, {"reason": None}, {"reason": ""}, {"reason": "  "}):
        refused = problem(await decide(gcs_api, admin, made["id"], "reject", **body), 422, "validation_failed")
        assert fields(refused) == {"reason"}
    rejected = ok(await decide(gcs_api, admin, made["id"], "reject", reason="The scan is blurred."))
    assert (rejected["status"], rejected["decision_reason"]) == ("rejected", "The scan is blurred.")
    assert await kyc_of(gcs_api, uploader) == "rejected"
    (notice,) = await told(gcs_api, uploader, "notification_requested")
    assert (notice.values["decision"], notice.values["reason"]) == ("rejected", "The scan is blurred.")
    *_, last = await told(gcs_api, uploader, "license_status_changed")
    assert (last.after, last.reason) == ("rejected", "The scan is blurred.")


@pytest.mark.parametrize("first", ["approve", "reject"])
async def test_a_second_decision_is_refused(gcs_api: Api, uploader: Person, admin: Person, first: str) -> None:
    made = await submitted(gcs_api, uploader)
    ok(await decide(gcs_api, admin, made["id"], first, reason="As found."))
    for again in ("approve", "reject"):
        answer = problem(await decide(gcs_api, admin, made["id"], again, reason="Other."), 409, "state_conflict")
        assert ("verified" if first == "approve" else "rejected") in answer["detail"]
    assert len(await audited(gcs_api, made["id"])) == 2


async def test_of_two_decisions_at_once_one_counts(gcs_api: Api, uploader: Person, admin: Person) -> None:
    made = await submitted(gcs_api, uploader)
    answers = await asyncio.gather(
        *(decide(gcs_api, admin, made["id"], "reject", reason=f"Reason {n}.") for n in range(4)),
        *(decide(gcs_api, admin, made["id"], "approve") for _ in range(4)),
    )
    assert sorted(answer.status_code for answer in answers) == [200, *[409] * 7]
    assert len(await told(gcs_api, uploader, "license_status_changed")) == 2
    assert len(await told(gcs_api, uploader, "notification_requested")) == 1
    assert len(await audited(gcs_api, made["id"])) == 2


async def test_decisions_on_two_licences_at_once_leave_the_better_standing(
    gcs_api: Api, uploader: Person, admin: Person
) -> None:
    for _ in range(4):
        person = await gcs_api.register("vendor")
        first, second = await submitted(gcs_api, person), await submitted(gcs_api, person)
        await asyncio.gather(
            decide(gcs_api, admin, first["id"], "reject", reason="Twice."), decide(gcs_api, admin, second["id"])
        )
        assert await kyc_of(gcs_api, person) == "verified"


async def test_the_store_stands_as_its_best_licence(gcs_api: Api, uploader: Person, admin: Person) -> None:
    bad = await submitted(gcs_api, uploader)
    ok(await decide(gcs_api, admin, bad["id"], "reject", reason="Not yours."))
    assert await kyc_of(gcs_api, uploader) == "rejected"
    good = await submitted(gcs_api, uploader)
    assert await kyc_of(gcs_api, uploader) == "pending"
    ok(await decide(gcs_api, admin, good["id"]))
    assert await kyc_of(gcs_api, uploader) == "verified"
    worse = await submitted(gcs_api, uploader)
    ok(await decide(gcs_api, admin, worse["id"], "reject", reason="A third one."))
    assert await kyc_of(gcs_api, uploader) == "verified"
    changes = [(e.before, e.after) for e in await told(gcs_api, uploader, "store_compliance_changed")]
    assert changes == [("pending", "rejected"), ("rejected", "pending"), ("pending", "verified")]


async def test_a_buyer_is_licensed_the_same_way(gcs_api: Api, admin: Person) -> None:
    buyer = await gcs_api.register("buyer")
    assert (await approved(gcs_api, buyer, admin, type="dispensary"))["status"] == "verified"
    assert await kyc_of(gcs_api, buyer) == "verified"


async def test_only_own_whole_documents_are_taken(gcs_api: Api, uploader: Person) -> None:
    client = gcs_api.as_(uploader)
    pending = await announce(gcs_api, uploader, "license")
    problem(await client.post(LICENSES, json=application(pending["media"]["id"])), 409, "state_conflict")
    await put(pending["upload"], b"not a pdf, by no means a pdf ...")
    await push(gcs_api, object_name(pending, uploader))
    problem(await client.post(LICENSES, json=application(pending["media"]["id"])), 409, "state_conflict")
    other = await uploaded(gcs_api, uploader, "coa")
    refused = problem(await client.post(LICENSES, json=application(other["id"])), 422, "validation_failed")
    assert fields(refused) == {"media_id"}
    strange = await uploaded(gcs_api, await gcs_api.register("vendor"), "license")
    for media_id in (strange["id"], str(uuid4())):
        problem(await client.post(LICENSES, json=application(media_id)), 404, "not_found")
    assert ok(await client.get(LICENSES)) == []
    assert await told(gcs_api, uploader) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("media_id", "no-id"),
        ("type", "retailer"),
        ("number", " "),
        ("number", "x" * 101),
        ("issuing_state", "Oregon"),
        ("issued_on", "2026-02-30"),
        ("expires_on", "20270101"),
        ("status", "verified"),
    ],
)
async def test_a_malformed_application_is_refused(gcs_api: Api, uploader: Person, field: str, value: str) -> None:
    body = application(str(uuid4())) | {field: value}
    assert fields(problem(await gcs_api.as_(uploader).post(LICENSES, json=body), 422, "validation_failed")) == {field}


async def test_a_licence_that_ends_before_it_begins_is_refused(gcs_api: Api, uploader: Person) -> None:
    today = datetime.now(UTC).date()
    body = application(str(uuid4()), issued_on=today, expires_on=today - timedelta(days=1))
    problem(await gcs_api.as_(uploader).post(LICENSES, json=body), 422, "validation_failed")


async def test_a_document_stays_while_a_licence_holds_it(gcs_api: Api, uploader: Person, admin: Person) -> None:
    made = await submitted(gcs_api, uploader)
    client, path = gcs_api.as_(uploader), f"{MEDIA}/{made['media_id']}"
    problem(await client.delete(path), 409, "media_protected")
    ok(await decide(gcs_api, admin, made["id"], "reject", reason="Blurred."))
    problem(await client.delete(path), 409, "media_protected")
    assert ok(await client.get(path))["status"] == "uploaded"


async def test_only_expired_licences_can_be_deleted(gcs_api: Api, uploader: Person, admin: Person) -> None:
    made = await submitted(gcs_api, uploader)
    client, path = gcs_api.as_(uploader), f"{LICENSES}/{made['id']}"
    problem(await client.delete(path), 409, "license_not_expired")
    ok(await decide(gcs_api, admin, made["id"]))
    problem(await client.delete(path), 409, "license_not_expired")
    rejected = await submitted(gcs_api, uploader)
    ok(await decide(gcs_api, admin, rejected["id"], "reject", reason="Blurred."))
    problem(await client.delete(f"{LICENSES}/{rejected['id']}"), 409, "license_not_expired")
    assert len(ok(await client.get(LICENSES))) == 2
    problem(await client.delete(f"{LICENSES}/{uuid4()}"), 404, "not_found")
    stranger = gcs_api.as_(await gcs_api.register("vendor"))
    problem(await stranger.delete(path), 404, "not_found")


async def test_a_licence_past_its_end_is_not_approved(gcs_api: Api, uploader: Person, admin: Person) -> None:
    today = datetime.now(UTC).date()
    made = await submitted(gcs_api, uploader, issued_on=today - YEAR, expires_on=today)
    decision = f"{QUEUE}/{made['id']}/decision"
    tomorrow = {"X-Now": (datetime.now(UTC) + timedelta(days=1)).isoformat()}
    late = await gcs_api.as_(admin).post(decision, json={"decision": "approve"}, headers=tomorrow)
    problem(late, 409, "state_conflict")
    assert ok(await decide(gcs_api, admin, made["id"]))["status"] == "verified"


async def test_a_store_lists_its_own_licences_newest_first(gcs_api: Api, uploader: Person) -> None:
    stranger = await gcs_api.register("vendor")
    await submitted(gcs_api, stranger)
    media = await uploaded(gcs_api, uploader, "license")
    same_instant = {"X-Now": datetime.now(UTC).isoformat()}
    client = gcs_api.as_(uploader)
    made = [
        created(await client.post(LICENSES, json=application(media["id"], number=str(n)), headers=same_instant))
        for n in range(5)
    ]
    assert [row["number"] for row in await pages(gcs_api, uploader, LICENSES)] == ["4", "3", "2", "1", "0"]
    assert {row["media_id"] for row in made} == {media["id"]}
    assert len(await pages(gcs_api, stranger, LICENSES)) == 1


async def test_admins_work_through_the_oldest_first(gcs_alone: Api) -> None:
    admin, people = await gcs_alone.register_admin(), [await gcs_alone.register("vendor") for _ in range(3)]
    made = [await submitted(gcs_alone, person, number=f"{n}") for n in range(2) for person in people]
    ok(await decide(gcs_alone, admin, made[1]["id"]))
    ok(await decide(gcs_alone, admin, made[4]["id"], "reject", reason="Blurred."))
    everything = [row["id"] for row in await pages(gcs_alone, admin, QUEUE)]
    assert everything == [row["id"] for row in made]
    waiting = [row["id"] for row in await pages(gcs_alone, admin, QUEUE, status="pending")]
    assert waiting == [made[n]["id"] for n in (0, 2, 3, 5)]
    assert [row["id"] for row in await pages(gcs_alone, admin, QUEUE, status="verified")] == [made[1]["id"]]
    assert [row["id"] for row in await pages(gcs_alone, admin, QUEUE, status="rejected")] == [made[4]["id"]]
    assert await pages(gcs_alone, admin, QUEUE, status="expired") == []


async def test_lists_take_only_their_own_cursors(gcs_api: Api, uploader: Person, admin: Person) -> None:
    for _ in range(2):
        await submitted(gcs_api, uploader)
    owner, clerk = gcs_api.as_(uploader), gcs_api.as_(admin)
    mine = (await owner.get(f"{LICENSES}?limit=1")).json()["meta"]["next_cursor"]
    waiting = (await clerk.get(f"{QUEUE}?limit=1&status=pending")).json()["meta"]["next_cursor"]
    for query in ("limit=0", "limit=101", "cursor=made-up", f"cursor={waiting}"):
        problem(await owner.get(f"{LICENSES}?{query}"), 422, "validation_failed")
    for query in ("limit=0", "status=lost", "cursor=made-up", f"cursor={mine}", f"cursor={waiting}"):
        problem(await clerk.get(f"{QUEUE}?{query}"), 422, "validation_failed")
    stranger = gcs_api.as_(await gcs_api.register("vendor"))
    problem(await stranger.get(f"{LICENSES}?cursor={mine}"), 422, "validation_failed")
    assert len(ok(await owner.get(f"{LICENSES}?cursor={mine}"))) == 1


async def test_roles_keep_to_their_side(gcs_api: Api, uploader: Person, admin: Person) -> None:
    made = await submitted(gcs_api, uploader)
    problem(await gcs_api.as_(uploader).get(QUEUE), 403, "forbidden")
    problem(await decide(gcs_api, uploader, made["id"]), 403, "forbidden")
    problem(await gcs_api.as_(admin).get(LICENSES), 403, "forbidden")
    problem(await gcs_api.as_(admin).post(LICENSES, json=application(made["media_id"])), 403, "forbidden")
    problem(await gcs_api.http.get(LICENSES), 401, "unauthenticated")
    problem(await gcs_api.http.get(QUEUE), 401, "unauthenticated")
    problem(await decide(gcs_api, admin, str(uuid4())), 404, "not_found")
    problem(await decide(gcs_api, admin, made["id"], "perhaps"), 422, "validation_failed")


async def test_a_repeated_submission_is_one_licence(gcs_api: Api, uploader: Person, admin: Person) -> None:
    media = await uploaded(gcs_api, uploader, "license")
    client, key = gcs_api.as_(uploader), {"Idempotency-Key": uuid4().hex}
    first = await client.post(LICENSES, json=application(media["id"]), headers=key)
    again = await client.post(LICENSES, json=application(media["id"]), headers=key)
    assert (created(again), again.headers["idempotent-replayed"]) == (created(first), "true")
    assert len(ok(await client.get(LICENSES))) == 1
    assert len(await told(gcs_api, uploader, "license_status_changed")) == 1
    other = await client.post(LICENSES, json=application(media["id"], number="2"), headers=key)
    problem(other, 422, "idempotency_key_reused")
    path, decision = f"{QUEUE}/{created(first)['id']}/decision", {"decision": "approve"}
    decided = [await gcs_api.as_(admin).post(path, json=decision, headers=key) for _ in range(2)]
    assert ok(decided[0]) == ok(decided[1])


async def test_a_vendor_may_advertise_once_the_licence_is_verified(
    gcs_api: Api, uploader: Person, admin: Person
) -> None:
    await subscribe(gcs_api, uploader)
    ad = await create_ad(gcs_api, uploader)
    path, active = f"/api/v1/vendor/ads/{ad['id']}", {"status": "active"}
    client = gcs_api.as_(uploader)
    problem(await client.patch(path, json=active), 403, "vendor_not_eligible")
    made = await submitted(gcs_api, uploader)
    problem(await client.patch(path, json=active), 403, "vendor_not_eligible")
    ok(await decide(gcs_api, admin, made["id"]))
    assert ok(await client.patch(path, json=active))["status"] == "active"


async def test_what_breaks_off_a_submission_or_a_decision_leaves_nothing_of_it(gcs_alone: Api) -> None:
    """A statement at the very end fails, as in a crash before the commit."""
    person, admin = await gcs_alone.register("vendor"), await gcs_alone.register_admin()
    media = await uploaded(gcs_alone, person, "license")
    await execute(
        gcs_alone,
        "CREATE FUNCTION break_off() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'broken off' USING ERRCODE = 'admin_shutdown'; END $$",
    )
    breaking = (
        "CREATE CONSTRAINT TRIGGER break_off AFTER INSERT OR UPDATE ON licenses"
        " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION break_off()"
    )
    await execute(gcs_alone, breaking)
    body = application(media["id"])
    assert (await gcs_alone.as_(person).post(LICENSES, json=body)).status_code in (500, 503)
    attached = await execute(gcs_alone, "SELECT 1 FROM media_attachments")
    assert (attached, ok(await gcs_alone.as_(person).get(LICENSES)), await told(gcs_alone, person)) == ([], [], [])
    await execute(gcs_alone, "DROP TRIGGER break_off ON licenses")
    made = created(await gcs_alone.as_(person).post(LICENSES, json=body))
    before = await told(gcs_alone, person)
    await execute(gcs_alone, breaking)
    assert (await decide(gcs_alone, admin, made["id"])).status_code in (500, 503)
    assert ok(await gcs_alone.as_(person).get(LICENSES)) == [made]
    assert await kyc_of(gcs_alone, person) == "pending"
    assert (await told(gcs_alone, person), len(await audited(gcs_alone, made["id"]))) == (before, 1)
    await execute(gcs_alone, "DROP TRIGGER break_off ON licenses")
    assert ok(await decide(gcs_alone, admin, made["id"]))["status"] == "verified"
