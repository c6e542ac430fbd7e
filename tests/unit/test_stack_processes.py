"""Processes are known by pid and start, so that a recycled pid is never signalled."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ops.stack.paths import DataDir
from ops.stack.processes import SUPERVISOR, Command, Identity, Records, spawn
from ops.supervisor.child import restart_delay_s


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path / "run", tmp_path / "pids.json")


def this_process() -> Identity:
    identity = Identity.of(os.getpid())
    assert identity is not None
    return identity


def test_a_pid_with_another_start_is_another_process() -> None:
    stranger = Identity(os.getpid(), "some other moment")
    assert not stranger.alive()
    assert not stranger.signal(signal.SIGKILL)
    assert this_process().alive()


def test_a_process_that_waits_to_be_reaped_is_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    identity = Identity.of(child.pid)
    deadline = time.monotonic() + 10
    while identity is not None and identity.alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert identity is None or not identity.alive()
    assert identity is None or identity.wait_reaped(1)
    assert not Path(f"/proc/{child.pid}").exists()


def test_pids_json_lists_the_living_and_not_the_supervisor(records: Records, tmp_path: Path) -> None:
    records.add("redis", this_process())
    records.add("kafka", Identity(os.getpid(), "some other moment"))
    records.add(SUPERVISOR, this_process())
    assert json.loads((tmp_path / "pids.json").read_text()) == {"redis": os.getpid()}
    records.remove("redis")
    assert not (tmp_path / "pids.json").exists()


def test_a_spawned_process_gets_its_environment_and_its_log(tmp_path: Path) -> None:
    command = Command((sys.executable, "-c", "import os; print(os.environ['X'])"), env={"X": "told"})
    assert spawn(command, tmp_path / "logs" / "x.log", death_signal=None).wait(10) == 0
    assert (tmp_path / "logs" / "x.log").read_text() == "told\n"


def test_addresses_are_read_back_as_written_and_private(tmp_path: Path) -> None:
    data = DataDir.at(tmp_path)
    data.write_env({"DATABASE_URL": "postgresql://u:p@h/d?a=b", "PORT": "1"})
    assert data.read_env() == {"DATABASE_URL": "postgresql://u:p@h/d?a=b", "PORT": "1"}
    assert data.env_file.stat().st_mode & 0o777 == 0o600
    data.write_env({})
    assert data.read_env() == {}


def test_restarts_are_quick_at_first_then_ever_slower_up_to_a_bound() -> None:
    delays = [restart_delay_s(lives) for lives in range(20)]
    assert delays[:4] == [0.1] * 4
    assert delays[4:7] == [1, 2, 4]
    assert delays == sorted(delays)
    assert delays[-1] == 30
