"""A refused row stops its own aggregate and nothing else, until it goes or somebody decides."""

from __future__ import annotations

import asyncio
import itertools
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import asyncpg
import pytest
from click.testing import CliRunner
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from models.database import new_id
from models.dead_letter_commands import Filter, Replayed, ReplayOutcome, discard, list_letters, replay, show
from models.dead_letters import DeadLetter, DeadLetterStatus, Letter, park
from models.errors import NotFound, StateConflict
from models.outbox import append
from models.tenancy import make_scoped_sessions
from ops.cli.dlq import dlq
from ops.settings import Settings
from ops.topics import ensure_topics
from schemas.records import StoreComplianceChanged
from tests.local_stack import Database, Stack, settings_for
from tests.relay_process import Draft, Topics, eventually, expected, first_occurrences, insert, keys, relay, topics

pytestmark = pytest.mark.timeout(300)

TOO_LARGE = bytes(1_200_000)
ACTOR = "command:test"


@pytest.fixture
async def settings(stack: Stack, database: Database) -> Settings:
    found = settings_for(stack, database, relay_max_attempts=2)
    await ensure_topics(found)
    return found


@pytest.fixture
async def db(settings: Settings) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(settings.database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def catalog(settings: Settings) -> AsyncIterator[Topics]:
    async with topics(settings.kafka_brokers, "catalog") as reader:
        yield reader


@pytest.fixture
async def engine(settings: Settings) -> AsyncIterator[AsyncEngine]:
    made = create_async_engine(settings.sqlalchemy_app_url)
    yield made
    await made.dispose()


def service(engine: AsyncEngine) -> AsyncSession:
    """A session as the API has one for its operators: the restricted role, for no store."""
    return make_scoped_sessions(engine)()


async def do_replay(engine: AsyncEngine, *ids: uuid.UUID) -> list[Replayed]:
    """As the API does it."""
    async with service(engine) as tx, tx.begin():
        return await replay(tx, ids, actor=ACTOR, now=datetime.now(UTC))


async def letters(engine: AsyncEngine, count: int, status: str = "parked") -> Sequence[DeadLetter]:
    """Wait for this many letters."""

    async def check() -> bool:
        return len(await _letters(engine, status)) == count

    await eventually(check)
    return await _letters(engine, status)


async def _letters(engine: AsyncEngine, status: str) -> Sequence[DeadLetter]:
    async with service(engine) as tx:
        return await list_letters(tx, status=DeadLetterStatus(status), limit=100)


async def grow(db: asyncpg.Connection, letter: DeadLetter, payload: bytes) -> None:
    await db.execute("UPDATE dead_letters SET payload = $2 WHERE id = $1", letter.id, payload)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"payload": TOO_LARGE}, "refused"),
        ({"type": "order_sung"}, "unknown_type"),
        ({"aggregatetype": "songs"}, "unknown_topic"),
    ],
)
async def test_a_poison_row_parks_its_aggregate_alone(
    settings: Settings,
    db: asyncpg.Connection,
    engine: AsyncEngine,
    catalog: Topics,
    bad: dict[str, object],
    reason: str,
) -> None:
    poisoned, *healthy = keys(30)
    poison = Draft(poisoned, **bad)  # type: ignore[arg-type]
    before = [Draft(key, aggregatetype=poison.aggregatetype) for key in [poisoned] * 2]
    if reason != "unknown_topic":
        await insert(db, before)
    others = [Draft(key) for _ in range(20) for key in healthy]
    behind = [Draft(poisoned, aggregatetype=poison.aggregatetype) for _ in range(3)]
    await insert(db, [*others[:100], poison, *others[100:200], *behind, *others[200:]])
    with relay(settings) as process:
        (letter,) = await letters(engine, 1)
        later = [Draft(poisoned, aggregatetype=poison.aggregatetype), Draft(healthy[0])]
        await insert(db, later)
        await catalog.until(lambda seen: str(later[1].id) in {record.id for record in seen})
        seen = await catalog.read()
        repeats = process.said("relay_broker_away")
    good = [*(before if reason != "unknown_topic" else []), *others, later[1]]
    assert first_occurrences(seen) == expected(good)
    assert len(seen) == len(good) or repeats, "what was good is not sent twice while the broker answers"
    assert (letter.source, letter.reason, letter.key, letter.attempts) == ("relay", reason, poisoned, 2)
    assert (letter.event_id, letter.payload) == (poison.id, poison.payload)
    left = await db.fetch("SELECT id FROM outbox_events WHERE type <> 'ad_events' ORDER BY seq")
    assert [row["id"] for row in left] == [draft.id for draft in [*behind, later[0]]], "these wait, in order"


