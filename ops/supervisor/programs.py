"""The system's own processes as units: API, relay, worker, and the two errands before them."""

from __future__ import annotations

import asyncio
import signal
import sys
import urllib.error
import urllib.request
from typing import ClassVar

from ops.stack.errors import StackError
from ops.stack.processes import Command, spawn
from ops.stack.units import Site, Unit, last_line

ERRAND_POLL_S = 0.05
REFUSAL_BYTES_MAX = 500


def packstream(site: Site, *arguments: str) -> Command:
    """The command line of `packstream …` in this interpreter, with the site's addresses."""
    argv = (sys.executable, "-m", "ops.cli", *arguments, "--data", str(site.data.root))
    return Command(argv, env={**site.addresses, "DATA_DIR": str(site.data.root)})


class Program(Unit):
    """A process that says that it is ready by writing its pid to PACKSTREAM_READY_FILE."""

    ready_timeout_s = 60.0
    stop_timeout_s = 12.0
    arguments: ClassVar[tuple[str, ...]]

    def prepare(self) -> None:
        self.site.data.ready_file(self.name).unlink(missing_ok=True)

    def command(self) -> Command:
        base = packstream(self.site, *self.arguments)
        ready_file = str(self.site.data.ready_file(self.name))
        return Command(base.argv, env={**base.env, "PACKSTREAM_READY_FILE": ready_file})

    def ready(self) -> bool:
        path = self.site.data.ready_file(self.name)
        identity = self.site.records.living(self.name)
        return identity is not None and path.exists() and path.read_text().strip() == str(identity.pid)


class Api(Program):
    """Ready when its own readiness route says so."""

    name = "api"
    arguments = ("api",)
    _refusal = ""

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.site.addresses['API_URL']}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError as exc:
            self._refusal = exc.read(REFUSAL_BYTES_MAX).decode(errors="replace")
        except OSError:
            self._refusal = ""
        return False

    @property
    def died(self) -> str:
        """What its readiness route answered last, else the last words in its log."""
        return f"{self._refusal} (see {self.site.data.log(self.name)})" if self._refusal else super().died


class Relay(Program):
    """Ready when it claims lanes."""

    name = "relay"
    arguments = ("relay",)


class Worker(Program):
    """Ready when its agents have partitions."""

    name = "worker"
    arguments = ("worker",)


PROGRAMS: tuple[type[Program], ...] = (Api, Relay, Worker)


async def run_errand(site: Site, *arguments: str) -> None:
    """Run `packstream ARGUMENTS` to its end; StackError with its last words when it fails."""
    name = " ".join(arguments)
    log = site.data.log(arguments[0])
    process = spawn(packstream(site, *arguments), log, death_signal=signal.SIGKILL)
    try:
        while (status := process.poll()) is None:
            await asyncio.sleep(ERRAND_POLL_S)
    except asyncio.CancelledError:
        process.kill()
        raise
    if status:
        raise StackError(f"`packstream {name}` failed: {last_line(log.read_text(errors='replace'))} (see {log})")
