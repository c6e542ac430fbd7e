"""One contract, two relays: the same rows in, the same records out, in order for each key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

import asyncpg
import pytest

from agents.relay.publish import partition_of
from models.database import new_id
from ops.debezium.connector import debezium
from ops.settings import Settings
from ops.stack.paths import DataDir
from ops.topics import ensure_topics
from tests.local_stack import Database, Stack, settings_for
from tests.relay_process import Draft, eventually, expected, first_occurrences, insert, keys, relay, topics

LARGE = bytes(range(256)) * 3400
NOT_TEXT = b"\xc3\x01\x00\xff\xfe" + bytes(range(256))


class Runner(Protocol):
    """Starts a relay."""

    def __call__(self, settings: Settings, database: Database, folder: Path) -> AbstractAsyncContextManager[None]: ...


@asynccontextmanager
async def ours(settings: Settings, database: Database, folder: Path) -> AsyncIterator[None]:
    with relay(settings):
        yield


@asynccontextmanager
async def debeziums(settings: Settings, database: Database, folder: Path) -> AsyncIterator[None]:
    """Debezium publishes, our process does the housekeeping: it archives what is confirmed."""
    worker = debezium(
        DataDir.at(folder / "connect"), settings.kafka_brokers, owner_url=database.owner, cdc_url=database.cdc
    )
    async with worker:
        with relay(settings, RELAY_KIND="debezium"):
            yield


@pytest.fixture(
    params=[pytest.param(ours, id="packstream"), pytest.param(debeziums, marks=pytest.mark.debezium, id="debezium")]
)
def runner(request: pytest.FixtureRequest) -> Runner:
    found: Runner = request.param
    return found


@pytest.mark.timeout(240)
async def test_rows_become_records_in_order(stack: Stack, database: Database, tmp_path: Path, runner: Runner) -> None:
    settings = settings_for(stack, database)
    await ensure_topics(settings)
    names = keys(25)
    many = [Draft(name, payload=NOT_TEXT + n.to_bytes(2, "big")) for n in range(40) for name in names]
    special = [
        Draft(names[0], payload=LARGE, id=new_id()),
        Draft("häß/ ☃ key", payload=b"\xc3\x01", aggregatetype="stores", type="subscription_changed"),
        Draft("7", payload=b"\xc3\x01" + bytes(64), aggregatetype="ads.events", type="ad_events"),
        Draft(names[1], payload=NOT_TEXT, headers='{"schema": "s", "traceparent": "00-1-2-01"}'),
    ]
    drafts = [*many, *special]
    async with topics(settings.kafka_brokers, "catalog", "stores", "ads.events") as reader:
        async with runner(settings, database, tmp_path):
            db = await asyncpg.connect(database.owner)
            for begin in range(0, len(drafts), 100):
                await insert(db, drafts[begin : begin + 100])
                await asyncio.sleep(0.02)
            wanted = {str(draft.id): draft for draft in drafts}
            await reader.until(lambda seen: wanted.keys() <= {record.id for record in seen}, within_s=60)
            await eventually(lambda: _archived(db, len(drafts) - 1), within_s=60)
            await db.close()
        seen = [record for record in reader.seen if record.id in wanted]
    for record in seen:
        draft = wanted[record.id]
        assert record.topic == f"packstream.{draft.aggregatetype}"
        assert (record.key, record.value) == (draft.key, draft.payload)
        assert record.partition == partition_of(draft.key.encode())
        assert record.headers["type"] == draft.type
    assert first_occurrences(seen) == expected(drafts)


async def _archived(db: asyncpg.Connection, rows: int) -> bool:
    """Whether all but the ad batch are in the archive, and none is left."""
    archived = await db.fetchval("SELECT count(*) FROM outbox_archive")
    left = await db.fetchval("SELECT count(*) FROM outbox_events WHERE type <> 'ad_events'")
    return archived == rows and left == 0
