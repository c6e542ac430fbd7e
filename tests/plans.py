"""How Postgres runs what a read asks: the plans of its statements, with the values that it had."""

from __future__ import annotations

import json
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from tests.statements import statements

Node = dict[str, Any]


async def plans_of(tx: AsyncSession, read: Coroutine[Any, Any, Sequence[Any]]) -> tuple[int, list[Node]]:
    """How many rows a read found, and the plans of its statements as they ran, each by its uppermost node."""
    ran: list[tuple[str, Any]] = []
    connection = await tx.connection()
    with statements(lambda sql, parameters: ran.append((sql, tuple(parameters)))):
        found = len(await read)
    plans: list[Node] = []
    for statement, parameters in ran:
        if statement.startswith("SELECT"):
            answer = await connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)
            plan = answer.scalar_one()
            plans.append((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"])
    return found, plans


def walk(node: Node) -> Iterator[Node]:
    """A plan's nodes."""
    yield node
    for child in node.get("Plans", ()):
        yield from walk(child)


def looked_at(node: Node) -> int:
    """The rows that a scan has read, whether they were wanted or not."""
    return int((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"])
