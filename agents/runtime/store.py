"""A Faust store on RocksDB that owns its changelog partitions exclusively (store URL ``fenced://``).

Invariants, per table partition:

1. One writer. On *every* rebalance each assigned partition, kept ones included, gets a new transactional producer: its
   epoch makes the broker refuse whatever a former owner (a zombie) still sends. Only then is the changelog read.
2. State and source position move together: the position is a key of the table, in the same transaction as the values.
3. RocksDB is always a prefix of the committed changelog: commit first, then the local write.
4. On recovery a committed source offset that is ahead of the position is moved back.

Faust hooks: `on_rebalance` fences (short: no heartbeats run meanwhile); `persisted_offset` then claims that all is
loaded, so that Faust's own recovery (slow, and reading uncommitted records) has nothing to do;
`on_recovery_completed` does the real loading, with heartbeats, before source partitions are resumed.
"""

from __future__ import annotations

import asyncio
import gc
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import rocksdict
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import IllegalStateError
from faust.stores import STORES
from faust.stores.rocksdb import Store
from faust.types import TP

from agents.runtime.changelog import ChangelogWriter, Changes, until_known
from agents.runtime.channel import first_real_offset
from agents.runtime.crash import restart

log = structlog.get_logger(__name__)

POSITION_KEY: Final = b"\0pos"  #: table key: offset of the last source record that the table contains
FENCE_TIMEOUT_S: Final = 30.0
READ_ONLY: Final = "write this table through its bulk agent only"
LOAD_RECORDS: Final = 20_000  #: changelog records in one RocksDB batch while loading


