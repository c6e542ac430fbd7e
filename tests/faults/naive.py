"""The negative control: the same agent without a fence and without positions, under the same supervisor.

`python -m tests.faults.naive up|worker …` stands for `packstream up|worker …`. What is taken away: changelog writes are
plain, so nobody is refused; a batch is folded whatever the table already contains; offsets are never moved back.
What stays is what most counters on a stream have: one atomic write a batch, and marks of the events seen.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

import click
from aiokafka import AIOKafkaProducer

import agents.runtime.store
import agents.worker
from agents.runtime.bulk import BulkAgent
from agents.runtime.changelog import BATCH_BYTES, ChangelogWriter, Changes
from agents.runtime.store import FencedStore, Ownership
from ops.cli.context import adopt_addresses
from ops.settings import load_settings
from ops.stack.local import parse_parts
from ops.stack.paths import DataDir
from ops.stack.processes import Command
from ops.supervisor.programs import Api, Relay, Worker
from ops.supervisor.system import run_system

WORKER = (sys.executable, "-m", "tests.faults.naive", "worker")


class UnfencedWriter(ChangelogWriter):
    """Anybody may write a partition."""

    def __init__(self, connection: dict[str, Any], topic: str, partition: int, transactional_id: str) -> None:
        self.topic, self.partition = topic, partition
        self._producer = AIOKafkaProducer(
            **connection, acks="all", linger_ms=0, max_batch_size=BATCH_BYTES, max_request_size=4 * BATCH_BYTES
        )

    async def write(self, changes: Changes) -> int:
        sent = [await self._send(batch) for batch in self._batches(changes)]
        return int([(await future).offset + count for future, count in sent][-1]) - 1


class NaiveAgent(BulkAgent):
    """Folds what it is given."""

    async def _handle(self, partition: int, events: list[Any]) -> None:
        messages = [event.message for event in events]
        await self._fold.prepare(messages)
        async with self.store.locks[partition]:
            owner = self.store.owned.get(partition)
            if owner is None or not owner.ready:
                return
            if owner.memory is None:
                owner.memory = self._fold.open(partition, self.store.reader(partition))
            memory, shown = owner.memory, []
            await self._commit(partition, owner, messages, shown)
        await self._fold.show(partition, memory, shown)
        for event in events:
            event.ack()


async def _follow_committed(self: FencedStore, owners: dict[int, Ownership], log_start: dict[int, int]) -> None:
    await self.app.consumer.seek_to_committed()


class NaiveWorker(Worker):
    """The worker as the supervisor starts it."""

    def command(self) -> Command:
        real = super().command()
        return Command((*WORKER, "--data", str(self.site.data.root)), env=real.env)


@click.group()
def main() -> None:
    """`packstream`, with a naive counter."""


@main.command()
@click.option("--data", required=True)
def worker(data: str) -> None:
    """The stream agents."""
    adopt_addresses(DataDir.at(data))
    agents.runtime.store.ChangelogWriter = UnfencedWriter  # type: ignore[misc]
    agents.worker.BulkAgent = NaiveAgent  # type: ignore[misc]
    FencedStore._rewind = _follow_committed  # type: ignore[method-assign]
    agents.worker.main(load_settings())


@main.command()
@click.option("--data", required=True)
@click.option("--parts")
@click.option("--json", "as_json", is_flag=True)
def up(data: str, parts: str | None, as_json: bool) -> None:
    """The whole system."""
    asyncio.run(
        run_system(
            DataDir.at(data),
            parse_parts(parts),
            environ=os.environ,
            say=lambda line: click.echo(line, err=True),
            when_ready=lambda described: click.echo(json.dumps(described)),
            programs=(Api, Relay, NaiveWorker),
        )
    )


if __name__ == "__main__":
    main()
