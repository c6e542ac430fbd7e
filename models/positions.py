"""How far each agent has come in each partition, as the workers last said: for operators, not for the agents."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import SmallInteger, Text, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from models.database import Base


class AgentPosition(Base):
    __tablename__ = "agent_positions"

    agent: Mapped[str] = mapped_column(Text, primary_key=True)
    topic: Mapped[str] = mapped_column(Text, primary_key=True)
    partition: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    applied_offset: Mapped[int] = mapped_column(comment="of the last record whose effect is durable; -1: none yet")
    end_offset: Mapped[int] = mapped_column(comment="of the next record to be written, as the worker knew")
    worker: Mapped[str] = mapped_column(Text, comment="host and pid of the worker that said so")
    updated_at: Mapped[datetime] = mapped_column(comment="wall time; old: nobody has the partition")


class Position(NamedTuple):
    """What one worker says of one partition."""

    agent: str
    topic: str
    partition: int
    applied_offset: int
    end_offset: int

    @property
    def lag(self) -> int:
        """Records that are still to come, transaction markers included."""
        return max(0, self.end_offset - self.applied_offset - 1)


async def keep(tx: AsyncSession, positions: Sequence[Position], *, worker: str, wall: datetime) -> None:
    """Keep what a worker says in place of what was said before."""
    if not positions:
        return
    rows = [{**position._asdict(), "worker": worker, "updated_at": wall} for position in sorted(positions)]
    statement = insert(AgentPosition).values(rows)
    said = {name: statement.excluded[name] for name in ("applied_offset", "end_offset", "worker", "updated_at")}
    await tx.execute(statement.on_conflict_do_update(index_elements=["agent", "topic", "partition"], set_=said))


async def agents(tx: AsyncSession) -> list[dict[str, Any]]:
    """Each agent and topic with its lag, the sum over the partitions, and the partitions."""
    order = (AgentPosition.agent, AgentPosition.topic, AgentPosition.partition)
    rows = (await tx.scalars(select(AgentPosition).order_by(*order))).all()
    return [
        {"agent": agent, "topic": topic, **_summed([_partition(row) for row in its])}
        for (agent, topic), its in groupby(rows, lambda row: (row.agent, row.topic))
    ]


def _partition(row: AgentPosition) -> dict[str, Any]:
    said = Position(row.agent, row.topic, row.partition, row.applied_offset, row.end_offset)
    return {
        "partition": row.partition,
        "applied_offset": row.applied_offset,
        "end_offset": row.end_offset,
        "lag": said.lag,
        "worker": row.worker,
        "updated_at": row.updated_at,
    }


def _summed(partitions: list[dict[str, Any]]) -> dict[str, Any]:
    oldest = min(row["updated_at"] for row in partitions)
    return {"lag": sum(row["lag"] for row in partitions), "updated_at": oldest, "partitions": partitions}
