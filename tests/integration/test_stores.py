"""The store's profile and its people."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import select

from models.audit import AuditEntry
from models.identity.tables import Membership
from ops.settings import Settings
from tests.api_driver import ADDRESS, PASSWORD, Api, Person, created, fields, new_email, ok, problem, running
from tests.integration.test_api_edge import in_production

ME = "/api/v1/stores/me"
USERS = "/api/v1/stores/me/users"
ACCEPT = "/api/v1/auth/accept-invite"
LOGIN = "/api/v1/auth/login"


def invitation(role: str = "staff", **changes: Any) -> dict[str, Any]:
    return {"email": new_email(), "first_name": "Grace", "last_name": "Hopper", "role": role} | changes


async def hire(api: Api, owner: Person, role: str = "staff") -> Person:
    """Someone new in the owner's store, who has accepted."""
    body = invitation(role)
    invited = created(await api.as_(owner).post(f"{USERS}/invite", json=body))
    data = ok(await api.http.post(ACCEPT, json={"token": invited["invite_token"], "password": PASSWORD}))
    return Person(body["email"], data["user"], owner.store, data["tokens"])


async def test_profile_changes_what_is_named_and_nothing_else(api: Api) -> None:
    owner = await api.register()
    client = api.as_(owner)
    changed = ok(await client.patch(ME, json={"description": "Fine goods"}))
    assert changed == owner.store | {"description": "Fine goods"}
    address = ADDRESS | {"state": "WA", "line2": "Suite 4", "lat": 47.6, "lng": -122.3}
    moved = ok(await client.patch(ME, json={"name": "New Name", "address": address}))
    assert (moved["name"], moved["address"], moved["description"]) == ("New Name", address, "Fine goods")
    assert ok(await client.patch(ME, json={"description": None}))["description"] is None
    assert ok(await client.get(ME)) == moved | {"description": None}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": 7}, "name"),
        ({"kyc_status": "verified"}, "kyc_status"),
        ({"subscription_active": True}, "subscription_active"),
        ({"type": "vendor"}, "type"),
        ({"address": {"line1": "x"}}, "address.city"),
    ],
)
async def test_profile_refuses_what_is_not_the_owners_to_set(api: Api, body: dict[str, Any], field: str) -> None:
    owner = await api.register()
    assert field in fields(problem(await api.as_(owner).patch(ME, json=body), 422, "validation_failed"))


async def test_profile_refuses_null_for_what_a_store_needs(api: Api) -> None:
    owner = await api.register()
    for field in ("name", "address"):
        problem(await api.as_(owner).patch(ME, json={field: None}), 422, "validation_failed")


async def test_unknown_media_is_not_found(api: Api) -> None:
    client = api.as_(await api.register())
    problem(await client.patch(ME, json={"logo_media_id": str(uuid4())}), 404, "not_found")
    problem(await client.patch("/api/v1/users/me", json={"avatar_media_id": str(uuid4())}), 404, "not_found")


async def test_own_names_change(api: Api) -> None:
    person = await api.register()
    changed = ok(await api.as_(person).patch("/api/v1/users/me", json={"first_name": "Augusta"}))
    assert changed == person.user | {"first_name": "Augusta"}
    assert ok(await api.as_(person).get("/api/v1/users/me")) == changed
    for body in ({"email": new_email()}, {"role": "admin"}, {"first_name": None}):
        problem(await api.as_(person).patch("/api/v1/users/me", json=body), 422, "validation_failed")


async def test_invited_person_sets_a_password_and_works_for_the_store(api: Api) -> None:
    owner = await api.register("vendor")
    body = invitation("manager")
    invited = created(await api.as_(owner).post(f"{USERS}/invite", json=body))
    assert invited["user"]["email"] == body["email"]
    assert invited["membership"]["role"] == "manager"
    problem(await api.http.post(LOGIN, json={"email": body["email"], "password": PASSWORD}), 401, "invalid_credentials")
    data = ok(await api.http.post(ACCEPT, json={"token": invited["invite_token"], "password": PASSWORD}))
    assert [store["id"] for store in data["stores"]] == [owner.store["id"]]
    mine = api.client(authorization=f"Bearer {data['tokens']['access_token']}")
    assert ok(await mine.patch(ME, json={"name": "Managed"}))["name"] == "Managed"
    ok(await api.http.post(LOGIN, json={"email": body["email"], "password": PASSWORD}))


