"""Operations over HTTP: the test clock, the overview, dead letters, who may see them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from api.app import create_app
from models import positions
from models.ads import reconciling
from models.audit import AuditEntry
from models.database import make_engine, make_sessions, new_id
from models.dead_letters import DeadLetter, Letter, park
from models.outbox import OutboxEvent
from models.positions import Position
from ops.settings import Settings
from schemas.codec import encode
from schemas.records import SubscriptionChanged
from tests.api_driver import PASSWORD, Api, created, fields, new_email, ok, problem, running

CLOCK = "/api/admin/ops/clock"
LETTERS = "/api/admin/ops/dead-letters"


@pytest.fixture
async def admin(alone: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with alone.as_(await alone.register_admin()) as client:
        yield client


async def set_clock(client: httpx.AsyncClient, now: datetime | str | None) -> httpx.Response:
    return await client.post(CLOCK, json={"now": now.isoformat() if isinstance(now, datetime) else now})


async def logical_now(api: Api) -> datetime:
    """As a store that is created now shows it."""
    return datetime.fromisoformat((await api.register()).store["created_at"])


async def test_clock_is_followed_at_once_and_runs_on(alone: Api, admin: httpx.AsyncClient) -> None:
    target = datetime(2035, 1, 1, tzinfo=UTC)
    assert datetime.fromisoformat(ok(await set_clock(admin, target))["now"]) >= target
    first = await logical_now(alone)
    await asyncio.sleep(0.2)
    second = await logical_now(alone)
    assert target <= first < second < target + timedelta(seconds=30)


async def test_clock_is_followed_by_other_processes(
    alone: Api, admin: httpx.AsyncClient, alone_settings: Settings
) -> None:
    target = datetime(2035, 1, 1, tzinfo=UTC)
    async with running(alone_settings) as other:
        ok(await set_clock(admin, target))
        await asyncio.sleep(0.25)
        assert other.services.clock.now() >= target


async def test_clock_only_moves_forward(alone: Api, admin: httpx.AsyncClient) -> None:
    target = datetime(2035, 1, 1, tzinfo=UTC)
    ok(await set_clock(admin, target))
    problem(await set_clock(admin, target - timedelta(seconds=1)), 409, "state_conflict")
    problem(await set_clock(admin, datetime.now(UTC)), 409, "state_conflict")
    ok(await set_clock(admin, target + timedelta(days=1)))
    assert await logical_now(alone) >= target + timedelta(days=1)


async def test_clock_let_go_ahead_of_the_wall_stands_until_the_wall_is_later(
    alone: Api, admin: httpx.AsyncClient
) -> None:
    ahead = datetime.now(UTC) + timedelta(seconds=3)
    ok(await set_clock(admin, ahead))
    held = datetime.fromisoformat(ok(await set_clock(admin, None))["now"])
    assert held >= ahead
    assert alone.services.clock.now() - held < timedelta(seconds=1)
    await asyncio.sleep((held - datetime.now(UTC)).total_seconds() + 0.3)
    assert abs(alone.services.clock.now() - datetime.now(UTC)) < timedelta(seconds=0.2)


@pytest.mark.parametrize("body", [{}, {"now": "soon"}, {"now": 1_700_000_000}, {"now": "2035-01-01"}, {"now": True}])
async def test_malformed_clock_time_is_refused(alone: Api, admin: httpx.AsyncClient, body: dict[str, Any]) -> None:
    assert fields(problem(await admin.post(CLOCK, json=body), 422, "validation_failed")) == {"now"}


async def test_clock_is_for_admins(alone: Api) -> None:
    person = await alone.register()
    problem(await set_clock(alone.as_(person), None), 403, "forbidden")
    problem(await alone.http.post(CLOCK, json={"now": None}), 401, "unauthenticated")


async def test_overview_shows_what_waits(alone: Api, admin: httpx.AsyncClient) -> None:
    calm = ok(await admin.get("/api/admin/ops/overview"))
    assert calm["relay"] == {"pending": 0, "oldest_ms": 0, "parked_aggregates": 0}
    assert calm["dead_letters"] == {"parked": 0, "replayed": 0, "discarded": 0}
    await park_letters(alone, 2)
    async with alone.services.transaction() as tx:
        row = OutboxEvent(
            id=uuid4(),
            aggregatetype="stores",
            aggregateid="1",
            type="subscription_changed",
            payload=b"",
            lane=0,
            headers={},
            occurred_at=datetime.now(UTC),
        )
        tx.add(row)
    for partition, applied in ((0, 41), (1, -1)):
        await _as_owner(alone, partial(say_position, partition=partition, applied=applied))
    await _as_owner(alone, partial(say_position, partition=1, applied=7))  # the last word counts
    busy = ok(await admin.get("/api/admin/ops/overview"))
    (agent,) = busy["agents"]
    assert (agent["agent"], agent["topic"], agent["lag"]) == ("media", "packstream.media", 8 + 42)
    assert [(row["partition"], row["applied_offset"], row["end_offset"]) for row in agent["partitions"]] == [
        (0, 41, 50),
        (1, 7, 50),
    ]
    assert busy["relay"]["pending"] == 1
    assert busy["dead_letters"]["parked"] == 2


async def say_position(tx: AsyncSession, *, partition: int, applied: int) -> None:
    said = Position("media", "packstream.media", partition, applied, 50)
    await positions.keep(tx, [said], worker="test:1", wall=datetime.now(UTC))


async def _as_owner(api: Api, work: Callable[[AsyncSession], Awaitable[None]]) -> None:
    """What an agent does, in the role of agents."""
    engine = make_engine(api.services.settings.sqlalchemy_url, pool_size=1, application="test")
    async with make_sessions(engine).begin() as tx:
        await work(tx)
    await engine.dispose()


async def park_letters(api: Api, count: int) -> list[UUID]:
    """Dead letters of an agent, oldest first, all of the same moment."""
    wall = datetime.now(UTC)
    letters = []
    for offset in range(count):
        event = SubscriptionChanged(event_id=new_id(), occurred_at=wall, actor="test", store_id=uuid4(), active=True)
        letters.append(
            Letter(
                source="billing",
                topic="packstream.stores",
                partition=0,
                offset=offset,
                key=str(event.store_id),
                reason="refused",
                error="no such customer",
                payload=encode(event),
                event_id=event.event_id,
                event_type=event.event_type,
            )
        )
    await _as_owner(api, lambda tx: park(tx, letters, wall=wall))
    async with api.services.transaction() as tx:
        return list(await tx.scalars(select(DeadLetter.id).order_by(DeadLetter.id)))


async def test_letters_are_listed_in_pages(alone: Api, admin: httpx.AsyncClient) -> None:
    ids = {str(id_) for id_ in await park_letters(alone, 7)}
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(4):
        query = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = (await admin.get(LETTERS, params=query)).json()
        seen += [letter["id"] for letter in page["data"]]
        cursor = page["meta"]["next_cursor"]
        if cursor is None:
            break
    assert (len(seen), set(seen)) == (7, ids)


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "cursor=abc", "cursor=%00", "status=lost"])
async def test_malformed_page_is_refused(alone: Api, admin: httpx.AsyncClient, query: str) -> None:
    answer = await admin.get(f"{LETTERS}?{query}")
    assert fields(problem(answer, 422, "validation_failed")) == {query.partition("=")[0]}


async def test_cursor_of_another_list_or_changed_is_refused(alone: Api, admin: httpx.AsyncClient) -> None:
    await park_letters(alone, 2)
    cursor = (await admin.get(LETTERS, params={"limit": 1})).json()["meta"]["next_cursor"]
    other = alone.services.cursors.issue("orders", ["2035-01-01T00:00:00+00:00", str(uuid4())])
    for forged in (other, cursor[:-2] + "zz", cursor[4:]):
        problem(await admin.get(LETTERS, params={"cursor": forged}), 422, "validation_failed")
    ok(await admin.get(LETTERS, params={"cursor": cursor}))


async def test_letter_is_shown_with_its_record(alone: Api, admin: httpx.AsyncClient) -> None:
    (letter_id,) = await park_letters(alone, 1)
    letter = ok(await admin.get(f"{LETTERS}/{letter_id}"))
    assert (letter["source"], letter["offset"], letter["status"]) == ("billing", 0, "parked")
    assert letter["payload"].startswith("c301")
    assert letter["decoded"]["store_id"] == letter["key"]


async def test_replay_publishes_once_and_is_audited(alone: Api, admin: httpx.AsyncClient) -> None:
    (letter_id,) = await park_letters(alone, 1)
    first = ok(await admin.post(f"{LETTERS}/{letter_id}/replay"))
    second = ok(await admin.post(f"{LETTERS}/{letter_id}/replay"))
    assert first["status"] == second["status"] == "replayed"
    async with alone.services.transaction() as tx:
        assert [str(id_) for id_ in await tx.scalars(select(OutboxEvent.id))] == [first["event_id"]]
        entries = list(await tx.scalars(select(AuditEntry).where(AuditEntry.object_id == str(letter_id))))
    assert [entry.action for entry in entries] == ["dead_letter.replay"]
    problem(await admin.post(f"{LETTERS}/{letter_id}/discard", json={"reason": "late"}), 409, "state_conflict")


async def test_discard_needs_a_reason_and_keeps_it(alone: Api, admin: httpx.AsyncClient) -> None:
    (letter_id,) = await park_letters(alone, 1)
    path = f"{LETTERS}/{letter_id}/discard"
    for body in ({}, {"reason": " "}, {"reason": 5}):
        assert fields(problem(await admin.post(path, json=body), 422, "validation_failed")) == {"reason"}
    letter = ok(await admin.post(path, json={"reason": "a test record"}))
    assert (letter["status"], letter["decision_reason"]) == ("discarded", "a test record")
    problem(await admin.post(path, json={"reason": "again"}), 409, "state_conflict")
    problem(await admin.post(f"{LETTERS}/{letter_id}/replay"), 409, "state_conflict")


@pytest.mark.parametrize("letter_id", [str(uuid4()), "abc", "1"])
async def test_unknown_letter_is_not_found(alone: Api, admin: httpx.AsyncClient, letter_id: str) -> None:
    problem(await admin.get(f"{LETTERS}/{letter_id}"), 404, "not_found")
    problem(await admin.post(f"{LETTERS}/{letter_id}/replay"), 404, "not_found")


async def test_reconciliation_gives_the_last_report(alone: Api, admin: httpx.AsyncClient) -> None:
    path = "/api/admin/ops/reconciliation"
    problem(await admin.get(path, params={"day": "2035-01-01"}), 404, "not_found")
    for day in ("", "yesterday", "20350101", "2035-13-01", "1700000000"):
        assert fields(problem(await admin.get(path, params={"day": day}), 422, "validation_failed")) == {"day"}
    report = {
        "day": "2035-01-01",
        "ok": True,
        "closed": False,
        "accepted": 3,
        "impressions": None,
        "clicks": None,
        "spend_micros": None,
        "adjustments": 0,
        "differences": [],
    }
    day, now = datetime(2035, 1, 1, tzinfo=UTC).date(), datetime.now(UTC)
    await _as_owner(alone, lambda tx: reconciling.keep_report(tx, day, report, cleared=False, now=now))
    assert ok(await admin.get(path, params={"day": "2035-01-01"})) == report


async def test_admin_and_agent_routes_refuse_everyone_else(alone: Api) -> None:
    """Every route under /api/admin and /api/v1/agent, as the document has them, for every kind of caller."""
    admin, buyer, vendor = await alone.register_admin(), await alone.register(), await alone.register("vendor")
    body = {"email": new_email(), "password": PASSWORD, "first_name": "A", "last_name": "B"}
    created(await alone.as_(admin).post("/api/admin/agents", json=body))
    agent = ok(await alone.http.post("/api/v1/auth/login", json={"email": body["email"], "password": PASSWORD}))
    callers = {
        "buyer": buyer.access_token,
        "vendor": vendor.access_token,
        "agent": agent["tokens"]["access_token"],
        "admin": admin.access_token,
    }
    checked = 0
    for path, methods in create_app(alone.services.settings).openapi()["paths"].items():
        area = "admin" if path.startswith("/api/admin/") else "agent" if path.startswith("/api/v1/agent/") else None
        if area is None or path.startswith("/api/admin/auth/"):
            continue
        for method in methods:
            url = path.replace("{", "").replace("}", "")
            problem(await alone.http.request(method, url, json={}), 401, "unauthenticated")
            for kind, token in callers.items():
                headers = {"authorization": f"Bearer {token}"}
                answer = await alone.http.request(method, url, json={}, headers=headers)
                if kind == area:
                    assert answer.status_code not in (401, 403), (method, path, kind)
                else:
                    problem(answer, 403, "forbidden")
                checked += 1
    assert checked >= 4 * 7
