"""The order_ttl agent on a real Kafka and Postgres, by the test clock: what is due happens, once, and never early."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from models.clock import logical_now
from models.database import new_id
from schemas.records import OrderNudged
from streams.topics import ORDER_TTL, ORDERS
from tests.ad_stream import WorkerProcess, eventually
from tests.agent_site import Site, direct, execute, rows, running_site
from tests.api_driver import ok, running
from tests.order_clock import HALF, TTL, Market
from tests.order_driver import step
from tests.relay_process import Relay
from tests.unit.test_timers import snapshot

NEVER = {"ORDER_SWEEP_GRACE_S": "100000000"}  #: the sweep leaves all to the timers
SECOND = timedelta(seconds=1)
REASONS = ("undecodable", "unknown_order", "unknown_schema")  #: of dead letters


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with running_site() as found:
        yield found


@pytest.fixture(scope="module")
def relay(site: Site) -> Iterator[Relay]:
    relay = Relay(site.settings, site.root, **NEVER).wait_ready()
    yield relay
    relay.kill()


@pytest.fixture(scope="module")
def worker(site: Site, relay: Relay) -> Iterator[WorkerProcess]:
    worker = WorkerProcess(site.environment, site.root, arguments=("--agents", ORDER_TTL))
    worker.start()
    yield worker
    worker.kill()


@pytest.fixture
async def market(site: Site, worker: WorkerProcess) -> AsyncIterator[Market]:
    await worker.ready()
    async with running(site.settings) as api:
        yield await Market.opened(api)


async def test_a_vendor_is_nudged_at_half_time_and_the_order_expires_at_its_end(market: Market) -> None:
    start = await market.clock()
    first, second = await market.place(start), await market.place(start + timedelta(minutes=10))
    await market.move(start + HALF + SECOND)

    async def nudged() -> object:
        found = await market.happened(first)
        return found == {("order_nudged", first.id): 1} or found

    await eventually(nudged)
    assert (await market.row(first)).nudged_at >= start + HALF
    assert await market.happened(second) == {}
    assert await market.heard(first) == [(market.vendor.store["id"], "order_nudged")]
    await market.move(start + TTL + SECOND)

    async def expired() -> object:
        found = await market.happened(first, second)
        wanted = {("order_nudged", first.id): 1, ("order_expired", first.id): 1, ("order_nudged", second.id): 1}
        return found == wanted or found

    await eventually(expired)
    row = await market.row(first)
    assert (row.status, row.intent, row.reserved) == ("expired", "canceled", 0)
    assert row.expired_at >= row.expires_at == start + TTL
    assert sorted(await market.heard(first)) == sorted(
        [
            (market.vendor.store["id"], "order_nudged"),
            (market.vendor.store["id"], "order_expired"),
            (market.buyer.store["id"], "order_expired"),
        ]
    )
    still = await market.row(second)
    assert (still.status, still.intent, still.reserved) == ("pending", "unpaid", 3)
    assert {event.actor for event in await market.events(first, second)} == {ORDER_TTL}


async def test_a_decided_order_does_not_expire_and_one_that_the_buyer_nudged_is_not_nudged_again(
    market: Market,
) -> None:
    start = await market.clock()
    decided, nudged, left = [await market.place(start) for _ in range(3)]
    await step(market.api, market.vendor, decided.id, "decision", {"decision": "accept"}, now=start + SECOND)
    await step(market.api, market.buyer, nudged.id, "nudge", now=start + SECOND)
    await market.move(start + HALF + SECOND)

    async def half() -> object:
        found = await market.happened(left)
        return found == {("order_nudged", left.id): 1} or found

    await eventually(half)
    await market.move(start + TTL + SECOND)

    async def over() -> object:
        found = await market.happened(nudged, left)
        wanted = {(kind, order.id): 1 for order in (nudged, left) for kind in ("order_nudged", "order_expired")}
        return found == wanted or found

    await eventually(over)
    assert await market.happened(decided) == {("order_decided", decided.id): 1}
    assert (await market.row(decided)).status == "accepted"
    by = {(event.event_type, str(event.order.order_id)): event.actor for event in await market.events(nudged, left)}
    assert by["order_nudged", nudged.id] != ORDER_TTL
    assert by["order_nudged", left.id] == ORDER_TTL


async def test_an_order_that_is_past_its_end_when_the_worker_comes_back_expires_and_is_not_nudged(
    market: Market, worker: WorkerProcess
) -> None:
    start = await market.clock()
    known, missed = await market.place(start), await market.place(start + 2 * HALF)
    await market.move(start + HALF + SECOND)

    async def folded() -> object:
        found = await market.happened(known)
        return found == {("order_nudged", known.id): 1} or found

    await eventually(folded)
    worker.stop()
    await market.move(start + 2 * HALF + TTL + SECOND)
    worker.start()
    await worker.ready()

    async def expired() -> object:
        found = await market.happened(known, missed)
        wanted = {("order_nudged", known.id): 1, ("order_expired", known.id): 1, ("order_expired", missed.id): 1}
        return found == wanted or found

    await eventually(expired)
    assert {event.actor for event in await market.events(known, missed)} == {ORDER_TTL}


async def test_bad_records_become_dead_letters_and_nothing_else_is_lost(
    site: Site, market: Market, engine: AsyncEngine
) -> None:
    start = await market.clock()
    stranger = snapshot(new_id())
    unknown = OrderNudged(
        event_id=new_id(), occurred_at=start, actor="test", checkout_group_id=stranger.checkout_group_id, order=stranger
    )
    async with direct(site.environment["KAFKA_BROKERS"]) as kafka:
        await kafka.send_bytes(ORDERS, "1", b"not avro")
        await kafka.send_bytes(ORDERS, "1", None)
        await kafka.send_bytes(ORDERS, "1", b"\xc3\x01" + b"\0" * 20)
        await kafka.send(unknown)

    async def kept() -> object:
        found = await letters(engine)
        return found == {reason: {("parked", 1, False)} for reason in REASONS} or found

    await eventually(kept)
    order = await market.place(start)
    await introduce(engine, order.id, stranger.order_id)
    async with market.api.as_(market.admin) as client:
        for (letter_id,) in await rows(engine, "SELECT id FROM dead_letters WHERE source = :me", me=ORDER_TTL):
            ok(await client.post(f"/api/admin/ops/dead-letters/{letter_id}/replay"))

    async def judged_again() -> object:
        found = await letters(engine)
        still_bad: dict[str, object] = {reason: {("parked", 2, False)} for reason in REASONS}
        return found == still_bad | {"unknown_order": {("replayed", 1, True)}} or found

    await eventually(judged_again)
    await market.move(start + TTL + SECOND)

    async def expired() -> object:
        found = await market.happened(order)
        return found == {("order_expired", order.id): 1} or found

    await eventually(expired)


async def letters(engine: AsyncEngine) -> dict[str, set[tuple[str, int, bool]]]:
    """The agent's dead letters: reason → (status, attempts, whether a replay was dealt with)."""
    sql = "SELECT reason, status, attempts, settled_at IS NOT NULL FROM dead_letters WHERE source = :me"
    found: dict[str, set[tuple[str, int, bool]]] = {}
    for reason, *rest in await rows(engine, sql, me=ORDER_TTL):
        found.setdefault(reason, set()).add(tuple(rest))  # type: ignore[arg-type]
    return found


