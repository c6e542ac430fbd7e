"""What the relay does to the outbox: claim lanes, read, move out, set waiting, park, release.

These run on asyncpg's own connection: at tens of thousands of rows a second the ORM would be the bottleneck.
All but `claim` need the lanes of the rows they touch to be claimed in the same transaction. Under that lock
nobody else adds or removes failures of these lanes, so what one statement saw still holds in the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from models.dead_letters import ERROR_CHARS_MAX, RELAY
from models.outbox import WAITING_LANE

Connection = asyncpg.Connection | PoolConnectionProxy


class Row(NamedTuple):
    """A row on its way to Kafka, in wire types."""

    seq: int
    id: bytes  #: the text form of the uuid
    aggregatetype: str
    key: bytes
    type: str
    payload: bytes | None  #: None: larger than the relay would read
    size_bytes: int
    traceparent: bytes | None
    dead_letter_id: bytes | None
    created_s: float  #: wall time, Unix seconds
    blocked: bool  #: its aggregate waits behind a refused row

    @property
    def aggregate(self) -> tuple[str, bytes]:
        return self.aggregatetype, self.key


class Due(NamedTuple):
    """A refused row whose time has come; `row` is None when it has left the outbox (it was discarded)."""

    seq: int
    attempts: int
    row: Row | None


class Refusal(NamedTuple):
    """One more time that a row was refused."""

    seq: int
    attempts: int
    error: str
    reason: str
    next_attempt_at: datetime


HAS_WORK = """
SELECT EXISTS (
  SELECT FROM outbox_lanes l
  WHERE (SELECT 1 FROM outbox_events e WHERE e.lane = l.lane ORDER BY e.lane, e.seq LIMIT 1) IS NOT NULL
) OR EXISTS (SELECT FROM outbox_failures WHERE next_attempt_at <= clock_timestamp())
"""

# Lanes with something to do and nobody at it. The row lock is the claim, and ends with the transaction.
CLAIM = """
SELECT l.lane FROM outbox_lanes l
WHERE (SELECT 1 FROM outbox_events e WHERE e.lane = l.lane ORDER BY e.lane, e.seq LIMIT 1) IS NOT NULL
   OR (SELECT 1 FROM outbox_failures f WHERE f.lane = l.lane AND f.next_attempt_at <= clock_timestamp() LIMIT 1)
      IS NOT NULL
ORDER BY random() LIMIT $1
FOR UPDATE OF l SKIP LOCKED
"""

_COLUMNS = """
e.seq, convert_to(e.id::text, 'UTF8'), e.aggregatetype, convert_to(e.aggregateid, 'UTF8'), e.type,
CASE WHEN octet_length(e.payload) <= $1 THEN e.payload END, octet_length(e.payload),
convert_to(e.headers->>'traceparent', 'UTF8'), convert_to(e.headers->>'dead-letter-id', 'UTF8'),
extract(epoch FROM e.created_at)::float8
"""

# The oldest rows of each lane, bounded in number and in bytes (always at least one a lane).
READ = f"""
SELECT {_COLUMNS},
  EXISTS (SELECT FROM outbox_failures f WHERE f.aggregatetype = e.aggregatetype AND f.aggregateid = e.aggregateid)
FROM unnest($2::smallint[]) AS l (lane) CROSS JOIN LATERAL (
  SELECT o.*, sum(octet_length(o.payload)) OVER (ORDER BY o.seq) - octet_length(o.payload) AS bytes_before
  FROM (SELECT * FROM outbox_events WHERE lane = l.lane ORDER BY lane, seq LIMIT $3) o
) e
WHERE e.bytes_before < $4
ORDER BY e.seq
"""

READ_DUE = f"""
SELECT f.seq, f.attempts, {_COLUMNS}, false
FROM outbox_failures f LEFT JOIN outbox_events e ON e.seq = f.seq
WHERE f.lane = ANY($2::smallint[]) AND f.next_attempt_at <= clock_timestamp()
ORDER BY f.next_attempt_at LIMIT $3
"""

MOVE_OUT = """
WITH gone AS (DELETE FROM outbox_events WHERE seq = ANY($1::bigint[]) RETURNING *)
INSERT INTO outbox_archive (
  seq, published_at, id, aggregatetype, aggregateid, type, payload, lane, headers, occurred_at, created_at)
