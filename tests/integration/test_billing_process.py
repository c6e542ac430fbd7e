"""The billing agent as a process, killed between Stripe's answer and its own commit; and the fake beside it."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from models.database import new_id
from schemas.records import AdDailyChargeRecorded
from streams.topics import BILLING
from tests.ad_stream import WorkerProcess, eventually
from tests.agent_site import Site, direct, execute, make_store, rows, running_site

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]

DAY = date(2027, 3, 1)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with running_site(("postgres", "kafka", "redis", "stripe")) as found:
        yield found


@pytest.fixture
async def stripe(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    """The fake's other door."""
    async with httpx.AsyncClient(base_url=f"{site.environment['STRIPE_API_BASE']}/_fake") as client:
        yield client


@pytest.fixture
def worker(site: Site) -> Iterator[WorkerProcess]:
    made = WorkerProcess(site.environment, site.root, arguments=("--agents", BILLING))
    yield made
    made.stop()


async def cleared_charge(engine: AsyncEngine) -> AdDailyChargeRecorded:
    """A charge that may be billed, and the event that told of it."""
    store, now = await make_store(engine), datetime.now(UTC)
    event = AdDailyChargeRecorded(
        event_id=new_id(),
        occurred_at=now,
        actor="test",
        store_id=store.id,
        charge_id=new_id(),
        charge_type="ad_spend",
        for_date=DAY,
        spend_micros=12_340_000,
        amount_cents=1234,
    )
    await execute(
        engine,
        "INSERT INTO usage_charges (id, store_id, type, for_date, spend_micros, amount_cents, currency, status,"
        " created_at, cleared_at) VALUES (:id, :store, 'ad_spend', :day, 12340000, 1234, 'USD', 'cleared', :now, :now)",
        id=event.charge_id,
        store=store.id,
        day=DAY,
        now=now,
    )
    return event


async def items(stripe: httpx.AsyncClient, charge_id: UUID) -> list[dict[str, Any]]:
    found = (await stripe.get("/objects/invoiceitem")).json()
    return [item for item in found if item["metadata"]["charge_id"] == str(charge_id)]


@pytest.mark.parametrize("days", [0, 2], ids=["at once", "two days later"])
async def test_kill_9_between_stripes_answer_and_the_commit_leaves_one_item(
    site: Site, engine: AsyncEngine, stripe: httpx.AsyncClient, worker: WorkerProcess, days: int
) -> None:
    fault = {"asked": "POST /v1/invoiceitems", "kind": "hold"}
    (await stripe.post("/faults", json=fault)).raise_for_status()
    charge = await cleared_charge(engine)
    worker.start()

    async def stripe_has_it() -> bool:
        return len(await items(stripe, charge.charge_id)) == 1

    await eventually(stripe_has_it, timeout_s=90)
    worker.signal(signal.SIGKILL)
    assert worker.process is not None
    worker.process.wait()
    status = "SELECT status, stripe_id FROM usage_charges WHERE id = :id"
    assert await rows(engine, status, id=charge.charge_id) == [("cleared", None)]
    if days:
        await stripe.post("/forget_keys")
    await execute(  # the claim of the dead worker ends
        engine,
        "UPDATE usage_charges SET next_attempt_at = NULL,"
        " first_attempt_at = first_attempt_at - make_interval(days => :days) WHERE id = :id",
        days=days,
        id=charge.charge_id,
    )
    worker.start()

    async def billed() -> object:
        found = await rows(engine, status, id=charge.charge_id)
        return found[0][0] == "billed" or found

    await eventually(billed, timeout_s=90)
    (item,) = await items(stripe, charge.charge_id)
    assert await rows(engine, status, id=charge.charge_id) == [("billed", item["id"])]
    async with direct(site.environment["KAFKA_BROKERS"]) as kafka:
        await kafka.send(charge, charge)

    async def told() -> object:
        found = await rows(engine, "SELECT count(*) FROM inbox WHERE event_id = :id", id=charge.event_id)
        return found == [(1,)] or found

    await eventually(told)
    assert "usage_charge_strange" not in worker.log.read_text()
