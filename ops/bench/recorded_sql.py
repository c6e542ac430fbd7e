"""The statements of a request, written down as the driver gets them, to be sent again with no framework around them.

A request is made in this process and rolled back; its statements, parameters included, are then good to be sent once.
"""

from __future__ import annotations

import asyncio
import json
import pickle
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession

from models.database import SessionFactory, make_engine
from models.tenancy import SCOPE, Tenant, make_scoped_sessions
from ops.bench.site import BenchSite
from ops.stack.errors import StackError


class Statement(NamedTuple):
    """What the driver gets; `many`: parameters are those of many rows."""

    sql: str
    parameters: Any
    many: bool


Transaction = Sequence[Statement]


class Recorder:
    """Runs commands as the API's role does, and gives back what they sent."""

    def __init__(self, sessions: SessionFactory, seen: list[Statement]) -> None:
        self._sessions, self._seen = sessions, seen

    async def record(self, tenant: Tenant, command: Callable[[AsyncSession], Awaitable[object]]) -> Transaction:
        """What `command` sent in a transaction for the store, which is rolled back."""
        self._seen.clear()
        async with self._sessions(info={SCOPE: lambda: tenant}) as tx:
            await command(tx)
            await tx.rollback()
        return list(self._seen)

    async def run(self, tenant: Tenant, command: Callable[[AsyncSession], Awaitable[object]]) -> None:
        """The same, committed."""
        async with self._sessions(info={SCOPE: lambda: tenant}) as tx:
            await command(tx)
            await tx.commit()


@asynccontextmanager
async def recorder(found: BenchSite) -> AsyncIterator[Recorder]:
    """On a connection of its own."""
    engine = make_engine(found.settings.sqlalchemy_app_url, pool_size=1, application="packstream-bench")
    seen: list[Statement] = []

    def note(_c: object, _k: object, sql: str, parameters: Any, _x: object, many: bool) -> None:
        seen.append(Statement(sql, parameters, many))

    event.listen(engine.sync_engine, "before_cursor_execute", note)
    try:
        yield Recorder(make_scoped_sessions(engine), seen)
    finally:
        await engine.dispose()


@dataclass(frozen=True, slots=True)
class Pace:
    """What bare SQL did after the warm-up."""

    transactions_per_s: float
    p50_ms: float
    p99_ms: float


async def replay(
    found: BenchSite, transactions: Sequence[Transaction], *, connections: int, warm_up_s: float, seconds: float
) -> Pace:
    """Send each once, from a process of its own, as fast as Postgres takes them. StackError when it fails."""
    path = Path(found.root / "transactions")
    path.write_bytes(pickle.dumps(list(transactions)))
    job = {"connections": connections, "warm_up_s": warm_up_s, "seconds": seconds}
    url = found.addresses["DATABASE_APP_URL"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ops.bench.bare_sql", str(path), url, json.dumps(job)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=found.root,
    )
    out, errors = await process.communicate()
    if process.returncode:
        raise StackError(f"bare SQL failed: {errors.decode(errors='replace')[-500:]}")
    return Pace(**json.loads(out))