async def test_attempts_are_spaced_out_before_the_row_is_parked(
    settings: Settings, db: asyncpg.Connection, engine: AsyncEngine
) -> None:
    await insert(db, [Draft(keys(1)[0], payload=TOO_LARGE)])
    with relay(settings, RELAY_MAX_ATTEMPTS="4") as process:
        await letters(engine, 1)
        lines = [json.loads(line) for line in process.log.read_text().splitlines() if '"relay_row_' in line]
    assert [line["attempts"] for line in lines] == [1, 2, 3, 4]
    assert [line["event"] for line in lines] == ["relay_row_refused"] * 3 + ["relay_row_parked"]
    at = [datetime.fromisoformat(line["timestamp"]).timestamp() for line in lines]
    gaps = [later - earlier for earlier, later in itertools.pairwise(at)]
    assert all(gap >= least for gap, least in zip(gaps, (0.2, 0.4, 0.8), strict=True)), gaps


async def test_a_replayed_row_comes_first_and_then_all_that_waited(
    settings: Settings, db: asyncpg.Connection, engine: AsyncEngine, catalog: Topics
) -> None:
    key = keys(1)[0]
    poison = Draft(key, payload=TOO_LARGE)
    behind = [Draft(key) for _ in range(50)]
    await insert(db, [poison, *behind])
    with relay(settings):
        (letter,) = await letters(engine, 1)
        await grow(db, letter, b"mended")
        first = await do_replay(engine, letter.id)
        await catalog.until(lambda seen: len(seen) == 51)
        again = await do_replay(engine, letter.id)
        seen = await catalog.read()
    assert [record.id for record in seen] == [str(draft.id) for draft in [poison, *behind]]
    assert seen[0].value == b"mended"
    assert first == [Replayed(letter.id, ReplayOutcome.REPLAYED)]
    assert again == [Replayed(letter.id, ReplayOutcome.ALREADY_REPLAYED)]
    assert await db.fetchval("SELECT count(*) FROM outbox_failures") == 0
    audited = await db.fetch("SELECT actor, action FROM audit_log WHERE object_id = $1", str(letter.id))
    assert [tuple(row) for row in audited] == [(ACTOR, "dead_letter.replay")]


async def test_two_replays_at_once_have_one_effect(
    settings: Settings, db: asyncpg.Connection, engine: AsyncEngine, catalog: Topics
) -> None:
    await insert(db, [Draft(keys(1)[0], payload=TOO_LARGE)])
    with relay(settings):
        (letter,) = await letters(engine, 1)
        await grow(db, letter, b"mended")
        outcomes = await asyncio.gather(*(do_replay(engine, letter.id) for _ in range(4)))
        await catalog.until(lambda seen: len(seen) >= 1)
        assert len(await catalog.read()) == 1
    assert sorted(outcome.value for ((_, outcome),) in outcomes) == ["already_replayed"] * 3 + ["replayed"]


async def test_a_replay_in_vain_parks_the_same_letter_again(
    settings: Settings, db: asyncpg.Connection, engine: AsyncEngine, catalog: Topics
) -> None:
    key = keys(1)[0]
    behind = Draft(key)
    await insert(db, [Draft(key, payload=TOO_LARGE), behind])
    with relay(settings):
        (letter,) = await letters(engine, 1)
        await do_replay(engine, letter.id)

        async def parked_again() -> bool:
            (now,) = await _letters(engine, "parked") or [letter]
            return now.attempts == 3

        await eventually(parked_again)
        (again,) = await _letters(engine, "parked")
        assert again.id == letter.id
        assert await catalog.read() == [], "what waits goes on waiting"
        async with service(engine) as tx, tx.begin():
            await discard(tx, letter.id, reason="beyond repair", actor=ACTOR, now=datetime.now(UTC))
        await catalog.until(lambda seen: [record.id for record in seen] == [str(behind.id)])
    async with service(engine) as tx:
        with pytest.raises(StateConflict):
            await discard(tx, letter.id, reason="twice", actor=ACTOR, now=datetime.now(UTC))
        assert await replay(tx, [letter.id], actor=ACTOR, now=datetime.now(UTC)) == [
            Replayed(letter.id, ReplayOutcome.DISCARDED)
        ]
        with pytest.raises(NotFound):
            await show(tx, new_id())
    (row,) = await db.fetch("SELECT action, change FROM audit_log WHERE action LIKE '%discard'")
    assert json.loads(row["change"])["reason"] == [None, "beyond repair"]


async def test_a_discard_lets_the_waiting_rows_go_on_in_order(
    settings: Settings, db: asyncpg.Connection, engine: AsyncEngine, catalog: Topics
) -> None:
    key = keys(1)[0]
    behind = [Draft(key) for _ in range(300)]
    await insert(db, [Draft(key, payload=TOO_LARGE), *behind[:100]])
    with relay(settings):
        (letter,) = await letters(engine, 1)
        await insert(db, behind[100:200])
        await asyncio.sleep(0.3)
        async with service(engine) as tx, tx.begin():
            await discard(tx, letter.id, reason="not needed", actor=ACTOR, now=datetime.now(UTC))
        await insert(db, behind[200:])
        await catalog.until(lambda seen: len(seen) >= 300)
        seen = await catalog.read()
    assert [record.id for record in seen] == [str(draft.id) for draft in behind]


