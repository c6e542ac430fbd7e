"""Processes of this machine: start one, know it again later, end it.

A process is known by its pid together with the moment it started, so that a pid which the system has
given to somebody else meanwhile is never signalled.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ops.stack.paths import write_atomically

PR_SET_PDEATHSIG = 1
POLL_S = 0.02
SUPERVISOR = "up"
"""The record of a running `packstream up`; it is no part, so DATA/pids.json does not list it."""

_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Command:
    """What to execute. ``env`` is added to this process's; ``user`` and ``group`` are dropped to."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    user: int | None = None
    group: int | None = None


@dataclass(frozen=True)
class Identity:
    """One process for good: ``started`` tells it from a later one with the same pid."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """The process that has the pid now; None when there is none."""
        started = _started(pid)
        return None if started is None else cls(pid, started)

    def alive(self) -> bool:
        return _started(self.pid) == self.started

    def signal(self, signum: int) -> bool:
        """Send it a signal; False when it is gone."""
        if not self.alive():
            return False
        try:
            os.kill(self.pid, signum)
        except ProcessLookupError:
            return False
        return True

    def wait_gone(self, timeout_s: float) -> bool:
        """Wait until it is gone; False when it is still there."""
        return _wait_while(self.alive, timeout_s)

    def wait_reaped(self, timeout_s: float) -> bool:
        """Wait until not even its pid is left; one of our own is collected, another's init may take a moment."""
        return _wait_while(self._in_table, timeout_s)

    def _in_table(self) -> bool:
        with suppress(ChildProcessError):  # it is not ours to collect
            os.waitpid(self.pid, os.WNOHANG)
        return Path(f"/proc/{self.pid}").exists()


def _wait_while(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Wait until it no longer holds; False when it still does."""
    deadline = time.monotonic() + timeout_s
    while condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def _started(pid: int) -> str | None:
    """When the process started, as the kernel writes it; None when it is gone or only waits to be reaped."""
    if sys.platform != "linux":
        asked = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return asked.stdout.strip() or None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else f"{_boot_id()}:{fields[19]}"


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def spawn(command: Command, log: Path, *, death_signal: int | None) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, its output appended to ``log``.

    With ``death_signal`` the kernel sends it that signal when the calling thread ends, however it ends:
    call from a thread that lives as long as the process should.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    last_words = None if death_signal is None else partial(die_with_parent, death_signal, os.getpid())
    with log.open("ab") as out:
        return subprocess.Popen(
            command.argv,
            env={**os.environ, **command.env},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd="/" if command.user is not None else None,
            user=command.user,
            group=command.group,
            extra_groups=None if command.user is None else [],
            start_new_session=True,
            preexec_fn=last_words,  # runs after the user was changed, which would clear the signal
        )


def die_with_parent(signum: int, parent: int) -> None:
    """In the child, before exec: ask for ``signum`` at the parent's death, which may have come already."""
    if sys.platform == "linux":
        _LIBC.prctl(PR_SET_PDEATHSIG, signum, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


class Records:
    """Which processes a stack has: a file each under DATA/run, and all living ones in DATA/pids.json."""

    def __init__(self, run: Path, pids_file: Path) -> None:
        self._run = run
        self._pids_file = pids_file

    def add(self, name: str, identity: Identity) -> None:
        record = {"pid": identity.pid, "started": identity.started}
        write_atomically(self._path(name), json.dumps(record) + "\n")
        self._publish()

    def remove(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)
        self._publish()

    def living(self, name: str) -> Identity | None:
        """The recorded process, if it is alive."""
        path = self._path(name)
        if not path.exists():
            return None
        identity = Identity(**json.loads(path.read_text()))
        return identity if identity.alive() else None

    def names(self) -> list[str]:
        return sorted(path.name.removesuffix(".pid.json") for path in self._run.glob("*.pid.json"))

    def pids(self) -> dict[str, int]:
        """Name → pid of all that are alive."""
        found = {name: self.living(name) for name in self.names() if name != SUPERVISOR}
        return {name: identity.pid for name, identity in found.items() if identity}

    def _path(self, name: str) -> Path:
        return self._run / f"{name}.pid.json"

    def _publish(self) -> None:
        pids = self.pids()
        if pids:
            write_atomically(self._pids_file, json.dumps(pids) + "\n")
        else:
            self._pids_file.unlink(missing_ok=True)
