"""One watched process: started, restarted when it dies, slower and slower when it keeps dying."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Callable

from ops.stack.errors import StackError
from ops.stack.processes import Identity
from ops.stack.units import Unit, start, stop, wait_ready

WATCH_S = 0.05
SHORT_LIFE_S = 5.0
QUICK_RESTARTS = 3
DELAY_FIRST_S = 0.1
DELAY_MAX_S = 30.0


def restart_delay_s(short_lives: int) -> float:
    """How long to wait after so many lives in a row that were short: at once at first, then doubling."""
    if short_lives <= QUICK_RESTARTS:
        return DELAY_FIRST_S
    return min(DELAY_MAX_S, float(2 ** min(short_lives - QUICK_RESTARTS - 1, 10)))


class Child:
    """A unit of the supervisor. Start it from the thread that it must not outlive."""

    def __init__(self, unit: Unit, say: Callable[[str], None]) -> None:
        self.unit = unit
        self._say = say
        self._process: subprocess.Popen[bytes] | None = None
        self._born = 0.0
        self._short_lives = 0

    async def start(self) -> None:
        """Start it and return when it is ready; StackError when it does not get there."""
        self._born = time.monotonic()
        self._process = await start(self.unit, bound=True)
        await wait_ready(self.unit, self._process)
        self._say(f"{self.unit.name} is ready")

    async def keep_running(self) -> None:
        """Start it again whenever it dies, until cancelled."""
        while True:
            status = await self._ended()
            self._short_lives = self._short_lives + 1 if time.monotonic() - self._born < SHORT_LIFE_S else 0
            delay_s = restart_delay_s(self._short_lives)
            self.unit.site.records.remove(self.unit.name)
            self._say(f"{self.unit.name} ended (status {status}): again in {delay_s:g} s")
            await asyncio.sleep(delay_s)
            try:
                await self.start()
            except (StackError, OSError) as exc:
                self._say(str(exc))
                await self.stop()

    async def _ended(self) -> int | None:
        """Wait until it is gone; its exit status, None when it never started."""
        while self._process and self._process.poll() is None:
            await asyncio.sleep(WATCH_S)
        return self._process.returncode if self._process else None

    async def stop(self) -> None:
        """End it if it runs."""
        if self._process and self._process.poll() is None:
            identity = Identity.of(self._process.pid)
            if identity:
                await stop(self.unit, identity)
            self._process.wait()
        self.unit.site.records.remove(self.unit.name)
