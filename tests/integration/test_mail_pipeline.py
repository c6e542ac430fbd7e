"""From a request to a mail in a mailbox, through outbox, relay, Kafka, worker and an SMTP server: once, or known."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from models.database import new_id
from schemas.records import EmailRequested
from streams.topics import NOTIFICATIONS
from tests.ad_stream import WorkerProcess, eventually
from tests.agent_site import Site, StoreOfTest, direct, make_store, notice, publish, rows, running_site
from tests.api_driver import new_email
from tests.mail_servers import Answers, silent_server, smtp_server
from tests.relay_process import Relay, relay

pytestmark = [pytest.mark.timeout(400), pytest.mark.slow]

TIMEOUT_S = "3"  #: of an attempt; a claim lasts twice as long
AGENTS = ("--agents", NOTIFICATIONS)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with running_site() as found:
        yield found


@pytest.fixture(scope="module")
def publisher(site: Site) -> Iterator[Relay]:
    with relay(site.settings) as started:
        yield started


@contextmanager
def working(site: Site, **environment: str) -> Iterator[WorkerProcess]:
    """A started worker; `await ready()` before use."""
    made = WorkerProcess(site.environment | {"EMAIL_TIMEOUT_S": TIMEOUT_S} | environment, site.root, arguments=AGENTS)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def nudge(store: StoreOfTest, user_id: UUID) -> EmailRequested:
    """A request for one e-mail."""
    return EmailRequested(
        event_id=new_id(),
        occurred_at=datetime.now(UTC),
        actor="test",
        store_id=store.id,
        user_id=user_id,
        template="order_nudged",
        values={"number": "17", "order_id": "o-1"},
    )


async def until_status(engine: AsyncEngine, user_id: UUID, expected: list[str]) -> None:
    """Until the e-mails to a user have these states, in the order of their ids."""

    async def check() -> object:
        sql = "SELECT status FROM email_deliveries WHERE user_id = :id ORDER BY id"
        found = [row[0] for row in await rows(engine, sql, id=user_id)]
        return found == expected or found

    await eventually(check, timeout_s=90)


async def test_a_licence_notice_reaches_those_who_run_the_store_once(
    site: Site, engine: AsyncEngine, publisher: Relay
) -> None:
    addresses = {role: new_email() for role in ("owner", "manager", "staff")}
    store = await make_store(engine, **addresses)
    event = notice(store.id, "license_expiring", number="L-1", expires_on="2026-05-01", license_id="l-1")
    with working(site) as worker:
        await worker.ready()
        await publish(engine, event)
        for role in ("owner", "manager"):
            await until_status(engine, store.users[addresses[role]], ["sent"])
        async with direct(site.environment["KAFKA_BROKERS"]) as kafka:
            await kafka.send(event, event)
        later = notice(store.id)
        await publish(engine, later)

        async def told() -> object:
            sql = "SELECT event_id FROM notifications WHERE store_id = :id ORDER BY id"
            found = [row[0] for row in await rows(engine, sql, id=store.id)]
            return found == [event.event_id, later.event_id] or found

        await eventually(told, timeout_s=60)

        async def said() -> object:
            found = await rows(engine, "SELECT lag FROM ops_agent_lag WHERE agent = 'notifications'")
            return found == [(0,)] or found

        await eventually(said)
    for role, count in (("owner", 1), ("manager", 1), ("staff", 0)):
        assert len(site.mails_to(addresses[role])) == count, role
    (mail,) = site.mails_to(addresses["owner"])
    assert "L-1" in mail["Subject"]
    assert mail["List-Unsubscribe"] is None
    assert not any(address in worker.log.read_text() for address in addresses.values())


async def test_a_repeated_request_is_one_mail(site: Site, engine: AsyncEngine) -> None:
    address = new_email()
    store = await make_store(engine, owner=address)
    event = nudge(store, store.users[address])
    with working(site) as worker:
        await worker.ready()
        async with direct(site.environment["KAFKA_BROKERS"]) as kafka:
            await kafka.send(event, event)
            await until_status(engine, event.user_id, ["sent"])
            await kafka.send(event)
            await asyncio.sleep(2)
    (mail,) = site.mails_to(address)
    assert str(event.event_id) in mail["Message-ID"]
    assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"


async def test_killed_between_claim_and_send_it_is_unknown_and_never_sent(site: Site, engine: AsyncEngine) -> None:
    address = new_email()
    store = await make_store(engine, owner=address)
    event = nudge(store, store.users[address])
    async with silent_server() as (url, called):
        with working(site, SMTP_URL=url) as worker:
            await worker.ready()
            async with direct(site.environment["KAFKA_BROKERS"]) as kafka:
                await kafka.send(event)
            await asyncio.wait_for(called.wait(), 60)
            await until_status(engine, event.user_id, ["sending"])
            worker.signal(signal.SIGKILL)
    with working(site) as worker:
        await worker.ready()
        await until_status(engine, event.user_id, ["unknown"])
        async with direct(site.environment["KAFKA_BROKERS"]) as kafka:
            await kafka.send(event)
        await asyncio.sleep(3)
    await until_status(engine, event.user_id, ["unknown"])
    assert site.mails_to(address) == []


async def test_killed_after_the_server_took_it_it_is_unknown_and_not_sent_again(
    site: Site, engine: AsyncEngine
) -> None:
    address = new_email()
    store = await make_store(engine, owner=address)
    event = nudge(store, store.users[address])
    answers = Answers(data=None)
    async with smtp_server(answers) as url:
        with working(site, SMTP_URL=url) as worker:
            await worker.ready()
            async with direct(site.environment["KAFKA_BROKERS"]) as kafka:
                await kafka.send(event)

            async def taken() -> object:
                return len(answers.taken) == 1 or len(answers.taken)

            await eventually(taken, timeout_s=60)
            worker.signal(signal.SIGKILL)
    with working(site) as worker:
        await worker.ready()
        await until_status(engine, event.user_id, ["unknown"])
        await asyncio.sleep(3)
    assert len(answers.taken) == 1
    assert site.mails_to(address) == []


async def test_a_refused_recipient_is_recorded_without_the_address(site: Site, engine: AsyncEngine) -> None:
    address = new_email()
    store = await make_store(engine, owner=address)
    event = nudge(store, store.users[address])
    async with smtp_server(Answers(rcpt=f"550 5.1.1 <{address}> unknown")) as url:
        with working(site, SMTP_URL=url) as worker:
            await worker.ready()
            async with direct(site.environment["KAFKA_BROKERS"]) as kafka:
                await kafka.send(event)
            await until_status(engine, event.user_id, ["refused"])
    kept = await rows(engine, "SELECT detail FROM email_deliveries WHERE user_id = :id", id=event.user_id)
    assert kept == [("550 5.1.1 <address> unknown",)]
    assert address not in worker.log.read_text()
