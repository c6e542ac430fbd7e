"""``python -m ops.bench.http_load JOB``: load on one route from a process of its own, as JSON in, JSON out.

At saturation each connection asks again as soon as it is answered. At a given rate requests have their moments
beforehand, and times count from those moments: a server that stalls is charged for whoever had to wait.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import uvloop

from ops.bench.http_client import Connection, connect, split
from ops.bench.results import percentile
from ops.stack.errors import StackError

STEP_S: Final = 0.001
DRAIN_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Job:
    """What to ask. `cycle`: begin again at the end of the requests; else they are all that there is."""

    port: int
    requests: str  #: a file of http_client.join
    cycle: bool
    status: int  #: of an answer that counts
    connections: int
    warm_up_s: float
    seconds: float
    rate: float | None  #: None: saturation


@dataclass(frozen=True, slots=True)
class Load:
    """What was measured after the warm-up."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    answers: int
    wrong: dict[str, int]  #: answers of another status
    cpu_share: float  #: of one core, that the load itself took


async def apply(job: Job, directory: Path) -> Load:
    """Run a job in another process. StackError when it fails or any answer was not as it should be."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ops.bench.http_load", json.dumps(asdict(job))),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=directory,
    )
    out, errors = await process.communicate()
    if process.returncode:
        raise StackError(f"the load generator failed: {errors.decode(errors='replace')[-500:]}")
    load = Load(**json.loads(out))
    if load.wrong or not load.answers:
        raise StackError(f"answers of another status than {job.status}: {load.wrong}; right ones: {load.answers}")
    return load


class Driver:
    """Keeps connections busy and notes how long answers took."""

    def __init__(self, job: Job, requests: list[bytes]) -> None:
        self._job, self._requests = job, requests
        self._next = 0
        self._times: list[float] = []
        self._wrong: dict[str, int] = {}
        self._free: deque[Connection] = deque()
        self._late: deque[float] = deque()  #: moments of requests that found no free connection
        self._ends = self._counts_from = 0.0

    async def run(self) -> Load:
        """The whole job."""
        self._free.extend(await connect(self._job.port, self._job.connections, self._answered))
        every = list(self._free)
        began = time.perf_counter()
        self._counts_from = began + self._job.warm_up_s
        self._ends = self._counts_from + self._job.seconds
        if self._job.rate is None:
            await self._saturate()
        else:
            await self._pace(began, self._job.rate)
        elapsed = min(time.perf_counter(), self._ends) - self._counts_from
        answers = len(self._times)
        await self._drain()
        for connection in every:
            connection.close()
        return self._load(elapsed, answers, time.perf_counter() - began)

    def _load(self, elapsed: float, answers: int, seconds: float) -> Load:
        used = resource.getrusage(resource.RUSAGE_SELF)
        times = self._times or [0.0]
        return Load(
            requests_per_s=answers / elapsed,
            p50_ms=1000 * percentile(times, 0.50),
            p99_ms=1000 * percentile(times, 0.99),
            answers=answers,
            wrong=self._wrong,
            cpu_share=(used.ru_utime + used.ru_stime) / seconds,
        )

    async def _saturate(self) -> None:
        while self._free:
            self._ask(time.perf_counter())
        while time.perf_counter() < self._ends and self._has_more():
            await asyncio.sleep(0.01)

    async def _pace(self, began: float, rate: float) -> None:
        sent = 0
        while (now := time.perf_counter()) < self._ends and self._has_more():
            while sent < (now - began) * rate:
                moment = began + sent / rate
                sent += 1
                if self._free:
                    self._ask(moment)
                else:
                    self._late.append(moment)
            await asyncio.sleep(STEP_S)

    async def _drain(self) -> None:
        until = time.perf_counter() + DRAIN_S
        while len(self._free) < self._job.connections and time.perf_counter() < until:
            await asyncio.sleep(0.005)

    def _has_more(self) -> bool:
        return self._job.cycle or self._next < len(self._requests)

    def _ask(self, moment: float) -> None:
        if not self._has_more():
            return
        request = self._requests[self._next % len(self._requests)]
        self._next += 1
        self._free.popleft().ask(request, moment)

    def _answered(self, connection: Connection, status: int, moment: float) -> None:
        now = time.perf_counter()
        if status != self._job.status:
            self._wrong[str(status)] = self._wrong.get(str(status), 0) + 1
        elif moment >= self._counts_from if self._job.rate else now >= self._counts_from:
            self._times.append(now - moment)
        self._free.append(connection)
        if now >= self._ends:
            return
        if self._late:
            self._ask(self._late.popleft())
        elif self._job.rate is None:
            self._ask(now)


def main(text: str) -> None:
    """Run the job that the JSON describes and print what was measured."""
    job = Job(**json.loads(text))
    requests = split(Path(job.requests).read_bytes())
    print(json.dumps(asdict(uvloop.run(Driver(job, requests).run()))))


if __name__ == "__main__":
    main(sys.argv[1])
