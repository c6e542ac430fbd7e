"""Says, every now and then, how far this worker's agents have come: Postgres keeps it for operators."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import structlog
from faust.types import TP
from prometheus_client import Gauge
from sqlalchemy.exc import SQLAlchemyError

from models import positions
from models.database import SessionFactory
from models.positions import Position

EVERY_S: Final = 1.0
LAG = Gauge("packstream_agent_lag_records", "records that an agent has still to apply", ["agent", "topic", "partition"])

log = structlog.get_logger(__name__)


class Applying(Protocol):
    """An agent that can say what it has applied."""

    name: str

    def applied(self) -> Mapping[tuple[str, int], int]:
        """The last offset whose effect is durable, by topic and partition."""


async def report(app: Any, agents: Sequence[Applying], sessions: SessionFactory) -> None:
    """Keep the positions of what is assigned to this worker, until the app stops."""
    worker = f"{platform.node()}:{os.getpid()}"
    while not app.should_stop:
        await asyncio.sleep(EVERY_S)
        found = known(app.consumer, agents)
        for position in found:
            LAG.labels(position.agent, position.topic, str(position.partition)).set(position.lag)
        try:
            async with sessions.begin() as tx:
                await positions.keep(tx, found, worker=worker, wall=datetime.now(UTC))
        except (SQLAlchemyError, OSError) as exc:
            log.warning("positions_not_kept", error=repr(exc))


def known(consumer: Any, agents: Sequence[Applying]) -> list[Position]:
    """What the agents have applied of the partitions that the consumer has, and where those end."""
    assigned = consumer.assignment()
    return [
        Position(agent.name, topic, partition, offset, max(offset + 1, consumer.highwater(TP(topic, partition)) or 0))
        for agent in agents
        for (topic, partition), offset in agent.applied().items()
        if TP(topic, partition) in assigned
    ]
