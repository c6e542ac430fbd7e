"""Register, sign in, limits on guessing, and what Redis and forged addresses do to them."""

from __future__ import annotations

import asyncio
import json
import time
from uuid import uuid4

import jwt
import pytest
from argon2 import Parameters, PasswordHasher, extract_parameters
from sqlalchemy import func, select, update

from models.identity.tables import Membership, User
from models.stores.tables import Store
from ops.settings import Settings
from tests.api_driver import PASSWORD, Api, created, fields, new_email, ok, problem, registration, running

LOGIN = "/api/v1/auth/login"
REGISTER = "/api/v1/auth/register"
ADMIN_LOGIN = "/api/admin/auth/login"


async def test_register_makes_user_store_and_owner(api: Api) -> None:
    person = await api.register("vendor", email="New.Person-1@Example.Test")
    assert person.user["email"] == "new.person-1@example.test"
    assert person.user["role"] == "user"
    assert person.store["kyc_status"] == "pending"
    assert person.store["subscription_active"] is False
    assert person.store["created_at"].endswith("Z")
    assert person.tokens["token_type"] == "Bearer"
    assert person.tokens["expires_in"] == 900
    async with api.services.transaction() as tx:
        membership = (await tx.scalars(select(Membership).where(Membership.user_id == person.user["id"]))).one()
    assert (str(membership.store_id), membership.role) == (person.store["id"], "owner")
    assert ok(await api.as_(person).get("/api/v1/stores/me")) == person.store
    assert ok(await api.as_(person).get("/api/v1/users/me")) == person.user


async def test_state_is_kept_in_capitals(api: Api) -> None:
    body = registration()
    body["store"]["address"]["state"] = "ca"
    assert created(await api.http.post(REGISTER, json=body))["store"]["address"]["state"] == "CA"


async def test_email_is_taken_once_whatever_its_case(api: Api) -> None:
    email = new_email()
    bodies = [registration() | {"email": spelling} for spelling in (email, email.upper()) for _ in range(3)]
    answers = await asyncio.gather(*(api.http.post(REGISTER, json=body) for body in bodies))
    assert sorted(answer.status_code for answer in answers) == [201, *[409] * 5]
    problem(next(answer for answer in answers if answer.status_code == 409), 409, "already_exists")
    async with api.services.transaction() as tx:
        assert await tx.scalar(select(func.count()).select_from(User).where(User.email == email)) == 1


async def test_refused_register_leaves_no_store(alone: Api) -> None:
    person = await alone.register()
    problem(await alone.http.post(REGISTER, json=registration() | {"email": person.email}), 409, "already_exists")
    async with alone.services.transaction() as tx:
        assert await tx.scalar(select(func.count()).select_from(Store)) == 1


async def test_no_user_without_a_session(alone_settings: Settings) -> None:
    email = new_email()
    away = alone_settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    async with running(away) as api:
        problem(await api.http.post(REGISTER, json=registration() | {"email": email}), 503, "unavailable")
    async with running(alone_settings) as api:
        created(await api.http.post(REGISTER, json=registration() | {"email": email}))


async def test_login_gives_stores_and_tokens(api: Api) -> None:
    person = await api.register()
    data = ok(await api.http.post(LOGIN, json={"email": person.email.upper(), "password": PASSWORD}))
    assert data["user"] == person.user
    assert data["active_store_id"] == person.store["id"]
    assert data["stores"] == [
        {"id": person.store["id"], "name": person.store["name"], "type": "buyer", "role": "owner"}
    ]


async def test_login_to_a_foreign_store_is_not_found(api: Api) -> None:
    person, other = await api.register(), await api.register()
    for store_id in (other.store["id"], str(uuid4())):
        body = {"email": person.email, "password": PASSWORD, "store_id": store_id}
        problem(await api.http.post(LOGIN, json=body), 404, "not_found")
    malformed = {"email": person.email, "password": PASSWORD, "store_id": "x"}
    assert fields(problem(await api.http.post(LOGIN, json=malformed), 422, "validation_failed")) == {"store_id"}


async def test_access_token_has_the_promised_claims(api: Api) -> None:
    person = await api.register("vendor")
    claims = jwt.decode(person.access_token, options={"verify_signature": False})
    assert claims["sub"] == person.user["id"]
    assert (claims["typ"], claims["role"], claims["store_role"]) == ("access", "user", "owner")
    assert claims["store_id"] == person.store["id"]
    assert claims["exp"] - claims["iat"] == 900
    assert {"sid", "iss", "aud"} <= claims.keys()
    assert abs(claims["iat"] - time.time()) < 60


async def test_password_is_kept_as_argon2id(api: Api) -> None:
    person = await api.register()
    async with api.services.transaction() as tx:
        stored = (await tx.scalars(select(User.password_hash).where(User.email == person.email))).one()
    assert stored is not None
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")


