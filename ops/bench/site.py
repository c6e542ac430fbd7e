"""A stack of a bench's own, in a temporary directory, and the system's processes on it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any, Final

from ops.migrate import upgrade
from ops.settings import Settings
from ops.stack.errors import StackError
from ops.stack.local import stack_down, stack_up
from ops.stack.paths import DataDir
from ops.stack.processes import Command, spawn
from ops.stack.units import last_line
from ops.topics import ensure_topics

BROKER_JVM: Final = (
    "-Xms768m -Xmx768m"  #: the local stack's is small and quick to start; here it must not be what bounds
)
READY_S: Final = 90.0
STOP_S: Final = 20.0
QUIET: Final = {"LOG_LEVEL": "info", "LOG_FORMAT": "json", "PACKSTREAM_ENV": "test", "RATE_LIMIT_SCALE": "10000"}


@dataclass(frozen=True)
class BenchSite:
    """Where the parts are."""

    root: Path
    addresses: Mapping[str, str]

    @property
    def environment(self) -> dict[str, str]:
        """For the system's processes."""
        return {**QUIET, **self.addresses}

    @property
    def settings(self) -> Settings:
        """The same, for this process."""
        return Settings(**{name.lower(): value for name, value in self.environment.items()})  # type: ignore[arg-type]

    @property
    def brokers(self) -> str:
        return self.addresses["KAFKA_BROKERS"]

    def process(self, name: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Process:
        """A process of the system that is not started yet: `packstream ARGUMENTS`."""
        directory = self.root / "processes" / name
        directory.mkdir(parents=True, exist_ok=True)
        return Process(directory, arguments, {**self.environment, **(environment or {})})


@asynccontextmanager
async def site(*parts: str) -> AsyncIterator[BenchSite]:
    """The parts named, with the newest schema and the topics where they belong; gone afterwards."""
    root = Path(tempfile.mkdtemp(prefix="packstream-bench-"))
    root.chmod(0o755)  # Postgres may run as another user
    data = DataDir.at(root)
    try:
        with _broker_for_benches():
            planned = await stack_up(data, parts, bound=True, say=lambda line: None)
        found = BenchSite(root, planned.site.addresses)
        if "postgres" in parts:
            await asyncio.to_thread(upgrade, found.settings)
        if "kafka" in parts:
            await ensure_topics(found.settings)
        yield found
    finally:
        await stack_down(data, parts)
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def _broker_for_benches() -> Iterator[None]:
    before = os.environ.get("KAFKA_JVM_OPTS")
    os.environ["KAFKA_JVM_OPTS"] = before or BROKER_JVM
    try:
        yield
    finally:
        if before is None:
            del os.environ["KAFKA_JVM_OPTS"]


class Process:
    """`packstream …` as a process of its own; it dies with this one."""

    def __init__(self, directory: Path, arguments: Iterable[str], environment: Mapping[str, str]) -> None:
        self.directory = directory
        self.log = directory / "log"
        self._ready_file = directory / "ready"
        self._arguments = tuple(arguments)
        self._environment = {
            **environment,
            "DATA_DIR": str(directory),
            "PACKSTREAM_READY_FILE": str(self._ready_file),
        }
        self._process: Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; its log goes on."""
        self._ready_file.unlink(missing_ok=True)
        command = Command((sys.executable, "-m", "ops.cli", *self._arguments), env=self._environment)
        self._process = spawn(command, self.log, death_signal=signal.SIGKILL)

    async def ready(self) -> None:
        """Return when it has said that it is ready. StackError when it ended, or takes too long."""
        deadline = time.monotonic() + READY_S
        while not self._ready_file.exists():
            self.check()
            if time.monotonic() > deadline:
                raise StackError(f"{' '.join(self._arguments)} is not ready after {READY_S:.0f} s: {self._last_words}")
            await asyncio.sleep(0.005)

    def check(self) -> None:
        """StackError when it has ended."""
        assert self._process is not None
        status = self._process.poll()
        if status is not None:
            raise StackError(f"{' '.join(self._arguments)} ended with status {status}: {self._last_words}")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def _last_words(self) -> str:
        return last_line(self.log.read_text(errors="replace"))

    def terminate(self) -> None:
        """SIGTERM; it may take its time."""
        assert self._process is not None
        self._process.terminate()

    async def stop(self) -> None:
        """End it, by force where it does not go."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            deadline = time.monotonic() + STOP_S
            while process.poll() is None and time.monotonic() < deadline:
                await asyncio.sleep(0.02)
        if process.poll() is None:
            process.kill()
            process.wait()
        self._process = None

    def logged(self, event: str) -> list[dict[str, Any]]:
        """What it has logged under an event's name, oldest first."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return [json.loads(line[line.index("{") :]) for line in lines if f'"event":"{event}"' in line]
