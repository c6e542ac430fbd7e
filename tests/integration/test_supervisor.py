"""`packstream up`: what dies comes back, and nothing outlives it, however it ends.

The programs here are stand-ins for the API, relay and worker; the parts are real.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ops.stack.paths import DataDir
from ops.stack.processes import Identity

STAND_IN = """
import asyncio, json, os, sys
from ops.stack.local import parse_parts
from ops.stack.paths import DataDir
from ops.stack.processes import Command
from ops.supervisor.programs import Program
from ops.supervisor.system import run_system
from ops.supervisor import system

system.ERRANDS.clear()
CODE = sys.argv[3]

class StandIn(Program):
    name = "worker"
    arguments = ()
    stop_timeout_s = 3.0
    ready_timeout_s = 10.0

    def command(self):
        env = {"PACKSTREAM_READY_FILE": str(self.site.data.ready_file(self.name)), **self.site.addresses}
        return Command((sys.executable, "-c", CODE), env=env)

asyncio.run(run_system(
    DataDir.at(sys.argv[1]), parse_parts(sys.argv[2]), environ=os.environ,
    say=lambda line: print(line, file=sys.stderr, flush=True),
    when_ready=lambda described: print(json.dumps(described), flush=True),
    programs=(StandIn,),
))
"""

READY = "import os; open(os.environ['PACKSTREAM_READY_FILE'], 'w').write(str(os.getpid()));"
SLEEPER = READY + "import time; time.sleep(1000)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + SLEEPER

Start = Callable[..., tuple["subprocess.Popen[str]", dict[str, Any]]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a system in ``tmp_path`` and returns its process and what it printed when ready."""
    started: list[subprocess.Popen[str]] = []

    def run(*, parts: str = "redis", code: str = SLEEPER) -> tuple[subprocess.Popen[str], dict[str, Any]]:
        argv = [sys.executable, "-c", STAND_IN, str(tmp_path / "data"), parts, code]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        return process, json.loads(process.stdout.readline())

    yield run
    for process in started:
        process.terminate()
        process.wait(30)


def until(condition: Callable[[], bool], *, timeout_s: float) -> float:
    """Wait for the condition; returns how long it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout_s, "it did not happen in time"
        time.sleep(0.02)
    return time.monotonic() - began


def identities(described: dict[str, Any]) -> list[Identity]:
    found = [Identity.of(pid) for pid in described["pids"].values()]
    return [identity for identity in found if identity]


def descendants(pid: int) -> list[Identity]:
    """All processes below one, now."""
    table = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(line.split()[0]): int(line.split()[1]) for line in table.splitlines()}
    below, found = {pid}, []
    while fresh := [child for child, parent in parents.items() if parent in below and child not in below]:
        below.update(fresh)
        found += fresh
    return [identity for identity in map(Identity.of, found) if identity]


@pytest.mark.parametrize("parts", ["redis", "postgres,kafka,redis", "gcs,bigquery,stripe,smtp"])
def test_nothing_outlives_a_supervisor_killed_with_sigkill(start: Start, parts: str) -> None:
    process, described = start(parts=parts)
    children = descendants(process.pid)
    assert len(children) >= len(described["pids"]) >= 2
    process.kill()
    until(lambda: not any(child.alive() for child in children), timeout_s=5)


def test_sigterm_stops_everything_and_leaves_no_record(start: Start, tmp_path: Path) -> None:
    process, _ = start(parts="postgres,kafka,redis")
    children = descendants(process.pid)
    process.terminate()
    assert process.wait(20) == 0
    assert not any(child.alive() for child in children)
    data = DataDir.at(tmp_path / "data")
    assert not data.env_file.exists()
    assert not data.pids_file.exists()


@pytest.mark.parametrize("name", ["worker", "redis", "postgres", "kafka"])
def test_a_killed_child_is_back_within_two_seconds_on_its_port(start: Start, tmp_path: Path, name: str) -> None:
    process, described = start(parts="postgres,kafka,redis")
    data = DataDir.at(tmp_path / "data")
    addresses = data.read_env()
    old = described["pids"][name]
    os.kill(old, signal.SIGKILL)

    def is_back() -> bool:
        pids = json.loads(data.pids_file.read_text())
        return pids.get(name, old) != old

    assert until(is_back, timeout_s=5) < 2
    assert data.read_env() == addresses
    assert process.poll() is None


def test_a_child_that_keeps_dying_is_restarted_ever_more_slowly(start: Start, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    code = f"import time; open({str(marks)!r}, 'a').write(f'{{time.time()}}\\n');" + READY + "time.sleep(0.3)"
    start(code=code)
    time.sleep(9)
    assert 4 <= len(marks.read_text().splitlines()) <= 8


def test_a_child_that_ignores_sigterm_is_killed_in_the_end(start: Start) -> None:
    process, described = start(code=STUBBORN)
    began = time.monotonic()
    process.terminate()
    assert process.wait(20) == 0
    assert 3 <= time.monotonic() - began < 8
    assert not identities(described)


def test_a_second_supervisor_on_the_same_data_is_refused(start: Start, tmp_path: Path) -> None:
    process, _ = start()
    command = [sys.executable, "-m", "ops.cli", "up", "--parts", "redis", "--data", str(tmp_path / "data")]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert refused.stderr.splitlines() == [
        f"Error: `packstream up` (pid {process.pid}) already runs the stack in {tmp_path / 'data'}"
    ]
    assert process.poll() is None


def test_stack_down_ends_a_running_supervisor(start: Start, tmp_path: Path) -> None:
    process, described = start()
    command = [sys.executable, "-m", "ops.cli", "stack", "down", "--data", str(tmp_path / "data")]
    subprocess.run(command, check=True)
    assert process.wait(5) == 0
    assert not identities(described)


def test_it_starts_again_after_everything_was_killed(start: Start) -> None:
    process, described = start(parts="postgres,kafka,redis")
    process.kill()
    until(lambda: not identities(described), timeout_s=5)
    _, again = start(parts="postgres,kafka,redis")
    assert again["kafka"] == described["kafka"]
    assert again["database"] == described["database"]