async def test_invite_is_good_once(api: Api) -> None:
    owner = await api.register()
    token = created(await api.as_(owner).post(f"{USERS}/invite", json=invitation()))["invite_token"]
    body = {"token": token, "password": PASSWORD}
    statuses = [a.status_code for a in await asyncio.gather(*(api.http.post(ACCEPT, json=body) for _ in range(5)))]
    assert sorted(statuses) == [200, 409, 409, 409, 409]
    problem(await api.http.post(ACCEPT, json=body), 409, "state_conflict")
    problem(await api.http.post(ACCEPT, json=body | {"token": "made-up"}), 404, "not_found")


async def test_invite_expires_after_a_week(api: Api) -> None:
    owner = await api.register()
    token = created(await api.as_(owner).post(f"{USERS}/invite", json=invitation()))["invite_token"]
    later = (datetime.now(UTC) + timedelta(days=7, minutes=1)).isoformat()
    answer = await api.http.post(ACCEPT, json={"token": token, "password": PASSWORD}, headers={"x-now": later})
    problem(answer, 409, "state_conflict")


async def test_invite_never_changes_the_password_of_someone_known(api: Api) -> None:
    owner, person = await api.register(), await api.register()
    invited = created(await api.as_(owner).post(f"{USERS}/invite", json=invitation(email=person.email)))
    assert invited["user"]["id"] == person.user["id"]
    other = {"token": invited["invite_token"], "password": "another password"}
    problem(await api.http.post(ACCEPT, json=other), 401, "invalid_credentials")
    data = ok(await api.http.post(ACCEPT, json={"token": invited["invite_token"], "password": PASSWORD}))
    assert {store["id"] for store in data["stores"]} == {person.store["id"], owner.store["id"]}
    ok(await api.http.post(LOGIN, json={"email": person.email, "password": PASSWORD}))


async def test_an_invite_gives_no_more_guesses_of_a_password_than_signing_in(api: Api) -> None:
    owner, person = await api.register(), await api.register()
    invited = created(await api.as_(owner).post(f"{USERS}/invite", json=invitation(email=person.email)))
    use = {"token": invited["invite_token"], "password": "another password"}
    for _ in range(5):
        problem(await api.http.post(ACCEPT, json=use), 401, "invalid_credentials")
    problem(await api.http.post(ACCEPT, json=use | {"password": PASSWORD}), 429, "rate_limited")
    problem(await api.http.post(LOGIN, json={"email": person.email, "password": PASSWORD}), 429, "rate_limited")


async def test_member_is_not_invited_again(api: Api) -> None:
    owner, admin = await api.register(), await api.register_admin()
    staff = await hire(api, owner)
    for email in (staff.email, owner.email, admin.email):
        answer = await api.as_(owner).post(f"{USERS}/invite", json=invitation(email=email))
        problem(answer, 409, "already_exists")


async def test_invite_token_is_not_told_in_production(api: Api, api_settings: Settings) -> None:
    owner = await api.register()
    async with running(in_production(api_settings)) as production:
        answer = await production.as_(owner).post(f"{USERS}/invite", json=invitation())
        assert created(answer)["invite_token"] is None


async def test_roles_reach_as_far_as_they_should(api: Api) -> None:
    owner = await api.register()
    manager, staff, peer = await hire(api, owner, "manager"), await hire(api, owner), await hire(api, owner)
    await_forbidden = [
        api.as_(staff).patch(ME, json={"name": "Mine"}),
        api.as_(staff).post(f"{USERS}/invite", json=invitation()),
        api.as_(staff).delete(f"{USERS}/{peer.user['id']}"),
        api.as_(manager).post(f"{USERS}/invite", json=invitation("owner")),
        api.as_(manager).delete(f"{USERS}/{owner.user['id']}"),
    ]
    for answer in await asyncio.gather(*await_forbidden):
        problem(answer, 403, "forbidden")
    created(await api.as_(manager).post(f"{USERS}/invite", json=invitation("manager")))
    assert (await api.as_(manager).delete(f"{USERS}/{peer.user['id']}")).status_code == 204


