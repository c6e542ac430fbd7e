"""An agent that folds whole batches: one Kafka transaction and one RocksDB write per partition and batch.

Stock Faust pays about 200 µs an event: every table write is one changelog message and one RocksDB put. Here a batch is
drained from the agent's channel, folded in plain Python, made durable, shown outside, and only then acknowledged.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol, TypeVar

from agents.runtime.changelog import FencedError
from agents.runtime.channel import drain
from agents.runtime.crash import restart
from agents.runtime.store import POSITION_KEY, FencedStore, Ownership, StateReader

State = TypeVar("State")
Shown = TypeVar("Shown")

BATCH_RECORDS: Final = 1000  #: drained from the channel at once, over all partitions


class BulkFold(Protocol[State, Shown]):
    """The agent's own part. `open`, `fold` and `repeat` are pure; `prepare` and `show` are its two ends."""

    def open(self, partition: int, table: StateReader) -> State:
        """The partition's state in memory, right after loading."""

    async def prepare(self, messages: Sequence[Any]) -> None:
        """Look up whatever folding these records needs."""

    def fold(self, state: State, messages: Sequence[Any]) -> tuple[dict[bytes, bytes | None], Shown]:
        """Fold new records, in order. The state may be changed in place: it is dropped when anything fails."""

    def repeat(self, state: State, messages: Sequence[Any], *, last: bool) -> Shown:
        """What records that the state already contains had to show: it may have been lost on the way.

        `last`: with these, all that the state contains has been shown. Until then the state is ahead of the outside,
        so what it says of the whole (a watermark) must not be shown."""

    async def show(self, partition: int, state: State, shown: Sequence[Shown]) -> None:
        """Bring durable values to the outside. Idempotent, never backwards, retries by itself."""


class BulkAgent:
    """Binds a `BulkFold` to a topic and a table on a ``fenced://`` store. `pace_s`: time between transactions."""

    def __init__(
        self, app: Any, name: str, topic: Any, table: Any, fold: BulkFold[Any, Any], *, pace_s: float = 0.0
    ) -> None:
        self._app, self.name = app, name
        self._fold = fold
        self._pace_s = pace_s
        self.store: FencedStore = table.data
        self.store.source_topic = topic.get_topic_name()

    def owned(self) -> dict[int, Ownership]:
        """The partitions that are loaded and ours."""
        return {p: owner for p, owner in self.store.owned.items() if owner.ready}

    def applied(self) -> Mapping[tuple[str, int], int]:
        """The last offset that is durable in the table, by topic and partition; -1: none yet."""
        return {(self.store.source_topic, partition): owner.position for partition, owner in self.owned().items()}

    @asynccontextmanager
    async def state(self, partition: int) -> AsyncIterator[Any]:
        """The partition's state, as durable as it looks while the block holds it; None when it is not ours."""
        async with self.store.locks[partition]:
            owner = self.store.owned.get(partition)
            yield self._memory(partition, owner) if owner is not None and owner.ready else None

    def _memory(self, partition: int, owner: Ownership) -> Any:
        if owner.memory is None:
            owner.memory = self._fold.open(partition, self.store.reader(partition))
        return owner.memory

    async def run(self, stream: Any) -> None:
        """The agent's body. It never lets an exception out: Faust would acknowledge what was lost."""
        async for batch in drain(self._app, stream, records_max=BATCH_RECORDS):
            try:
                await asyncio.gather(*(self._handle(p, events) for p, events in batch.items()))
            except Exception as exc:
                restart(self._app, f"batch failed: {exc!r}")
            if self._pace_s:
                await asyncio.sleep(self._pace_s)

    async def _handle(self, partition: int, events: list[Any]) -> None:
        shown: list[Any] = []
        await self._fold.prepare([event.message for event in events])
        async with self.store.locks[partition]:
            owner = self.store.owned.get(partition)
            if owner is None or not owner.ready:
                return  # not ours (any more): never acknowledged, so it is delivered again
            memory = self._memory(partition, owner)
            repeated = [e.message for e in events if e.message.offset <= owner.position]
            fresh = await self._contiguous(partition, events, owner)
            if repeated:
                last = repeated[-1].offset == owner.position
                shown.append(self._fold.repeat(memory, repeated, last=last))
            if fresh and not await self._commit(partition, owner, fresh, shown):
                return
            position = owner.position
        await self._fold.show(partition, memory, shown)
        for event in events:
            if event.message.offset <= position:
                event.ack()

    async def _commit(self, partition: int, owner: Ownership, messages: list[Any], shown: list[Any]) -> bool:
        """Fold and make durable; False when somebody else owns the partition by now."""
        changes, show = self._fold.fold(owner.memory, messages)
        last = messages[-1].offset
        changes[POSITION_KEY] = str(last).encode()
        try:
            offset = await owner.writer.write(changes)
        except FencedError:
            self.store.suspend(partition, owner, "fenced")
            return False
        self.store.write_batch(partition, changes, offset)
        owner.position = last
        shown.append(show)
        return True

    async def _contiguous(self, partition: int, events: list[Any], owner: Ownership) -> list[Any]:
        """The records behind the position, after a check that none was left out. A hole must be one of the log
        (transaction markers, retention), not a lost delivery."""
        for event in events:
            offset = event.message.offset
            if offset > owner.expected:
                real = await self.store.next_source_offset(partition, owner.expected)
                if real < offset:
                    source = f"{self.store.source_topic}-{partition}"
                    raise RuntimeError(f"{source}: {real}..{offset - 1} were not delivered")
            owner.expected = max(owner.expected, offset + 1)
        fresh = {e.message.offset: e.message for e in events if e.message.offset > owner.position}
        return [fresh[offset] for offset in sorted(fresh)]