async def test_login_hashes_anew_when_parameters_have_risen(api: Api) -> None:
    person = await api.register()
    weak = PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1).hash(PASSWORD)
    async with api.services.transaction() as tx:
        await tx.execute(update(User).where(User.email == person.email).values(password_hash=weak))
    ok(await api.http.post(LOGIN, json={"email": person.email, "password": PASSWORD}))
    async with api.services.transaction() as tx:
        stored = (await tx.scalars(select(User.password_hash).where(User.email == person.email))).one()
    assert stored is not None
    assert "m=19456,t=2" in stored
    ok(await api.http.post(LOGIN, json={"email": person.email, "password": PASSWORD}))


async def test_unknown_email_and_wrong_password_answer_alike(api: Api) -> None:
    person = await api.register()
    wrong = problem(
        await api.http.post(LOGIN, json={"email": person.email, "password": "wrong"}), 401, "invalid_credentials"
    )
    unknown = problem(
        await api.http.post(LOGIN, json={"email": new_email(), "password": "wrong"}), 401, "invalid_credentials"
    )
    assert {**wrong, "request_id": ""} == {**unknown, "request_id": ""}


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[Parameters]:
    """The Argon2 computations of the process, by what they cost, as they are done."""
    done: list[Parameters] = []
    verify, make = PasswordHasher.verify, PasswordHasher.hash

    def verifying(self: PasswordHasher, stored: str, password: str) -> bool:
        done.append(extract_parameters(stored))
        return verify(self, stored, password)

    def making(self: PasswordHasher, password: str) -> str:
        made = make(self, password)
        done.append(extract_parameters(made))
        return made

    monkeypatch.setattr(PasswordHasher, "verify", verifying)
    monkeypatch.setattr(PasswordHasher, "hash", making)
    return done


async def test_a_refused_sign_in_costs_one_password_check_whoever_it_names(api: Api, work: list[Parameters]) -> None:
    """Unknown, known, invited but never there, of another role: nobody tells them apart by the time it takes."""
    known, admin, invited = await api.register(), await api.register_admin(), new_email()
    body = {"email": invited, "first_name": "A", "last_name": "B", "role": "staff"}
    created(await api.as_(known).post("/api/v1/stores/me/users/invite", json=body))
    costs = []
    for path, email, password in (
        (LOGIN, known.email, "wrong"),
        (LOGIN, new_email(), "wrong"),
        (LOGIN, invited, "wrong"),
        (LOGIN, admin.email, PASSWORD),
        (ADMIN_LOGIN, known.email, PASSWORD),
        (ADMIN_LOGIN, new_email(), PASSWORD),
    ):
        work.clear()
        problem(await api.http.post(path, json={"email": email, "password": password}), 401, "invalid_credentials")
        costs.append([*work])
    (cost,) = costs[0]
    assert (cost.memory_cost, cost.time_cost, cost.parallelism) == (19_456, 2, 1)
    assert costs == [[cost]] * 6


async def guess(api: Api, email: str, *, address: str = "127.0.0.1", password: str = "wrong", **headers: str) -> int:
    async with api.client(address=address, **headers) as client:
        return (await client.post(LOGIN, json={"email": email, "password": password})).status_code


async def test_five_failures_close_an_email_from_everywhere(api: Api) -> None:
    person = await api.register()
    statuses = [await guess(api, person.email, address=f"10.0.0.{n}") for n in range(7)]
    assert statuses == [401] * 5 + [429] * 2
    answer = await api.http.post(LOGIN, json={"email": person.email, "password": PASSWORD})
    problem(answer, 429, "rate_limited")
    assert 0 < int(answer.headers["retry-after"]) <= 900
    other = await api.register()
    assert await guess(api, other.email, password=PASSWORD) == 200


async def test_unknown_email_is_closed_alike(api: Api) -> None:
    email = new_email()
    assert [await guess(api, email) for _ in range(6)] == [401] * 5 + [429]


async def test_parallel_guesses_get_no_more_answers(api: Api) -> None:
    person = await api.register()
    passwords = ["wrong"] * 24 + [PASSWORD]
    statuses = await asyncio.gather(
        *(guess(api, person.email, password=p, address=f"10.0.1.{n}") for n, p in enumerate(passwords))
    )
    assert sorted(statuses) == [401] * 5 + [429] * 20


async def test_people_who_sign_in_at_once_do_not_hinder_each_other(api: Api) -> None:
    person = await api.register()
    statuses = await asyncio.gather(*(guess(api, person.email, password=PASSWORD) for _ in range(25)))
    assert statuses == [200] * 25


async def test_success_does_not_reset_the_failures(api: Api) -> None:
    person = await api.register()
    passwords = ["wrong"] * 4 + [PASSWORD] + ["wrong"] * 2
    assert [await guess(api, person.email, password=p) for p in passwords] == [401] * 4 + [200, 401, 429]


