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

import asyncpg

from models.database import Driver, make_driver_pool
from models.tenancy import DriverTransactions, Tenant
from ops.bench.site import BenchSite
from ops.stack.errors import StackError


class Statement(NamedTuple):
    """What the driver gets."""

    sql: str
    parameters: Sequence[Any]


Transaction = Sequence[Statement]  #: from its BEGIN on; its COMMIT is not there


class Recorder:
    """Runs commands as the API's role does, and gives back what they sent."""

    def __init__(self, transactions: DriverTransactions, seen: list[Statement]) -> None:
        self._transactions, self._seen = transactions, seen

    async def record(self, tenant: Tenant, command: Callable[[Driver], Awaitable[object]]) -> Transaction:
        """What `command` sent in a transaction for the store, which is rolled back."""
        self._seen.clear()
        try:
            async with self._transactions.begin(tenant) as db:
                await command(db)
                raise Recorded(list(self._seen))
        except Recorded as exc:
            return exc.transaction

    async def run(self, tenant: Tenant, command: Callable[[Driver], Awaitable[object]]) -> None:
        """The same, committed."""
        async with self._transactions.begin(tenant) as db:
            await command(db)


class Recorded(Exception):
    """Ends a transaction whose statements are known."""

    def __init__(self, transaction: Transaction) -> None:
        super().__init__()
        self.transaction = transaction


@asynccontextmanager
async def recorder(found: BenchSite) -> AsyncIterator[Recorder]:
    """On a connection of its own."""
    seen: list[Statement] = []

    class Noted(asyncpg.Connection):
        """Notes what it is given."""

        async def fetch(self, query: str, *args: Any, **options: Any) -> Any:
            seen.append(Statement(query, args))
            return await super().fetch(query, *args, **options)

        async def execute(self, query: str, *args: Any, **options: Any) -> Any:
            seen.append(Statement(query, args))
            return await super().execute(query, *args, **options)

    pool = await make_driver_pool(
        found.settings.sqlalchemy_app_url, size=1, application="packstream-bench", connection_class=Noted
    )
    try:
        yield Recorder(DriverTransactions(pool, restricted=True), seen)
    finally:
        await pool.close()


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
