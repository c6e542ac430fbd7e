"""A whole stack: start its parts, stop them, look at them."""

from __future__ import annotations

import asyncio
import fcntl
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from ops.stack.errors import PartMissing, StackError
from ops.stack.parts import PARTS
from ops.stack.paths import DataDir
from ops.stack.ports import PortBook
from ops.stack.processes import SUPERVISOR, Records
from ops.stack.units import Site, Unit, start, stop, wait_ready

API_PORT = "PORT"
"""Chosen with the parts' ports, so that the fake GCS knows where to push."""

SUPERVISOR_STOP_S = 30.0
REAPED_S = 3.0
"""How long `down` waits for pids of ended parts to leave the process table."""

Say = Callable[[str], None]


@dataclass
class Plan:
    """What is to run: the site, the units that can, and why the optional others cannot."""

    site: Site
    units: list[Unit] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def parse_parts(text: str | None) -> tuple[str, ...]:
    """``postgres,kafka`` → names; all of them when None. StackError when one is unknown."""
    if text is None:
        return tuple(PARTS)
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if unknown := [name for name in names if name not in PARTS]:
        raise StackError(f"unknown part {', '.join(unknown)}: the parts are {', '.join(PARTS)}")
    return names


@contextmanager
def locked(data: DataDir) -> Iterator[None]:
    """Only one command at a time starts or stops parts of a stack; StackError when another does."""
    data.make()
    with (data.run / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackError(f"another command is starting or stopping the stack in {data.root}: wait for it") from None
        yield


def records(data: DataDir) -> Records:
    return Records(data.run, data.pids_file)


def choose_site(data: DataDir, names: Iterable[str], book: PortBook) -> Site:
    """Ports and addresses for the parts named; those of parts that run already stay."""
    last = data.read_ports()
    living = [name for name in PARTS if records(data).living(name)]
    kept = {port: last[port] for name in living for port in PARTS[name].ports if port in last}
    wanted = [port for name in names for port in PARTS[name].ports if port not in kept]
    ports = kept | book.choose([*wanted, API_PORT], last=last)
    data.write_ports(last | ports)
    shown = [name for name in PARTS if name in living or name in names]
    return Site(data, ports, addresses_of(shown, ports))


def addresses_of(names: Iterable[str], ports: Mapping[str, int]) -> dict[str, str]:
    """Environment variables that lead to the parts and to the API."""
    found = {API_PORT: str(ports[API_PORT]), "API_URL": f"http://127.0.0.1:{ports[API_PORT]}"}
    for name in names:
        found |= PARTS[name].addresses(ports)
    return found


def plan(data: DataDir, names: Iterable[str], book: PortBook) -> Plan:
    """Check that everything needed is there before anything starts; optional parts may be left out."""
    wanted, left_out = [], []
    blank = Site(data, {})
    for name in names:
        try:
            PARTS[name](blank).check()
        except PartMissing as exc:
            if not PARTS[name].optional:
                raise
            left_out.append(str(exc))
        else:
            wanted.append(name)
    site = choose_site(data, wanted, book)
    return Plan(site, [PARTS[name](site) for name in wanted], left_out)


async def start_all(units: Iterable[Unit], *, bound: bool, say: Say = print) -> None:
    """Start units at the same time; when one fails, stop those that this call started and raise its error."""
    starting = {unit: asyncio.create_task(_start_ready(unit, bound=bound, say=say)) for unit in units}
    results = await asyncio.gather(*starting.values(), return_exceptions=True)
    failures = [result for result in results if isinstance(result, BaseException)]
    if failures:
        await stop_all(starting)
        raise failures[0]


async def _start_ready(unit: Unit, *, bound: bool, say: Say) -> None:
    process = await start(unit, bound=bound)
    await wait_ready(unit, process)
    say(f"{unit.name} is ready")


async def stop_all(units: Iterable[Unit]) -> None:
    """Stop all of them at once; the first StackError of one that would not end is raised after the others did."""
    results = await asyncio.gather(*(_stop_recorded(unit) for unit in units), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def _stop_recorded(unit: Unit) -> None:
    if identity := unit.site.records.living(unit.name):
        await stop(unit, identity)
    else:
        unit.site.records.remove(unit.name)


async def stack_up(data: DataDir, names: Iterable[str], *, bound: bool = False, say: Say = print) -> Plan:
    """Start the parts named that do not run yet, and write DATA/stack.env."""
    with locked(data), PortBook() as book:
        if running := records(data).living(SUPERVISOR):
            raise StackError(f"`packstream up` (pid {running.pid}) already runs the stack in {data.root}")
        planned = plan(data, names, book)
        missing = [unit for unit in planned.units if not records(data).living(unit.name)]
        await start_all(missing, bound=bound, say=say)
        data.write_env(planned.site.addresses)
    return planned


async def stack_down(data: DataDir, names: Iterable[str]) -> list[str]:
    """Stop the parts named, and `packstream up` first if it runs them; returns the names of those that ran."""
    if not data.root.exists():
        return []
    _stop_supervisor(data)
    with locked(data):
        ran = {name: identity for name in names if (identity := records(data).living(name))}
        await stop_all([PARTS[name](Site(data, {})) for name in ran])
        _forget_dead(data)
        living = [name for name in PARTS if records(data).living(name)]
        data.write_env(addresses_of(living, data.read_ports()) if living else {})
        await asyncio.gather(*(asyncio.to_thread(identity.wait_reaped, REAPED_S) for identity in ran.values()))
    return list(ran)


def _stop_supervisor(data: DataDir) -> None:
    """End a running `packstream up`, which takes everything that it started with it."""
    running = records(data).living(SUPERVISOR)
    if running and running.signal(signal.SIGTERM) and not running.wait_gone(SUPERVISOR_STOP_S):
        raise StackError(f"`packstream up` (pid {running.pid}) does not end: see {data.logs}")


def _forget_dead(data: DataDir) -> None:
    """Take away the records of processes that are gone."""
    for name in records(data).names():
        if not records(data).living(name):
            records(data).remove(name)


@dataclass(frozen=True)
class PartStatus:
    """How one part is: ``state`` is ``ready``, ``starting`` or ``down``."""

    name: str
    state: str
    pid: int | None
    ports: dict[str, int]


def stack_status(data: DataDir) -> list[PartStatus]:
    """Every part, asked by its own protocol."""
    ports = data.read_ports()
    return [_part_status(PARTS[name](Site(data, ports))) for name in PARTS]


def _part_status(unit: Unit) -> PartStatus:
    identity = unit.site.records.living(unit.name)
    if identity is None:
        return PartStatus(unit.name, "down", None, {})
    state = "ready" if unit.ready() else "starting"
    return PartStatus(unit.name, state, identity.pid, {name: unit.port(name) for name in unit.ports})