async def introduce(engine: AsyncEngine, order_id: str, stranger: UUID) -> None:
    """Let there be an order of that id: another's copy, canceled."""
    changes = {"id": str(stranger), "number": f"X-{stranger}", "checkout_group_id": str(stranger), "status": "canceled"}
    await execute(
        engine,
        "INSERT INTO orders SELECT (jsonb_populate_record(o, CAST(:changes AS jsonb))).* FROM orders o WHERE id = :id",
        changes=json.dumps(changes),
        id=UUID(order_id),
    )


async def test_an_order_that_cannot_expire_holds_up_no_other(market: Market, engine: AsyncEngine) -> None:
    start = await market.clock()
    broken, sound = await market.place(start), await market.place(start)
    await execute(engine, "DELETE FROM payment_intents WHERE order_id = :id", id=UUID(broken.id))
    await market.move(start + TTL + SECOND)

    async def expired() -> object:
        found = await market.happened(broken, sound)
        return found == {("order_expired", sound.id): 1} or found

    await eventually(expired)


class Skewed:
    """Two workers whose clocks are two hours ahead and behind; they are killed in turns."""

    def __init__(self, site: Site) -> None:
        self.workers = [
            WorkerProcess(
                site.environment, site.root, f"skewed{hours}", (str(hours * 3600), ORDER_TTL), ("tests.skewed_worker",)
            )
            for hours in (2, -2)
        ]
        self.killed = 0

    async def start(self) -> None:
        for worker in self.workers:
            worker.start()
        for worker in self.workers:
            await worker.ready()

    def kill_one(self) -> None:
        worker = self.workers[self.killed % 2]
        self.killed += 1
        worker.kill()
        worker.start()

    def stop(self) -> None:
        for worker in self.workers:
            worker.stop()


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_workers_with_wrong_clocks_that_are_killed_do_nothing_early_and_nothing_twice(
    site: Site, market: Market, worker: WorkerProcess, engine: AsyncEngine
) -> None:
    worker.stop()
    start = await market.clock()
    orders = [await market.place(start + n * timedelta(milliseconds=400)) for n in range(40)]
    workers = Skewed(site)

    async def counted(event_type: str, count: int) -> None:
        async def reached() -> object:
            happened = await market.happened(*orders)
            found = sum(number for (kind, _), number in happened.items() if kind == event_type)
            return found >= count or found

        await eventually(reached, timeout_s=120)

    try:
        await workers.start()
        for event_type, after in (("order_nudged", HALF), ("order_expired", TTL)):
            await market.move(start + after)
            for count in (8, 20):
                await counted(event_type, count)
                workers.kill_one()
            await counted(event_type, len(orders))
        happened = await market.happened(*orders)
        assert happened == {(kind, one.id): 1 for kind in ("order_nudged", "order_expired") for one in orders}
        async with AsyncSession(engine) as tx:
            now = await logical_now(tx, follow=True)
        for event in await market.events(*orders):
            nudged = event.event_type == "order_nudged"
            assert (event.order.nudge_at if nudged else event.order.expires_at) <= event.occurred_at <= now
            assert event.actor == ORDER_TTL
        for order in orders:
            row = await market.row(order)
            assert (row.status, row.reserved) == ("expired", 0)
            assert len(await market.heard(order)) == 3
    finally:
        workers.stop()