async def test_removed_member_is_refused_on_the_next_call(api: Api) -> None:
    owner = await api.register()
    staff = await hire(api, owner)
    ok(await api.as_(staff).get(ME))
    assert (await api.as_(owner).delete(f"{USERS}/{staff.user['id']}")).status_code == 204
    problem(await api.as_(staff).get(ME), 403, "forbidden")
    data = ok(await api.http.post("/api/v1/auth/refresh", json={"refresh_token": staff.refresh_token}))
    assert data["active_store_id"] is None
    client = api.client(authorization=f"Bearer {data['tokens']['access_token']}")
    problem(await client.get(ME), 403, "active_store_required")
    body = {"refresh_token": data["tokens"]["refresh_token"], "store_id": owner.store["id"]}
    problem(await api.http.post("/api/v1/auth/refresh", json=body), 404, "not_found")


async def test_removed_member_may_come_back(api: Api) -> None:
    owner, person = await api.register(), await api.register()
    for _ in range(2):
        invited = created(await api.as_(owner).post(f"{USERS}/invite", json=invitation(email=person.email)))
        data = ok(await api.http.post(ACCEPT, json={"token": invited["invite_token"], "password": PASSWORD}))
        client = api.client(authorization=f"Bearer {data['tokens']['access_token']}")
        assert ok(await client.get(ME))["id"] == owner.store["id"]
        assert (await api.as_(owner).delete(f"{USERS}/{person.user['id']}")).status_code == 204
        problem(await client.get(ME), 403, "forbidden")


async def test_invite_of_someone_removed_is_void(api: Api) -> None:
    owner = await api.register()
    invited = created(await api.as_(owner).post(f"{USERS}/invite", json=invitation()))
    assert (await api.as_(owner).delete(f"{USERS}/{invited['user']['id']}")).status_code == 204
    answer = await api.http.post(ACCEPT, json={"token": invited["invite_token"], "password": PASSWORD})
    problem(answer, 404, "not_found")


async def test_last_owner_stays(api: Api) -> None:
    owner = await api.register()
    problem(await api.as_(owner).delete(f"{USERS}/{owner.user['id']}"), 409, "state_conflict")
    second = await hire(api, owner, "owner")
    removals = await asyncio.gather(
        api.as_(owner).delete(f"{USERS}/{second.user['id']}"),
        api.as_(second).delete(f"{USERS}/{owner.user['id']}"),
    )
    assert sorted(answer.status_code for answer in removals) == [204, 403]
    async with api.services.transaction() as tx:
        rows = await tx.scalars(select(Membership).where(Membership.store_id == UUID(owner.store["id"])))
        assert [row.role for row in rows] == ["owner"]


async def test_people_of_other_stores_are_not_found(api: Api) -> None:
    owner, other = await api.register(), await api.register()
    for user_id in (other.user["id"], str(uuid4()), "someone"):
        problem(await api.as_(owner).delete(f"{USERS}/{user_id}"), 404, "not_found")
    ok(await api.as_(other).get(ME))


async def test_people_are_listed_in_pages(api: Api) -> None:
    owner = await api.register()
    at = {"x-now": "2035-01-01T00:00:00Z"}
    invited = [
        created(await api.as_(owner).post(f"{USERS}/invite", json=invitation(), headers=at))["user"]["id"]
        for _ in range(5)
    ]
    seen, query = [], {"limit": 2}
    async for page in pages(api.as_(owner), query):
        seen += [row["user"]["id"] for row in page]
        assert all(row["membership"]["user_id"] == row["user"]["id"] for row in page)
    assert seen == [owner.user["id"], *sorted(invited)]


async def pages(client: httpx.AsyncClient, query: dict[str, Any]) -> AsyncIterator[list[dict[str, Any]]]:
    cursor = ""
    while cursor is not None:
        answer = (await client.get(USERS, params=query | ({"cursor": cursor} if cursor else {}))).json()
        yield answer["data"]
        cursor = answer["meta"]["next_cursor"]


async def test_changes_of_people_are_audited(api: Api) -> None:
    owner = await api.register()
    staff = await hire(api, owner)
    await api.as_(owner).delete(f"{USERS}/{staff.user['id']}")
    async with api.services.transaction() as tx:
        statement = select(AuditEntry).where(AuditEntry.object_id == staff.user["id"]).order_by(AuditEntry.id)
        entries = list(await tx.scalars(statement))
    assert [(entry.action, entry.actor) for entry in entries] == [
        ("member.invited", f"user:{owner.user['id']}"),
        ("member.removed", f"user:{owner.user['id']}"),
    ]
