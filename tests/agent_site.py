"""A stack of a test module's own, for agents whose topics and groups have fixed names; stores with people in it."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default as email_policy
from pathlib import Path
from typing import Any
from uuid import UUID

from aiokafka import AIOKafkaProducer
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from models import outbox
from models.database import new_id
from ops.migrate import upgrade
from ops.settings import Settings
from ops.stack.local import stack_down, stack_up
from ops.stack.paths import DataDir
from ops.topics import ensure_topics
from ops.warehouse import apply, connected_warehouse
from schemas.codec import encode
from schemas.records import NotificationRequested, Record
from schemas.registry import EVENTS

PARTS = ("postgres", "kafka", "redis", "smtp")
NAMES = (
    "DATABASE_URL",
    "DATABASE_APP_URL",
    "STRIPE_API_BASE",
    "REDIS_URL",
    "KAFKA_BROKERS",
    "SMTP_URL",
    "BIGQUERY_ENDPOINT",
    "BIGQUERY_GRPC_ENDPOINT",
)


@dataclass(frozen=True)
class Site:
    """A running stack: its addresses as environment variables, and where its data lie."""

    environment: dict[str, str]
    root: Path

    @property
    def settings(self) -> Settings:
        return Settings(**{name.lower(): value for name, value in self.environment.items()})  # type: ignore[arg-type]

    def mails(self) -> list[EmailMessage]:
        """What the SMTP sink has, in order of arrival."""
        files = sorted((self.root / "mail").glob("*.eml"))
        return [message_from_bytes(file.read_bytes(), policy=email_policy) for file in files]  # type: ignore[misc]

    def mails_to(self, address: str) -> list[EmailMessage]:
        return [mail for mail in self.mails() if mail["X-Envelope-To"] == address]


@contextmanager
def running_site(parts: Sequence[str] = PARTS) -> Iterator[Site]:
    """Postgres, Kafka, Valkey and the SMTP sink, or `parts`; migrated and with topics, and with tables in BigQuery."""
    root = Path(tempfile.mkdtemp(prefix="packstream-agent-"))
    root.chmod(0o755)
    data = DataDir.at(root)
    try:
        addresses = asyncio.run(stack_up(data, parts, bound=True)).site.addresses
        known = {name: addresses[name] for name in NAMES if name in addresses}
        found = Site(known | {"PACKSTREAM_ENV": "test", "LOG_FORMAT": "json"}, root)
        upgrade(found.settings)
        asyncio.run(ensure_topics(found.settings))
        if found.settings.has_warehouse:
            asyncio.run(make_warehouse(found.settings))
        yield found
    finally:
        asyncio.run(stack_down(data, parts))
        shutil.rmtree(root)


async def make_warehouse(settings: Settings) -> None:
    """Its tables and views."""
    store = connected_warehouse(settings)
    await apply(store)
    store.close()


async def rows(engine: AsyncEngine, sql: str, **values: Any) -> list[tuple[Any, ...]]:
    """The rows of a query."""
    async with engine.connect() as tx:
        return [tuple(row) for row in await tx.execute(text(sql), values)]


async def execute(engine: AsyncEngine, sql: str, **values: Any) -> None:
    async with engine.begin() as tx:
        await tx.execute(text(sql), values)


@dataclass(frozen=True)
class StoreOfTest:
    """A store and its people, by their addresses."""

    id: UUID
    users: dict[str, UUID]


async def make_store(
    engine: AsyncEngine, *, store_id: UUID | None = None, kind: str = "vendor", **people: str
) -> StoreOfTest:
    """A store with people who have signed in before; `people`: role → address."""
    store, now = store_id or new_id(), datetime.now(UTC)
    await execute(
        engine,
        "INSERT INTO stores (id, name, type, address, state, kyc_status, subscription_active, created_at, updated_at)"
        " VALUES (:id, 'Green & Co', :kind, '{}', 'CA', 'verified', true, :now, :now)",
        id=store,
        kind=kind,
        now=now,
    )
    users = {}
    for role, address in people.items():
        user = users[address] = new_id()
        await execute(
            engine,
            "INSERT INTO users (id, email, password_hash, first_name, last_name, role, created_at)"
            " VALUES (:id, :email, 'x', 'Ada', 'L', 'user', :now)",
            id=user,
            email=address,
            now=now,
        )
        await execute(
            engine,
            "INSERT INTO memberships (store_id, user_id, role, created_at) VALUES (:store, :user, :role, :now)",
            store=store,
            user=user,
            role=role,
            now=now,
        )
    return StoreOfTest(store, users)


def notice(store_id: UUID, kind: str = "order_delivered", **values: str) -> NotificationRequested:
    """A request for a notification."""
    return NotificationRequested(
        event_id=new_id(), occurred_at=datetime.now(UTC), actor="test", store_id=store_id, kind=kind, values=values
    )


async def publish(engine: AsyncEngine, *records: Record) -> None:
    """Through the outbox, in one transaction."""
    async with AsyncSession(engine) as tx, tx.begin():
        for record in records:
            await outbox.append(tx, record)


class Direct:
    """Sends records as a relay that repeats itself would, or worse."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = producer

    async def send(self, *records: Record) -> None:
        for record in records:
            event = EVENTS[record.event_type]
            headers = [("id", str(record.event_id).encode()), ("type", record.event_type.encode())]
            await self.send_bytes(event.topic.name, event.key(record), encode(record), headers)
        await self._producer.flush()

    async def send_bytes(
        self, topic: str, key: str, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()
    ) -> None:
        await self._producer.send(topic, value, key=key.encode(), headers=list(headers))


@asynccontextmanager
async def direct(brokers: str) -> AsyncIterator[Direct]:
    """A producer past the outbox."""
    producer = AIOKafkaProducer(bootstrap_servers=brokers, acks="all", enable_idempotence=True, linger_ms=2)
    await producer.start()
    try:
        yield Direct(producer)
    finally:
        await producer.stop()
