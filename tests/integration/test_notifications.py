"""What stores hear of, over HTTP, and when it is forgotten."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from agents.housekeeping.notifications import forget_notifications
from models.database import make_sessions
from models.errors import NotFound
from models.notifications import writes
from ops.settings import Settings
from schemas.records import NotificationRequested
from tests.agent_site import make_store, notice, rows
from tests.api_driver import Api, new_email, ok, problem

URL = "/api/v1/notifications"


@pytest.fixture
async def engine(api_settings: Settings) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(api_settings.sqlalchemy_url)
    yield engine
    await engine.dispose()


async def tell(engine: AsyncEngine, *events: NotificationRequested) -> None:
    for event in events:
        async with make_sessions(engine).begin() as tx:
            await writes.tell(tx, event, now=datetime.now(UTC))


def at(event: NotificationRequested, when: datetime) -> NotificationRequested:
    fields = {name: getattr(event, name) for name in event.__dataclass_fields__}
    return NotificationRequested(**(fields | {"occurred_at": when}))


async def test_a_store_reads_its_notifications_page_by_page_newest_first(api: Api, engine: AsyncEngine) -> None:
    owner = await api.register("vendor")
    store, when = UUID(owner.store["id"]), datetime.now(UTC)
    events = [at(notice(store, number=str(n), order_id=f"o-{n}"), when) for n in range(5)]  # all in the same instant
    await tell(engine, *events, notice((await make_store(engine)).id))
    client, titles, cursor = api.as_(owner), [], ""
    for _ in range(3):
        page = await client.get(f"{URL}?limit=2{cursor}")
        titles += [entry["title"] for entry in ok(page)]
        cursor = f"&cursor={page.json()['meta']['next_cursor']}"
    assert titles == [f"Order {n} delivered" for n in (4, 3, 2, 1, 0)]
    assert page.json()["meta"]["next_cursor"] is None
    (newest, *_) = ok(await client.get(URL))
    assert newest.keys() == {"id", "kind", "title", "body", "link", "read_at", "created_at"}
    assert (newest["kind"], newest["link"], newest["read_at"]) == ("order_delivered", "/orders/o-4", None)
    assert newest["created_at"].endswith("Z")


async def test_reading_is_the_stores_and_happens_once(api: Api, engine: AsyncEngine) -> None:
    owner, stranger = await api.register("vendor"), await api.register("vendor")
    await tell(engine, *(notice(UUID(owner.store["id"])) for _ in range(3)))
    client = api.as_(owner)
    first, second, third = ok(await client.get(f"{URL}?unread=true"))
    read = ok(await client.post(f"{URL}/{first['id']}/read"))
    assert read["read_at"] is not None
    assert ok(await client.post(f"{URL}/{first['id']}/read")) == read
    assert [entry["id"] for entry in ok(await client.get(f"{URL}?unread=true"))] == [second["id"], third["id"]]
    problem(await api.as_(stranger).post(f"{URL}/{second['id']}/read"), 404, "not_found")
    assert ok(await api.as_(stranger).post(f"{URL}/read-all")) == {"read": 0}
    assert ok(await client.post(f"{URL}/read-all")) == {"read": 2}
    assert ok(await client.get(f"{URL}?unread=true")) == []
    assert len(ok(await client.get(URL))) == 3
    assert ok(await client.get(URL))[-1]["id"] == third["id"]


async def test_bad_requests_are_refused(api: Api) -> None:
    client = api.as_(await api.register())
    for query in ("limit=0", "limit=-1", "limit=1000000000", "cursor=made-up", "unread=perhaps"):
        problem(await client.get(f"{URL}?{query}"), 422, "validation_failed")
    problem(await client.post(f"{URL}/{uuid4()}/read"), 404, "not_found")
    problem(await client.post(f"{URL}/no-id/read"), 404, "not_found")
    problem(await api.http.get(URL), 401, "unauthenticated")
    problem(await api.as_(await api.register_admin()).get(URL), 403, "forbidden")


async def test_kinds_by_mail_ask_for_one_to_each_who_runs_the_store(api: Api, engine: AsyncEngine) -> None:
    store = await make_store(engine, owner=new_email(), manager=new_email(), staff=new_email())
    owner, manager, _ = store.users.values()
    await tell(engine, notice(store.id, "license_expired", number="L-1"), notice(store.id, "order_delivered"))
    asked = await rows(
        engine,
        "SELECT count(*) FROM outbox_events WHERE aggregateid = :id AND type = 'email_requested'",
        id=str(store.id),
    )
    assert asked == [(2,)]
    payloads = await rows(engine, "SELECT payload FROM outbox_events WHERE aggregateid = :id", id=str(store.id))
    for address in store.users:
        assert not any(address.encode() in row[0] for row in payloads)
    assert all(any(str(user).encode() in row[0] for row in payloads) for user in (owner, manager))


async def test_an_unknown_kind_or_store_is_an_error(engine: AsyncEngine) -> None:
    with pytest.raises(ValueError, match="no_such_kind"):
        await tell(engine, notice((await make_store(engine)).id, "no_such_kind"))
    with pytest.raises(NotFound):
        await tell(engine, notice(uuid4()))


async def test_a_month_later_it_is_forgotten(engine: AsyncEngine) -> None:
    store, now = (await make_store(engine)).id, datetime.now(UTC)
    old, kept = at(notice(store), now - timedelta(days=31)), at(notice(store), now - timedelta(days=29))
    await tell(engine, old, kept)
    async with make_sessions(engine).begin() as tx:
        assert await forget_notifications(tx, now=now, wall=now) >= 1
    assert await rows(engine, "SELECT event_id FROM notifications WHERE store_id = :id", id=store) == [(kept.event_id,)]
