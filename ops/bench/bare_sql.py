"""``python -m ops.bench.bare_sql FILE URL JOB``: recorded transactions over the driver alone, JSON in, JSON out."""

from __future__ import annotations

import asyncio
import json
import pickle
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import asyncpg
import uvloop

from ops.bench.recorded_sql import Transaction
from ops.bench.results import percentile


async def send(connection: asyncpg.Connection[Any], transaction: Transaction) -> None:
    """One transaction, committed."""
    for sql, parameters in transaction:
        if parameters:
            await connection.fetch(sql, *parameters)
        else:
            await connection.execute(sql)
    await connection.execute("COMMIT")


async def run(path: str, url: str, *, connections: int, warm_up_s: float, seconds: float) -> dict[str, float]:
    """Each connection takes the next transaction as soon as it has committed one."""
    waiting: deque[Transaction] = deque(pickle.loads(Path(path).read_bytes()))
    opened = [await asyncpg.connect(url) for _ in range(connections)]
    counts_from = time.perf_counter() + warm_up_s
    ends, last, times = counts_from + seconds, counts_from, list[float]()

    async def work(connection: asyncpg.Connection[Any]) -> None:
        nonlocal last
        while waiting and (began := time.perf_counter()) < ends:
            await send(connection, waiting.popleft())
            done = time.perf_counter()
            if counts_from <= done <= ends:
                times.append(done - began)
                last = max(last, done)

    await asyncio.gather(*(work(connection) for connection in opened))
    for connection in opened:
        await connection.close()
    measured = (min(ends, last) if not waiting else ends) - counts_from
    return {
        "transactions_per_s": len(times) / measured if times else 0.0,
        "p50_ms": 1000 * percentile(times or [0.0], 0.50),
        "p99_ms": 1000 * percentile(times or [0.0], 0.99),
    }


def main(path: str, url: str, job: str) -> None:
    """Run the job and print what was measured."""
    print(json.dumps(uvloop.run(run(path, url, **json.loads(job)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