SELECT seq, clock_timestamp(), id, aggregatetype, aggregateid, type, payload, lane, headers, occurred_at, created_at
FROM gone WHERE type <> ALL($2::text[])
"""

SET_WAITING = f"""
WITH moved AS (DELETE FROM outbox_events WHERE seq = ANY($1::bigint[]) AND lane <> {WAITING_LANE} RETURNING *)
INSERT INTO outbox_events (
  seq, id, aggregatetype, aggregateid, type, payload, lane, headers, occurred_at, created_at)
SELECT seq, id, aggregatetype, aggregateid, type, payload, {WAITING_LANE}, headers, occurred_at, created_at FROM moved
"""

RECORD_FAILURES = """
INSERT INTO outbox_failures AS f (seq, aggregatetype, aggregateid, lane, attempts, last_error, next_attempt_at)
SELECT e.seq, e.aggregatetype, e.aggregateid, e.lane, r.attempts, r.error, r.next_attempt_at
FROM unnest($1::bigint[], $2::smallint[], $3::text[], $4::timestamptz[]) AS r (seq, attempts, error, next_attempt_at)
JOIN outbox_events e ON e.seq = r.seq
ON CONFLICT (seq) DO UPDATE
SET attempts = excluded.attempts, last_error = excluded.last_error, next_attempt_at = excluded.next_attempt_at
"""

PARK = f"""
WITH refused AS (
  SELECT * FROM unnest($1::bigint[], $2::smallint[], $3::text[], $4::text[], $5::uuid[])
    AS r (seq, attempts, error, reason, letter_id)
), stopped AS (
  UPDATE outbox_failures f SET next_attempt_at = NULL FROM refused r WHERE f.seq = r.seq
), gone AS (
  DELETE FROM outbox_events e USING refused r WHERE e.seq = r.seq RETURNING e.*
)
INSERT INTO dead_letters AS d (
  id, source, topic, partition, "offset", key, event_id, event_type, reason, error, attempts, status, payload,
  headers, created_at)
SELECT r.letter_id, '{RELAY}', $6 || g.aggregatetype, -1, g.seq, g.aggregateid, g.id, g.type, r.reason, r.error,
  r.attempts, 'parked', g.payload, g.headers || jsonb_build_object('occurred-at', g.occurred_at), clock_timestamp()
FROM gone g JOIN refused r ON r.seq = g.seq
ON CONFLICT (source, topic, partition, "offset") DO UPDATE
SET status = 'parked', attempts = excluded.attempts, error = excluded.error, reason = excluded.reason,
  decided_at = NULL, decided_by = NULL, decision_reason = NULL
"""

# `lane` of the rows is still WAITING_LANE where they come from, so the failure has the one they go to.
RELEASE = f"""
WITH released AS (
  DELETE FROM outbox_failures WHERE seq = ANY($1::bigint[]) RETURNING aggregatetype, aggregateid, lane
), moved AS (
  DELETE FROM outbox_events e USING released r
  WHERE e.lane = {WAITING_LANE} AND e.aggregatetype = r.aggregatetype AND e.aggregateid = r.aggregateid
  RETURNING e.*, r.lane AS home
)
INSERT INTO outbox_events (
  seq, id, aggregatetype, aggregateid, type, payload, lane, headers, occurred_at, created_at)
