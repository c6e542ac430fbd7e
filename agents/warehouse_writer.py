"""Rows into the warehouse, each once: at known offsets of committed streams, and where in doubt, after a look.

The next row's offset is known, so an append whose answer was lost is tried again at the same offset and counts once. A
stream that is gone or that somebody ended says nothing of its last append: then a new one takes what the table lacks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import structlog
from prometheus_client import Counter

from models.analytics import positions
from models.analytics.encoding import RowRefusedError, encoder
from models.analytics.gateway import RowsRefusedError, StreamGoneError, Warehouse
from models.analytics.positions import Place, StreamPlace
from models.database import SessionFactory
from streams.facts import Fact

ROWS_MAX: Final = 2_000  #: of one append
BYTES_MAX: Final = 4 << 20  #: of one append; BigQuery takes 10 MB
STREAMS_MAX: Final = 5  #: that may go while one batch is written

ROWS = Counter("packstream_facts_written_total", "rows that were written to the warehouse", ["table"])

log = structlog.get_logger(__name__)

T = TypeVar("T")

Encoded = tuple[str, bytes]
"""A row's id and its bytes."""


class Patience(Protocol):
    """Does something for as long as a part that it needs is away."""

    async def __call__(self, act: Callable[[], Awaitable[T]], generation: int) -> T: ...


class WarehouseWriter:
    """Writes batches of facts for the owner of a place."""

    def __init__(self, warehouse: Warehouse, sessions: SessionFactory, patiently: Patience) -> None:
        self._warehouse, self._sessions, self._patiently = warehouse, sessions, patiently

    async def write(self, place: Place, facts: Sequence[Fact], *, doubtful: bool, generation: int) -> dict[str, str]:
        """Write the facts. `doubtful`: some may be there already. Returns those refused: row id → why."""
        refused: dict[str, str] = {}
        for table, rows in _encoded(facts, refused).items():
            if doubtful:
                rows = await self._missing(table, rows, generation)
            for part in _parts(rows):
                await self._append(place, table, part, refused, generation)
        return refused

    async def _append(
        self, place: Place, table: str, rows: list[Encoded], refused: dict[str, str], generation: int
    ) -> None:
        for _ in range(STREAMS_MAX):
            if not rows:
                return
            stream = place.streams.get(table) or await self._open(place, table, generation)
            try:
                await self._patiently(partial(self._send, table, stream, rows), generation)
            except RowsRefusedError as exc:
                refused |= {rows[index][0]: why for index, why in exc.refused.items()}
                rows = [row for index, row in enumerate(rows) if index not in exc.refused]
            except StreamGoneError as exc:
                log.warning("stream_gone", table=table, stream=stream.name, error=str(exc))
                await self._patiently(partial(self._warehouse.end_stream, stream.name), generation)
                del place.streams[table]
                rows = await self._missing(table, rows, generation)
            else:
                stream.row_offset += len(rows)
                ROWS.labels(table).inc(len(rows))
                return
        raise RuntimeError(f"{table}: {STREAMS_MAX} appends in a row failed")

    async def _send(self, table: str, stream: StreamPlace, rows: Sequence[Encoded]) -> None:
        await self._warehouse.append(table, stream.name, [data for _, data in rows], offset=stream.row_offset)

    async def _open(self, place: Place, table: str, generation: int) -> StreamPlace:
        """A new stream, written down before its first row: a successor has to be able to end it."""
        name = await self._patiently(partial(self._warehouse.open_stream, table), generation)
        stream = StreamPlace(name)

        async def keep() -> None:
            async with self._sessions.begin() as tx:
                await positions.keep_stream(tx, place, table, stream, wall=datetime.now(UTC))

        await self._patiently(keep, generation)
        place.streams[table] = stream
        return stream

    async def _missing(self, table: str, rows: list[Encoded], generation: int) -> list[Encoded]:
        """Those that the table does not have."""
        ids = [row_id for row_id, _ in rows]
        there = await self._patiently(partial(self._warehouse.present, table, ids), generation)
        return [row for row in rows if row[0] not in there]


def _encoded(facts: Sequence[Fact], refused: dict[str, str]) -> dict[str, list[Encoded]]:
    """The facts as bytes, by table, each id once; those that do not fit go to `refused`."""
    written: dict[str, Any] = {"ingested_at": datetime.now(UTC)}
    found: defaultdict[str, dict[str, bytes]] = defaultdict(dict)
    for fact in facts:
        try:
            found[fact.table].setdefault(fact.row_id, encoder(fact.table).encode(fact.row | written))
        except RowRefusedError as exc:
            refused[fact.row_id] = str(exc)
    return {table: list(rows.items()) for table, rows in found.items()}


def _parts(rows: Sequence[Encoded]) -> Iterator[list[Encoded]]:
    """Appends of a size that BigQuery takes."""
    part: list[Encoded] = []
    size = 0
    for row in rows:
        if part and (len(part) >= ROWS_MAX or size + len(row[1]) > BYTES_MAX):
            yield part
            part, size = [], 0
        part.append(row)
        size += len(row[1])
    if part:
        yield part
