"""The whole system as a child process, and what a test may do to its parts."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import asyncpg
import redis.asyncio as redis

from ops.settings import Settings
from ops.stack.paths import DataDir

REPOSITORY = Path(__file__).parents[2]
UP = (sys.executable, "-m", "ops.cli", "up")
WORKER = (sys.executable, "-m", "ops.cli", "worker")
BACK_S = 120.0  #: a killed process is up again
PARTS = "postgres,kafka,redis"
SHARDS = 12
GRACE_S = 1805  #: token TTL and skew
ENVIRONMENT = {"PACKSTREAM_ENV": "test", "RATE_LIMIT_SCALE": "1000", "LOG_LEVEL": "info", "LOG_FORMAT": "json"}


async def until(what: str, check: Callable[[], Awaitable[Any]], *, timeout_s: float = 60.0) -> Any:
    """Wait for a true answer and return it; AssertionError that says `what` did not come."""
    deadline = time.monotonic() + timeout_s
    while not (answer := await check()):
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        await asyncio.sleep(0.1)
    return answer


class System:
    """`packstream up` in a directory of its own, under /tmp so that Postgres' own user can get there."""

    def __init__(self, command: Sequence[str] = UP, *, worker: Sequence[str] = WORKER, parts: str = PARTS) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="packstream-faults-"))
        self.root.chmod(0o755)
        self.data = DataDir.at(self.root / "data")
        self._command = (*command, "--json", "--data", str(self.data.root), "--parts", parts)
        self.worker_command = tuple(worker)
        self._process: subprocess.Popen[str] | None = None
        self._workers: list[ExtraWorker] = []
        self.described: dict[str, Any] = {}

    def __enter__(self) -> Self:
        """Everything is ready; at the end nothing is left."""
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()

    def start(self) -> None:
        """Return when everything is ready."""
        with (self.root / "up.err").open("ab") as err:
            self._process = subprocess.Popen(
                self._command,
                env={**os.environ, **ENVIRONMENT},
                cwd=REPOSITORY,
                stdout=subprocess.PIPE,
                stderr=err,
                text=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, (self.root / "up.err").read_text()
        self.described = json.loads(line)

    def stop(self) -> None:
        """End it and all that was started beside it; nothing is left."""
        for worker in self._workers:
            worker.stop()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(40)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if not os.environ.get("KEEP_FAULTS"):
            shutil.rmtree(self.root, ignore_errors=True)

    @property
    def api(self) -> str:
        return str(self.described["api"])

    @property
    def settings(self) -> Settings:
        """As the system's own processes have them."""
        names = ("DATABASE_URL", "DATABASE_APP_URL", "REDIS_URL", "KAFKA_BROKERS")
        found = {**{name: self.data.read_env()[name] for name in names}, **ENVIRONMENT, "DATA_DIR": str(self.data.root)}
        return Settings(**{name.lower(): value for name, value in found.items()})  # type: ignore[arg-type]

    # -- processes ----------------------------------------------------------------------------------------------------

    def pid(self, name: str) -> int | None:
        found: dict[str, int] = json.loads(self.data.pids_file.read_text())
        return found.get(name)

    async def signal(self, name: str, number: int) -> int:
        """Send a signal to a part or program; its pid."""
        pid: int = await until(f"{name} runs", self._running(name), timeout_s=BACK_S)
        os.kill(pid, number)
        return pid

    async def kill(self, name: str) -> int:
        """kill -9; the pid that it had."""
        return await self.signal(name, signal.SIGKILL)

    async def back(self, name: str, old: int) -> None:
        """Wait until the supervisor has started it again and it is ready."""

        async def replaced() -> bool:
            return self.pid(name) not in (None, old) and self._is_ready(name)

        await until(f"{name} is back", replaced, timeout_s=BACK_S)

    def _running(self, name: str) -> Callable[[], Awaitable[int | None]]:
        async def pid() -> int | None:
            return self.pid(name)

        return pid

    def _is_ready(self, name: str) -> bool:
        if name not in ("relay", "worker"):
            return True
        path = self.data.ready_file(name)
        return path.exists() and path.read_text().strip() == str(self.pid(name))

    def second_worker(self) -> ExtraWorker:
        """One more worker in the same group, with a directory of its own."""
        worker = ExtraWorker(self, f"{len(self._workers) + 1}")
        self._workers.append(worker)
        return worker

    def log_lines(self, log: str, *words: str) -> int:
        """How many lines of a log hold all of `words`."""
        path = self.data.log(log)
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        return sum(all(word in line for word in words) for line in lines)

    def fencings(self, log: str = "worker") -> int:
        """How often the broker refused what a worker wrote because somebody else owned its partition by then."""
        return self.log_lines(log, '"event":"partition_suspended"', '"reason":"fenced"')

    # -- stores -------------------------------------------------------------------------------------------------------

    async def rows(self, sql: str, *arguments: Any) -> list[Any]:
        """What Postgres says, as its owner."""
        connection = await asyncpg.connect(self.described["database"], timeout=10)
        try:
            return list(await connection.fetch(sql, *arguments))
        finally:
            await connection.close()

    async def value(self, sql: str, *arguments: Any) -> Any:
        return (await self.rows(sql, *arguments))[0][0]

    async def redis(self, *command: Any) -> Any:
        """The answer to one command."""
        return (await self.redis_all([command]))[0]

    async def redis_all(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The answers to commands that are sent together."""
        client = redis.Redis.from_url(self.described["redis"])
        try:
            pipeline = client.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            return list(await pipeline.execute())
        finally:
            await client.aclose()

    async def gate_fields(self, field: str) -> list[Any]:
        """One field of each shard's gate."""
        return await self.redis_all([("HGET", f"ads:{{{shard}}}:gate", field) for shard in range(SHARDS)])

    async def outbox_drained(self, *, timeout_s: float = 60.0) -> float:
        """Wait until all rows that are in the outbox now have left it; the seconds that it took."""
        last, started = await self.value("SELECT coalesce(max(seq), 0) FROM outbox_events"), time.monotonic()

        async def gone() -> bool:
            left = await self.value("SELECT count(*) FROM outbox_events WHERE seq <= $1", last)
            return bool(left == 0)

        await until("the outbox is empty", gone, timeout_s=timeout_s)
        return time.monotonic() - started

    async def watermarks_passed(self, at: datetime, *, timeout_s: float = 60.0) -> None:
        """Wait until every shard's watermark, as Redis has it, has passed `at`."""
        wanted = at.timestamp() * 1_000_000

        async def passed() -> bool:
            found = await self.gate_fields("watermark_us")
            return all(value is not None and int(value) >= wanted for value in found)

        await until(f"watermarks passed {at}", passed, timeout_s=timeout_s)

    async def gates_open(self) -> int:
        """How many shards' gates are open, by Postgres and by Redis."""
        run_id = (await self.redis("INFO", "server"))["run_id"]
        rows = await self.rows("SELECT shard, epoch, run_id, state FROM ad_gate_epochs")
        held = await self.gate_fields("epoch")
        return sum(
            row["state"] == "open" and row["run_id"] == run_id and held[row["shard"]] == str(row["epoch"]).encode()
            for row in rows
        )

    async def all_gates_open(self, *, timeout_s: float = 60.0) -> None:
        async def opened() -> bool:
            return await self.gates_open() == SHARDS

        await until("all gates are open", opened, timeout_s=timeout_s)

    async def now(self) -> datetime:
        """Business time."""
        row = (await self.rows("SELECT offset_us, floor_at FROM logical_clock") or [None])[0]
        wall = datetime.now(UTC)
        if row is None:
            return wall
        now = wall + timedelta(microseconds=row["offset_us"])
        return max(now, row["floor_at"]) if row["floor_at"] else now

    async def day(self) -> date:
        return (await self.now()).date()


class ExtraWorker:
    """A worker beside the supervised one; started again when it ends on its own, as a supervisor would."""

    def __init__(self, system: System, name: str) -> None:
        self.system, self.name = system, name
        self.log_name = f"worker-{name}"
        self._ready_file = system.data.ready_file(self.log_name)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._ready_file.unlink(missing_ok=True)
        environment = {
            **os.environ,
            **ENVIRONMENT,
            "PACKSTREAM_WORKER": self.name,
            "PACKSTREAM_READY_FILE": str(self._ready_file),
        }
        with self.system.data.log(self.log_name).open("ab") as out:
            self.process = subprocess.Popen(
                [*self.system.worker_command, "--data", str(self.system.data.root)],
                env=environment,
                cwd=REPOSITORY,
                stdout=out,
                stderr=out,
            )

    async def ready(self, *, timeout_s: float = BACK_S) -> None:
        async def is_ready() -> bool:
            assert self.process is not None
            if self.process.poll() is not None:
                self.start()
            return self._ready_file.exists()

        await until(f"{self.log_name} is ready", is_ready, timeout_s=timeout_s)

    def stop(self) -> None:
        """End it, by force where it does not go."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