SELECT seq, id, aggregatetype, aggregateid, type, payload, home, headers, occurred_at, created_at FROM moved
"""

BACKLOG = f"""
SELECT
  (SELECT count(*) FROM (SELECT FROM outbox_events LIMIT $1) e),
  (SELECT count(*) FROM (SELECT FROM outbox_events WHERE lane = {WAITING_LANE} LIMIT $1) e),
  (SELECT extract(epoch FROM clock_timestamp() - min(o.created_at))::float8
   FROM outbox_lanes l CROSS JOIN LATERAL (
     SELECT created_at FROM outbox_events WHERE lane = l.lane ORDER BY lane, seq LIMIT 1) o),
  (SELECT count(*) FROM outbox_failures WHERE next_attempt_at IS NOT NULL),
  (SELECT count(*) FROM dead_letters WHERE status = 'parked')
"""


class Backlog(NamedTuple):
    """What is in the outbox now; counts stop at a bound."""

    pending: int  #: rows, those that wait included
    waiting: int  #: rows behind a refused row or a dead letter
    oldest_s: float | None  #: age of the oldest row that can flow
    failing: int  #: aggregates between two attempts
    parked: int  #: dead letters without a decision, of all sources


async def has_work(db: Connection) -> bool:
    """Whether any lane has something to do, claimed or not: the cheap question of an idle relay."""
    return bool(await db.fetchval(HAS_WORK))


async def claim(db: Connection, lanes_max: int) -> list[int]:
    """Lock up to `lanes_max` lanes that have something to do, in no order; never waits."""
    return [lane for (lane,) in await db.fetch(CLAIM, lanes_max)]


async def read(db: Connection, lanes: Sequence[int], *, rows_max: int, bytes_max: int, row_bytes_max: int) -> list[Row]:
    """The oldest rows of claimed lanes, by seq. Nearly bounded: one row more a lane than `bytes_max`."""
    each = max(1, -(-rows_max // len(lanes))), max(1, bytes_max // len(lanes))
    return [Row(*record) for record in await db.fetch(READ, row_bytes_max, lanes, *each)]


async def read_due(db: Connection, lanes: Sequence[int], *, rows_max: int, row_bytes_max: int) -> list[Due]:
    """Refused rows of claimed lanes that are to be tried again, or whose dead letter was decided on."""
    found = await db.fetch(READ_DUE, row_bytes_max, lanes, rows_max)
    return [Due(seq, attempts, Row(*row) if row[0] is not None else None) for seq, attempts, *row in found]


async def move_out(db: Connection, seqs: Sequence[int], *, unarchived: Sequence[str]) -> None:
    """Take published rows out; all but those of `unarchived` types go to the archive."""
    await db.execute(MOVE_OUT, seqs, unarchived)


async def set_waiting(db: Connection, seqs: Sequence[int]) -> None:
    """Take rows of an aggregate that cannot go on out of the read window."""
    await db.execute(SET_WAITING, seqs)


async def record_failures(db: Connection, refusals: Sequence[Refusal]) -> None:
    """Note refused rows; their aggregates wait from now on. The rows are still in the outbox."""
    seqs, attempts, errors, _, due = zip(*refusals, strict=True)
    await db.execute(RECORD_FAILURES, seqs, attempts, [error[:ERROR_CHARS_MAX] for error in errors], due)


async def park(db: Connection, refusals: Sequence[Refusal], letter_ids: Sequence[UUID], *, topic_prefix: str) -> None:
    """Move noted rows to the dead letters; a letter that was replayed in vain is parked again."""
    seqs, attempts, errors, reasons, _ = zip(*refusals, strict=True)
    short = [error[:ERROR_CHARS_MAX] for error in errors]
    await db.execute(PARK, seqs, attempts, short, reasons, letter_ids, topic_prefix)


async def release(db: Connection, seqs: Sequence[int]) -> None:
    """Let the aggregates that waited behind these rows go on, in order."""
    await db.execute(RELEASE, seqs)


async def backlog(db: Connection, *, count_max: int) -> Backlog:
    """How much there is to do."""
    record = await db.fetchrow(BACKLOG, count_max)
    assert record is not None, "a SELECT without FROM has one row"
    return Backlog(*record)
