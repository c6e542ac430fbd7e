"""The whole system: what is started in which order, and stopped in which."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

from ops.stack.errors import StackError
from ops.stack.local import Plan, Say, locked, plan, records
from ops.stack.parts import PARTS
from ops.stack.paths import DataDir
from ops.stack.ports import PortBook
from ops.stack.processes import SUPERVISOR, Identity
from ops.stack.units import Unit
from ops.supervisor.child import Child
from ops.supervisor.programs import PROGRAMS, run_errand

ERRANDS = {"postgres": ("migrate",), "kafka": ("topics",), "bigquery": ("warehouse", "apply")}
"""What must be done in a part before it is of use."""

CORE = ("postgres", "kafka", "redis")
"""The parts that the programs cannot start without; the others come up beside them."""

SHOWN = {
    "api": "API_URL",
    "database": "DATABASE_URL",
    "database_app": "DATABASE_APP_URL",
    "redis": "REDIS_URL",
    "kafka": "KAFKA_BROKERS",
    "gcs": "GCS_ENDPOINT",
    "bigquery": "BIGQUERY_ENDPOINT",
    "stripe": "STRIPE_API_BASE",
    "smtp": "SMTP_URL",
}


def describe(data: DataDir, addresses: Mapping[str, str]) -> dict[str, object]:
    """What `packstream up --json` prints; null where a part is left out."""
    shown: dict[str, object] = {name: addresses.get(key) for name, key in SHOWN.items()}
    return shown | {"data": str(data.root), "pids": records(data).pids()}


class System:
    """Parts and programs as children of this process."""

    def __init__(self, planned: Plan, programs: Iterable[type[Unit]], say: Say) -> None:
        self._site = planned.site
        self._parts = {unit.name: Child(unit, say) for unit in planned.units}
        self._programs = [Child(program(planned.site), say) for program in programs]

    async def start(self) -> None:
        """Return when everything is ready; the first error ends the attempt."""
        others = (self._start_with_errand(name) for name in self._parts if name not in CORE)
        await together(self._start_core(), *others)

    async def _start_core(self) -> None:
        await together(*(self._start_with_errand(name) for name in CORE))
        await together(*(program.start() for program in self._programs))

    async def _start_with_errand(self, name: str) -> None:
        """Start a part (unless it is somebody else's) and do what must be done in it."""
        if name in self._parts:
            await self._parts[name].start()
        if self._programs and name in ERRANDS:
            await run_errand(self._site, *ERRANDS[name])

    async def keep_running(self) -> None:
        """Restart what dies, until cancelled."""
        await together(*(child.keep_running() for child in (*self._parts.values(), *self._programs)))

    async def stop(self) -> None:
        """The programs drain and leave, then the parts; everything is tried before an error is raised."""
        errors: list[BaseException] = []
        for children in (self._programs, self._parts.values()):
            results = await asyncio.gather(*(child.stop() for child in children), return_exceptions=True)
            errors += [result for result in results if isinstance(result, BaseException)]
        if errors:
            raise errors[0]


async def together(*work: Coroutine[Any, Any, None]) -> None:
    """Do all of it at once; the first error cancels the rest and is raised."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def run_system(
    data: DataDir,
    names: Iterable[str],
    *,
    environ: Mapping[str, str],
    say: Say,
    when_ready: Callable[[dict[str, object]], None],
    programs: Iterable[type[Unit]] = PROGRAMS,
) -> None:
    """Run everything until SIGTERM or SIGINT; ``when_ready`` is told the addresses once all are ready."""
    stopping = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stopping.set)
    with PortBook(environ) as book:
        with locked(data):
            planned = _plan_alone(data, names, book)
        for line in planned.left_out:
            say(f"{line}; going on without it")
        system = System(planned, programs, say)
        try:
            data.write_env(planned.site.addresses)
            if await _until(stopping, system.start()):
                when_ready(describe(data, planned.site.addresses))
                await _until(stopping, system.keep_running())
        finally:
            say("stopping")
            await system.stop()
            data.write_env({})
            records(data).remove(SUPERVISOR)


def _plan_alone(data: DataDir, names: Iterable[str], book: PortBook) -> Plan:
    """Plan, and record this process as the one that runs the stack; StackError when something runs already."""
    if other := records(data).living(SUPERVISOR):
        raise StackError(f"`packstream up` (pid {other.pid}) already runs the stack in {data.root}")
    if running := [name for name in PARTS if records(data).living(name)]:
        raise StackError(f"{', '.join(running)} already run in {data.root}: `packstream stack down` first")
    planned = plan(data, names, book)
    me = Identity.of(os.getpid())
    if me is None:
        raise StackError("cannot find this process among the system's")
    records(data).add(SUPERVISOR, me)
    return planned


async def _until(stopping: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do ``work`` until it is done (True) or it is time to stop (False); its errors are raised."""
    working, waiting = asyncio.create_task(work), asyncio.create_task(stopping.wait())
    await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if working.done():
        await working
        return True
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    return False