@contextmanager
def collecting_later() -> Iterator[None]:
    """Without the garbage collector for a moment: a load makes millions of short-lived objects and no cycles, and a
    collection at every few hundred of them took a third of its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class StateReader:
    """Read access to one partition of the table."""

    def __init__(self, db: Any) -> None:  # a rocksdict.Rdict in raw mode: keys and values are bytes
        self._db = db
        self.get: Callable[[bytes], bytes | None] = db.get

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Items whose key starts with `prefix`, in key order."""
        for key, value in self._db.items(from_key=prefix):
            if not key.startswith(prefix):
                return
            yield key, value

    def scan_range(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Items with ``start <= key < stop``, in key order."""
        for key, value in self._db.items(from_key=start):
            if key >= stop:
                return
            yield key, value


@dataclass(eq=False)
class Ownership:
    """A partition from the moment it is fenced until the next rebalance."""

    writer: ChangelogWriter
    end: int  #: changelog end offset right after fencing: what has to be loaded
    position: int = -1  #: last source offset that the local table contains
    expected: int = 0  #: next source offset that Faust has to deliver (repeats included)
    ready: bool = False  #: loaded, may be processed
    memory: Any = None  #: what the agent keeps of this partition in memory; dies with the ownership


class FencedStore(Store):
    """See the module. `connection` (aiokafka arguments) and `source_topic` are set by the bulk agent."""

    app: Any  # Faust's interfaces name less than its classes have
    table: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, driver="rocksdict", **kwargs)
        self.owned: dict[int, Ownership] = {}
        self.locks: dict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.connection: dict[str, Any] = {}
        self.source_topic = ""
        self.load_stats: dict[str, float] = {"records": 0, "seconds": 0.0}  #: of the last load

    async def on_start(self) -> None:
        """Make the changelog, and wait until the broker shows it: a group that is joined before that leaves it out."""
        await self.table.changelog_topic.maybe_declare()
        await until_known(self.connection, self.changelog, self.table.partitions)
        await super().on_start()

    @property
    def changelog(self) -> str:
        """The changelog topic's name."""
        return str(self.table.changelog_topic_name)

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Fence every assigned partition, also those kept: somebody else may have owned them in between."""
        await self.table.changelog_topic.maybe_declare()
        mine = assigned - self.app.assignor.assigned_standbys()
        partitions = sorted(tp.partition for tp in mine if tp.topic == self.changelog)
        if missing := {tp.partition for tp in mine if tp.topic == self.source_topic}.difference(partitions):
            restart(self.app, f"{self.source_topic} without {self.changelog}: {sorted(missing)}")
        for writer in await self._release():
            self.add_future(writer.stop())
        self.revoke_partitions(self.table, revoked)
        try:
            await asyncio.wait_for(self._fence(partitions, generation_id), FENCE_TIMEOUT_S)
        except Exception:
            restart(self.app, "cannot fence the changelog")

    async def _release(self) -> list[ChangelogWriter]:
        """Give up all partitions; a batch that is being written may finish."""
        owned, self.owned = self.owned, {}
        for partition, owner in owned.items():
            async with self.locks[partition]:
                owner.ready, owner.memory = False, None
        return [owner.writer for owner in owned.values()]

    async def _fence(self, partitions: list[int], generation_id: int) -> None:
        if not partitions:
            return
        name = f"{self.app.conf.id}-{self.table.name}"
        writers = {p: ChangelogWriter(self.connection, self.changelog, p, f"{name}-{p}") for p in partitions}
        await asyncio.gather(*(writer.start() for writer in writers.values()))
        async with self._consumer() as consumer:
            ends = await consumer.end_offsets([TopicPartition(self.changelog, p) for p in partitions])
        for tp, end in ends.items():
            await self._try_open_db_for_partition(tp.partition, generation_id=generation_id)
            self.owned[tp.partition] = Ownership(writers[tp.partition], end)

    def suspend(self, partition: int, owner: Ownership, reason: str) -> None:
        """Not ours any more: a rebalance must follow; if it does not, start afresh."""
        owner.ready, owner.memory = False, None  # whoever holds the memory holds RocksDB's lock
        log.warning("partition_suspended", changelog=self.changelog, partition=partition, reason=reason)

        def check() -> None:
            if self.owned.get(partition) is owner and not owner.ready:
                restart(self.app, f"{self.changelog}-{partition} suspended ({reason}), but no rebalance followed")

        asyncio.get_running_loop().call_later(2 * self.app.conf.broker_session_timeout, check)

    async def stop(self) -> None:
        """Finish what is being written and close."""
        await asyncio.gather(*(writer.stop() for writer in await self._release()))
        await super().stop()

    def persisted_offset(self, tp: TP) -> int | None:
        """For Faust: all is loaded. (For partitions that are not ours: what RocksDB says.)"""
        owner = self.owned.get(tp.partition)
        if owner is not None:
            return owner.end - 1
        stored: int | None = super().persisted_offset(tp)
        return stored

    async def on_recovery_completed(self, active_tps: set[TP], standby_tps: set[TP]) -> None:
        """Load what was fenced; Faust calls it with heartbeats running and the sources paused."""
        todo = {p: owner for p, owner in self.owned.items() if not owner.ready}
        try:
            if todo:
                await self._load(todo)
        except (IllegalStateError, AssertionError) as exc:  # from seek_to_committed: partitions are revoked
            for p, owner in todo.items():
                self.suspend(p, owner, f"rebalance while loading: {exc!r}")
        except Exception:  # Faust would swallow it
            restart(self.app, "cannot load the table")

    async def _load(self, todo: dict[int, Ownership]) -> None:
        """Bring RocksDB up to `end` from the committed changelog, then take the positions from it."""
        source = {p: TopicPartition(self.source_topic, p) for p in todo}
        started = asyncio.get_running_loop().time()
        async with self._consumer() as consumer:
            tps = {p: TopicPartition(self.changelog, p) for p in todo}
            consumer.assign(list(tps.values()))
            first = await consumer.beginning_offsets([*tps.values(), *source.values()])
            for p, owner in todo.items():
                consumer.seek(tps[p], self._resume_at(p, owner, first[tps[p]]))
            with collecting_later():
                loaded = await self._read_changelog(consumer, tps, todo)
        mine = {p: owner for p, owner in todo.items() if self.owned.get(p) is owner}
        for p, owner in mine.items():
            self.write_batch(p, {}, owner.end - 1)  # step over trailing transaction markers
            position = self._dbs[p].get(POSITION_KEY)
            owner.position = int(position) if position else first[source[p]] - 1
        await self._rewind(mine, {p: first[source[p]] for p in mine})
        for owner in mine.values():
            owner.ready = True
        seconds = asyncio.get_running_loop().time() - started
        self.load_stats = {"records": loaded, "seconds": seconds}
        log.info("table_loaded", changelog=self.changelog, records=loaded, partitions=sorted(todo), seconds=seconds)

    def _resume_at(self, partition: int, owner: Ownership, first: int) -> int:
        """The changelog offset to read on from; local state that does not fit the changelog is wiped."""
        stored: int | None = super().persisted_offset(TP(self.changelog, partition))
        if stored is not None and not first <= stored + 1 <= owner.end:
            self._wipe(partition)  # the changelog was replaced or cut off: local state is void
            stored = None
        return first if stored is None else stored + 1

    async def _read_changelog(
        self, consumer: AIOKafkaConsumer, tps: dict[int, TopicPartition], todo: dict[int, Ownership]
    ) -> int:
        """Write the committed changelog into RocksDB, big batches at a time; how many records."""
        pending, loaded = set(todo), 0
        while pending:
            for p in list(pending):
                if self.owned.get(p) is not todo[p]:  # rebalanced again
                    consumer.pause(tps[p])
                    pending.discard(p)
                elif await consumer.position(tps[p]) >= todo[p].end:
                    pending.discard(p)
            fetched = await consumer.getmany(timeout_ms=200, max_records=LOAD_RECORDS) if pending else {}
            for tp, records in fetched.items():
                async with self.locks[tp.partition]:
                    if self.owned.get(tp.partition) is todo[tp.partition]:
                        self.write_batch(tp.partition, {r.key: r.value for r in records}, records[-1].offset)
                        loaded += len(records)
                await asyncio.sleep(0)
        return loaded

    async def _rewind(self, owners: dict[int, Ownership], log_start: dict[int, int]) -> None:
        """Committed source offsets must not be ahead of the table. Faust seeks to them right after recovery; seeking
        by ourselves would race with what its fetcher has in flight."""
        committed, ahead = await self.app.consumer.seek_to_committed(), {}
        for p, owner in owners.items():
            tp = TP(self.source_topic, p)
            owner.expected = committed.get(tp) or log_start[p]
            if owner.expected > owner.position + 1:
                owner.expected = ahead[tp] = owner.position + 1
        if ahead:
            log.warning("source_offsets_rewound", offsets={f"{tp.topic}-{tp.partition}": o for tp, o in ahead.items()})
            await self.app.consumer._commit(ahead)

    def _consumer(self, isolation_level: str = "read_committed") -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            **self.connection,
            enable_auto_commit=False,
            isolation_level=isolation_level,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=8 << 20,
        )

    def _wipe(self, partition: int) -> None:
        log.error("local_state_wiped", changelog=self.changelog, partition=partition)
        self._dbs.pop(partition).close()
        gc.collect()  # rocksdict frees the lock with the last reference
        rocksdict.Rdict.destroy(str(self.partition_path(partition)))
        self._db_for_partition(partition)

    def reader(self, partition: int) -> StateReader:
        """What is in the partition now."""
        return StateReader(self._dbs[partition])

    def write_batch(self, partition: int, changes: Changes, changelog_offset: int) -> None:
        """Apply changes and the changelog offset they reach, atomically, to RocksDB."""
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, value in changes.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        batch.put(self.offset_key, str(changelog_offset).encode())
        self._dbs[partition].write(batch)

    def apply_changelog_batch(self, batch: Any, to_key: Any, to_value: Any) -> None:
        """Faust's own recovery must never have anything to do: it reads uncommitted data."""
        if any(event.message.partition in self.owned for event in batch):
            restart(self.app, f"{self.changelog} changed after it was fenced")

    def _set(self, key: bytes, value: bytes | None) -> None:
        raise TypeError(READ_ONLY)

    def _del(self, key: bytes) -> None:
        raise TypeError(READ_ONLY)

    def set_persisted_offset(self, tp: TP, offset: int) -> None:
        """Forbidden: the offset moves with the values, in `write_batch`."""
        raise TypeError(READ_ONLY)

    async def next_source_offset(self, partition: int, offset: int) -> int:
        """Offset of the first source record at or after `offset` that really exists."""
        return await first_real_offset(self.connection, self.source_topic, partition, offset)


STORES["fenced"] = "agents.runtime.store:FencedStore"  # Faust's registry of stores by URL scheme