async def test_twenty_failures_close_an_address(api: Api) -> None:
    person = await api.register()
    statuses = [await guess(api, new_email(), address="10.9.9.9") for _ in range(21)]
    assert statuses == [401] * 20 + [429]
    assert await guess(api, person.email, address="10.9.9.9", password=PASSWORD) == 429
    assert await guess(api, person.email, address="10.9.9.8", password=PASSWORD) == 200


async def test_forged_forwarded_address_resets_nothing(api: Api) -> None:
    statuses = [await guess(api, new_email(), **{"x-forwarded-for": f"203.0.113.{n}"}) for n in range(21)]
    assert statuses[-1] == 429


async def test_trusted_proxy_tells_the_client(api_settings: Settings) -> None:
    settings = api_settings.model_copy(update={"trusted_proxies": "127.0.0.0/8, 10.0.0.0/8"})
    async with running(settings) as api:
        hops = [{"x-forwarded-for": f"203.0.113.{n}, 198.51.100.7, 10.1.1.1"} for n in range(21)]
        assert [await guess(api, new_email(), **hop) for hop in hops][-1] == 429
        assert await guess(api, new_email(), **{"x-forwarded-for": "198.51.100.8"}) == 401


async def test_neighbours_in_an_ipv6_network_are_one_address(api: Api) -> None:
    statuses = [await guess(api, new_email(), address=f"2001:db8:1:2::{n:x}") for n in range(1, 22)]
    assert statuses == [401] * 20 + [429]
    assert await guess(api, new_email(), address="2001:db8:1:3::1") == 401


async def test_login_limits_are_not_scaled(api_settings: Settings) -> None:
    async with running(api_settings.model_copy(update={"rate_limit_scale": 1000.0})) as api:
        email = new_email()
        assert [await guess(api, email) for _ in range(6)] == [401] * 5 + [429]


async def test_login_limits_stay_on_the_wall_clock(api: Api) -> None:
    email = new_email()
    assert [await guess(api, email) for _ in range(5)] == [401] * 5
    assert await guess(api, email, **{"x-now": "2040-01-01T00:00:00Z"}) == 429


async def test_login_fails_closed_without_redis(api_settings: Settings) -> None:
    async with running(api_settings) as api:
        person = await api.register()
    async with running(api_settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})) as api:
        answer = await api.http.post(LOGIN, json={"email": person.email, "password": PASSWORD})
        problem(answer, 503, "unavailable")
        problem(await api.as_(person).get("/api/v1/stores/me"), 503, "unavailable")


async def test_requests_of_a_user_are_limited_by_scale(api_settings: Settings) -> None:
    async with running(api_settings.model_copy(update={"rate_limit_scale": 0.001})) as api:
        person = await api.register()
        client = api.as_(person)
        statuses = [(await client.get("/api/v1/users/me")).status_code for _ in range(8)]
        limited = await client.get("/api/v1/users/me")
    assert statuses[:6] == [200] * 6
    problem(limited, 429, "rate_limited")
    assert int(limited.headers["retry-after"]) >= 1


async def test_admin_has_a_login_of_their_own(api: Api) -> None:
    admin, person = await api.register_admin(), await api.register()
    data = ok(await api.http.post(ADMIN_LOGIN, json={"email": admin.email, "password": PASSWORD}))
    assert data["user"]["role"] == "admin"
    for path, email in ((ADMIN_LOGIN, person.email), (LOGIN, admin.email)):
        answer = await api.http.post(path, json={"email": email, "password": PASSWORD})
        problem(answer, 401, "invalid_credentials")


async def test_agent_signs_in_without_a_store(api: Api) -> None:
    admin = await api.register_admin()
    body = {"email": new_email(), "password": PASSWORD, "first_name": "Sam", "last_name": "Porter"}
    agent = created(await api.as_(admin).post("/api/admin/agents", json=body))
    assert agent["role"] == "agent"
    data = ok(await api.http.post(LOGIN, json={"email": body["email"], "password": PASSWORD}))
    assert (data["stores"], data["active_store_id"]) == ([], None)
    client = api.client(authorization=f"Bearer {data['tokens']['access_token']}")
    problem(await client.get("/api/v1/stores/me"), 403, "forbidden")


async def test_nothing_secret_is_at_rest_in_redis(api: Api) -> None:
    person = await api.register()
    await guess(api, person.email)
    refreshed = ok(await api.http.post("/api/v1/auth/refresh", json={"refresh_token": person.refresh_token}))
    secrets = [
        PASSWORD,
        person.email,
        person.refresh_token,
        person.access_token,
        refreshed["tokens"]["refresh_token"],
        refreshed["tokens"]["access_token"],
    ]
    link = api.services.redis
    kept = []
    for key in await link.execute("KEYS", "*"):
        kind = await link.execute("TYPE", key)
        read = {
            b"string": ("GET", key),
            b"hash": ("HGETALL", key),
            b"zset": ("ZRANGE", key, 0, -1),
        }[kind]
        kept.append(repr((key, await link.execute(*read))))
    assert kept
    assert not [secret for secret in secrets if secret in json.dumps(kept)]
