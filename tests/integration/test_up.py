"""`packstream up` with the real processes: ready in one line, restarted when killed, gone when it is gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ops.stack.processes import Identity

STARTED = tuple["subprocess.Popen[str]", dict[str, Any]]


@pytest.fixture
def system(tmp_path: Path) -> Iterator[STARTED]:
    """The running system and what it printed."""
    command = [sys.executable, "-m", "ops.cli", "up", "--json", "--parts", "postgres,kafka,redis"]
    process = subprocess.Popen([*command, "--data", str(tmp_path / "data")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield process, json.loads(process.stdout.readline())
    process.terminate()
    process.wait(40)


def ready(api: str) -> bool:
    try:
        with urllib.request.urlopen(f"{api}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def wait_for(condition: Any, *, timeout_s: float) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout_s
        time.sleep(0.05)
    return time.monotonic() - began


@pytest.mark.slow
def test_the_whole_system_restarts_what_is_killed_and_stops_in_time(system: STARTED) -> None:
    process, described = system
    pids_file = Path(described["data"]) / "pids.json"
    assert set(described["pids"]) == {"api", "relay", "worker", "postgres", "kafka", "redis"}
    assert (described["gcs"], described["stripe"]) == (None, None)
    assert ready(described["api"])
    for name in ("api", "relay", "worker"):
        old = described["pids"][name]
        os.kill(old, signal.SIGKILL)
        assert wait_for(lambda: json.loads(pids_file.read_text()).get(name, old) != old, timeout_s=10) < 2  # noqa: B023
    wait_for(lambda: ready(described["api"]), timeout_s=30)
    last = [Identity.of(pid) for pid in json.loads(pids_file.read_text()).values()]
    began = time.monotonic()
    process.terminate()
    assert process.wait(30) == 0
    assert time.monotonic() - began < 20
    assert process.stdout is not None
    assert process.stdout.read() == ""
    assert not any(identity.alive() for identity in last if identity)


@pytest.mark.slow
def test_nothing_of_the_whole_system_outlives_sigkill(system: STARTED) -> None:
    process, described = system
    children = [Identity.of(pid) for pid in described["pids"].values()]
    process.kill()
    wait_for(lambda: not any(child.alive() for child in children if child), timeout_s=5)
