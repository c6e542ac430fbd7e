"""A unit is one process that a stack starts, waits for, restarts and stops: a part, or the API, relay, worker."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from ops.stack.errors import StackError
from ops.stack.paths import DataDir
from ops.stack.processes import Command, Identity, Records, spawn

READY_POLL_S = 0.05


@dataclass(frozen=True)
class Site:
    """Where one stack lives: its directory, the ports chosen for it, the addresses that follow from them."""

    data: DataDir
    ports: Mapping[str, int]
    addresses: Mapping[str, str] = field(default_factory=dict)

    @property
    def records(self) -> Records:
        return Records(self.data.run, self.data.pids_file)


class Unit(ABC):
    """One process of a stack. Methods may block: they run in threads; ``command`` is executed by the caller."""

    name: ClassVar[str]
    ports: ClassVar[tuple[str, ...]] = ()
    optional: ClassVar[bool] = False
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    death_signal: ClassVar[signal.Signals] = signal.SIGKILL
    ready_timeout_s: ClassVar[float] = 30.0
    stop_timeout_s: ClassVar[float] = 8.0

    def __init__(self, site: Site) -> None:
        self.site = site

    @classmethod
    def addresses(cls, ports: Mapping[str, int]) -> dict[str, str]:
        """What other processes need to find it, as environment variables."""
        return {}

    def check(self) -> None:
        """PartMissing when what it needs is not installed."""

    def prepare(self) -> None:
        """Make its data directory ready, also after a crash; called before every start."""

    @abstractmethod
    def command(self) -> Command:
        """What to execute."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether it answers by its own protocol; never raises because it does not answer yet."""

    def provision(self) -> None:
        """What must be made inside it once it answers; doing it again changes nothing."""

    def port(self, name: str) -> int:
        return self.site.ports[name]

    @property
    def died(self) -> str:
        """The last words in its log, for a message."""
        log = self.site.data.log(self.name)
        return f"{last_line(log.read_text(errors='replace')) if log.exists() else ''} (see {log})"


def last_line(text: str) -> str:
    """The last line that says something, cut to a length fit for one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


async def start(unit: Unit, *, bound: bool) -> subprocess.Popen[bytes]:
    """Prepare and execute a unit and record it; with ``bound`` it dies with the calling thread."""
    await asyncio.to_thread(unit.prepare)
    process = spawn(unit.command(), unit.site.data.log(unit.name), death_signal=unit.death_signal if bound else None)
    identity = Identity.of(process.pid)
    if identity is not None:
        unit.site.records.add(unit.name, identity)
    return process


async def wait_ready(unit: Unit, process: subprocess.Popen[bytes]) -> None:
    """Return when the unit is ready and provisioned; StackError when it ends first or takes too long."""
    deadline = time.monotonic() + unit.ready_timeout_s
    while True:
        answers = await asyncio.to_thread(unit.ready)
        if (status := process.poll()) is not None:
            raise StackError(f"{unit.name} ended with status {status}: {unit.died}")
        if answers:
            break
        if time.monotonic() > deadline:
            raise StackError(f"{unit.name} is not ready after {unit.ready_timeout_s:.0f} s: {unit.died}")
        await asyncio.sleep(READY_POLL_S)
    await asyncio.to_thread(unit.provision)


async def stop(unit: Unit, identity: Identity) -> None:
    """End a unit: its own signal first, SIGKILL when it does not leave in time."""
    if identity.signal(unit.stop_signal) and not await asyncio.to_thread(identity.wait_gone, unit.stop_timeout_s):
        identity.signal(signal.SIGKILL)
        await asyncio.to_thread(identity.wait_gone, unit.stop_timeout_s)
    if identity.alive():
        raise StackError(f"{unit.name} (pid {identity.pid}) does not end: see {unit.site.data.log(unit.name)}")
    unit.site.records.remove(unit.name)
