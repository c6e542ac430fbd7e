"""Access tokens, refresh families, active stores, sign-out."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
import pytest

from models.identity import reads, writes
from models.identity.rules import StoreRole
from tests.api_driver import PASSWORD, Api, Person, forged, ok, problem

REFRESH = "/api/v1/auth/refresh"
LOGIN = "/api/v1/auth/login"
ME = "/api/v1/stores/me"


async def refresh(api: Api, token: str, **more: Any) -> httpx.Response:
    return await api.http.post(REFRESH, json={"refresh_token": token} | more)


async def get(api: Api, token: str, path: str = ME) -> httpx.Response:
    return await api.http.get(path, headers={"authorization": f"Bearer {token}"})


async def age_used_tokens(api: Api, seconds: float) -> None:
    """As if every used refresh token had been used `seconds` earlier."""
    link = api.services.redis
    for key in await link.execute("KEYS", "refresh:*"):
        used = await link.execute("HGET", key, "used_ms")
        if used is not None:
            await link.execute("HSET", key, "used_ms", int(used) - int(seconds * 1000))


async def join(api: Api, person: Person, store: dict[str, Any], role: StoreRole = StoreRole.STAFF) -> None:
    async with api.services.transaction() as tx:
        await writes.add_member(tx, UUID(store["id"]), UUID(person.user["id"]), role, now=api.services.clock.now())


async def test_forged_token_is_refused(api: Api) -> None:
    person = await api.register()
    ok(await get(api, forged(api, person)))  # the forger's tools work
    tokens = [
        "",
        "nonsense",
        "a.b.c",
        person.access_token[:-4] + "AAAA",
        forged(api, person, key=b"x" * 32),
        forged(api, person, algorithm="none"),
        forged(api, person, key=b"x" * 64, algorithm="HS512"),
        forged(api, person, typ="refresh"),
        forged(api, person, typ="ad"),
        forged(api, person, iss="someone"),
        forged(api, person, aud="something"),
        forged(api, person, sub=None),
        forged(api, person, sid=None),
        forged(api, person, exp=None),
        forged(api, person, role="god"),
        forged(api, person, store_id="1"),
        "x" * 5000,
    ]
    for token in tokens:
        answer = await get(api, token)
        problem(answer, 401, "unauthenticated")
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("header", [None, "", "Bearer", "Basic abc", "Token x"])
async def test_missing_token_is_refused(api: Api, header: str | None) -> None:
    headers = {} if header is None else {"authorization": header}
    problem(await api.http.get(ME, headers=headers), 401, "unauthenticated")


async def test_expired_token_says_so_even_when_it_was_seen_before(api: Api) -> None:
    person = await api.register()
    token = forged(api, person, exp=int(time.time()) + 2)
    ok(await get(api, token))
    await asyncio.sleep(2.1)
    problem(await get(api, token), 401, "token_expired")
    problem(await get(api, forged(api, person, exp=int(time.time()) - 1)), 401, "token_expired")


async def test_refresh_rotates(api: Api) -> None:
    person = await api.register()
    data = ok(await refresh(api, person.refresh_token))
    assert data["active_store_id"] == person.store["id"]
    assert data["tokens"]["refresh_token"] != person.refresh_token
    assert data["tokens"].keys() == {"access_token", "refresh_token", "token_type", "expires_in"}
    ok(await get(api, data["tokens"]["access_token"]))
    ok(await refresh(api, data["tokens"]["refresh_token"]))


async def test_parallel_refreshes_have_one_winner_and_one_answer(api: Api) -> None:
    person = await api.register()
    answers = [ok(a) for a in await asyncio.gather(*(refresh(api, person.refresh_token) for _ in range(20)))]
    assert len({answer["tokens"]["refresh_token"] for answer in answers}) == 1
    assert len({answer["tokens"]["access_token"] for answer in answers}) == 1
    ok(await refresh(api, answers[0]["tokens"]["refresh_token"]))


async def test_lost_answer_is_given_again_within_the_grace(api: Api) -> None:
    person = await api.register()
    first = ok(await refresh(api, person.refresh_token))
    await age_used_tokens(api, 9)
    assert ok(await refresh(api, person.refresh_token)) == first


async def test_used_token_ends_its_family_after_the_grace(api: Api) -> None:
    person = await api.register()
    other = ok(await api.http.post(LOGIN, json={"email": person.email, "password": PASSWORD}))["tokens"]
    tokens = ok(await refresh(api, person.refresh_token))["tokens"]
    await age_used_tokens(api, 10.5)
    problem(await refresh(api, person.refresh_token), 401, "session_revoked")
    problem(await get(api, tokens["access_token"]), 401, "session_revoked")
    problem(await refresh(api, tokens["refresh_token"]), 401, "session_revoked")
    ok(await get(api, other["access_token"]))


async def test_token_used_generations_ago_ends_its_family(api: Api) -> None:
    person = await api.register()
    token = person.refresh_token
    for _ in range(3):
        token = ok(await refresh(api, token))["tokens"]["refresh_token"]
    await age_used_tokens(api, 60)
    problem(await refresh(api, person.refresh_token), 401, "session_revoked")
    problem(await refresh(api, token), 401, "session_revoked")


@pytest.mark.parametrize("token", ["made-up", "x" * 43])
async def test_unknown_refresh_token_is_refused(api: Api, token: str) -> None:
    problem(await refresh(api, token), 401, "unauthenticated")


async def test_access_token_does_not_refresh_nor_refresh_token_enter(api: Api) -> None:
    person = await api.register()
    problem(await refresh(api, person.access_token[:500]), 401, "unauthenticated")
    problem(await get(api, person.refresh_token), 401, "unauthenticated")


async def test_refresh_switches_the_active_store(api: Api) -> None:
    person, host = await api.register(), await api.register("vendor")
    await join(api, person, host.store, StoreRole.MANAGER)
    data = ok(await refresh(api, person.refresh_token, store_id=host.store["id"]))
    assert data["active_store_id"] == host.store["id"]
    assert ok(await get(api, data["tokens"]["access_token"]))["id"] == host.store["id"]
    again = ok(await refresh(api, data["tokens"]["refresh_token"]))
    assert again["active_store_id"] == host.store["id"]


async def test_switch_to_a_foreign_store_is_not_found_and_uses_nothing_up(api: Api) -> None:
    person, other = await api.register(), await api.register()
    for store_id in (other.store["id"], str(uuid4())):
        problem(await refresh(api, person.refresh_token, store_id=store_id), 404, "not_found")
    await age_used_tokens(api, 60)
    ok(await refresh(api, person.refresh_token))


async def test_no_store_is_active_until_one_of_several_is_chosen(api: Api) -> None:
    person, host = await api.register(), await api.register()
    await join(api, person, host.store)
    data = ok(await api.http.post(LOGIN, json={"email": person.email, "password": PASSWORD}))
    assert data["active_store_id"] is None
    assert {store["id"] for store in data["stores"]} == {person.store["id"], host.store["id"]}
    problem(await get(api, data["tokens"]["access_token"]), 403, "active_store_required")
    chosen = ok(await refresh(api, data["tokens"]["refresh_token"], store_id=person.store["id"]))
    ok(await get(api, chosen["tokens"]["access_token"]))


async def test_logout_ends_the_session_at_once(api: Api) -> None:
    person = await api.register()
    other = ok(await api.http.post(LOGIN, json={"email": person.email, "password": PASSWORD}))["tokens"]
    answer = await api.as_(person).post("/api/v1/auth/logout")
    assert (answer.status_code, answer.content) == (204, b"")
    problem(await get(api, person.access_token), 401, "session_revoked")
    problem(await refresh(api, person.refresh_token), 401, "session_revoked")
    ok(await get(api, other["access_token"]))


async def test_all_sessions_end_when_redis_is_emptied(api: Api) -> None:
    person = await api.register()
    await api.services.redis.execute("FLUSHDB")
    problem(await get(api, person.access_token), 401, "session_revoked")
    problem(await refresh(api, person.refresh_token), 401, "unauthenticated")


async def test_sign_in_stays_on_the_wall_clock(api: Api) -> None:
    person = await api.register()
    later = {"x-now": "2040-01-01T00:00:00Z"}
    ok(await api.as_(person).get(ME, headers=later))
    data = ok(await api.http.post(REFRESH, json={"refresh_token": person.refresh_token}, headers=later))
    claims = jwt.decode(data["tokens"]["access_token"], options={"verify_signature": False})
    assert abs(claims["iat"] - time.time()) < 60


async def test_member_of_the_database_is_what_a_session_sees(api: Api) -> None:
    person = await api.register()
    async with api.services.transaction() as tx:
        stores = await reads.stores_of(tx, UUID(person.user["id"]))
    assert [str(store.id) for store in stores] == [person.store["id"]]