async def test_many_waiting_rows_do_not_slow_down_the_others(
    settings: Settings, db: asyncpg.Connection, engine: AsyncEngine, catalog: Topics
) -> None:
    stuck = keys(20)
    await insert(db, [Draft(key, type="order_sung") for key in stuck])
    await insert(db, [Draft(key) for key in stuck for _ in range(1000)])
    with relay(settings):
        await letters(engine, 20)

        async def set_aside() -> bool:
            return await db.fetchval("SELECT count(*) FROM outbox_events WHERE lane >= 0 AND type = 'ad_changed'") == 0

        await eventually(set_aside)
        others = [Draft(key) for key in keys(32) for _ in range(5)]
        await insert(db, others)
        await catalog.until(lambda seen: len(seen) == len(others), within_s=5)
    assert await db.fetchval("SELECT count(*) FROM outbox_events WHERE lane = -1") == 20_000


async def test_an_agents_letter_goes_through_the_outbox_again_with_its_id(
    settings: Settings, db: asyncpg.Connection, engine: AsyncEngine
) -> None:
    store = uuid.uuid4()
    event = StoreComplianceChanged(
        event_id=new_id(),
        occurred_at=datetime.now(UTC),
        actor="test",
        store_id=store,
        before="pending",
        after="verified",
    )
    async with topics(settings.kafka_brokers, "stores") as reader:
        with relay(settings):
            async with service(engine) as tx, tx.begin():
                await append(tx, event)
            (record,) = await reader.until(lambda seen: len(seen) == 1)
            letter = Letter(
                "billing", record.topic, record.partition, record.offset, record.key, "no_customer", "…",
                record.value, event.event_id, "store_compliance_changed",
            )  # fmt: skip
            await _park(settings, letter)
            (parked,) = await letters(engine, 1)
            await do_replay(engine, parked.id)
            await reader.until(lambda seen: len(seen) == 2)
            await do_replay(engine, parked.id)
            first, again = await reader.read()
            await _park(
                settings, letter._replace(offset=again.offset, replay_of=uuid.UUID(again.headers["dead-letter-id"]))
            )
    assert (again.key, again.value, again.id) == (first.key, first.value, first.id)
    assert again.headers["dead-letter-id"] == str(parked.id)
    (back,) = await _letters(engine, "parked")
    assert (back.id, back.attempts, back.offset) == (parked.id, 2, again.offset)


async def _park(settings: Settings, letter: Letter) -> None:
    engine = create_async_engine(settings.sqlalchemy_url)
    async with AsyncSession(engine) as tx, tx.begin():
        await park(tx, [letter], wall=datetime.now(UTC))
    await engine.dispose()


async def test_a_filter_replays_in_order(
    settings: Settings, db: asyncpg.Connection, engine: AsyncEngine, catalog: Topics
) -> None:
    key, other = keys(2)
    ids = [new_id() for _ in range(6)]
    for n, event_id in enumerate(ids):
        owner = key if n % 2 else other
        await _park(settings, Letter("agent", "packstream.catalog", 3, n, owner, "x", "", b"", event_id, "ad_changed"))
    with relay(settings):
        async with service(engine) as tx, tx.begin():
            done = await replay(tx, Filter(source="agent", key=key), actor=ACTOR, now=datetime.now(UTC))
        await catalog.until(lambda seen: len(seen) == 3)
    assert len(done) == 3
    assert [record.id for record in catalog.seen] == [str(ids[n]) for n in (1, 3, 5)], "as they were parked"


def test_the_command_line_lists_shows_replays_and_discards(stack: Stack, database: Database) -> None:
    settings = settings_for(stack, database)
    asyncio.run(_park(settings, Letter("agent", "packstream.catalog", 1, 7, "k", "x", "broken", b"\0", new_id())))
    runner = CliRunner(env={"DATABASE_URL": settings.database_url, "PACKSTREAM_ENV": "test"})

    def call(*arguments: str) -> tuple[int, str]:
        result = runner.invoke(dlq, [*arguments, "--data", str(stack.data)])
        return result.exit_code, result.stdout

    code, out = call("list", "--json")
    (letter,) = json.loads(out)
    assert (code, letter["reason"], letter["status"], letter["payload"]) == (0, "x", "parked", "00")
    assert letter["created_at"].endswith("Z"), "times as the API writes them"
    assert json.loads(call("show", letter["id"], "--json")[1])["payload"] == "00"
    assert json.loads(call("replay", letter["id"], "--json")[1]) == [{"id": letter["id"], "outcome": "replayed"}]
    assert call("replay", letter["id"]) == (0, f"{letter['id']}  already_replayed\n")
    assert call("discard", letter["id"], "--reason", "late")[0] == 1
    assert call("show", str(new_id()))[0] == 1
    assert call("replay")[0] == 2
    assert call("discard", letter["id"])[0] == 2
