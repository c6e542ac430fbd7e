"""Ports of the parts: as set in the environment, else the last ones where still free, else any free one.

All lie below 32768: in the ephemeral range a connect probe can reach itself and take the port away.
"""

from __future__ import annotations

import os
import random
import socket
import sys
from collections.abc import Iterable, Mapping
from types import TracebackType

from ops.stack.errors import StackError

FREE_PORTS = range(15_000, 32_000)
TRIES_MAX = 200


class PortBook:
    """Gives out ports and holds them against other stacks that start at the same moment, until closed.

    A port that is given out is not bound yet: its part binds it seconds later. In between the book holds an
    abstract socket named after the port, which the kernel takes back when this process ends.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ
        self._held: dict[int, socket.socket] = {}

    def __enter__(self) -> PortBook:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        for held in self._held.values():
            held.close()
        self._held.clear()

    def choose(self, names: Iterable[str], *, last: Mapping[str, int]) -> dict[str, int]:
        """A port for each name (``POSTGRES_PORT``, …); StackError when one that was set is taken."""
        return {name: self._choose(name, last.get(name)) for name in names}

    def _choose(self, name: str, last: int | None) -> int:
        if wanted := self._environ.get(name):
            return self._wanted(name, wanted)
        if last is not None and self._take(last):
            return last
        for _ in range(TRIES_MAX):
            port = random.choice(FREE_PORTS)
            if self._take(port):
                return port
        raise StackError(f"found no free port for {name}: set it in the environment")

    def _wanted(self, name: str, text: str) -> int:
        if not text.isdecimal() or not 1 <= int(text) <= 65535:
            raise StackError(f"{name}={text} is not a port: set it to a number from 1 to 65535, or unset it")
        if not self._take(int(text)):
            raise StackError(f"port {text} is taken: set {name} to a free one, or unset it and one is found")
        return int(text)

    def _take(self, port: int) -> bool:
        held = _hold(port)
        if held is None:
            return False
        if not is_free(port):
            held.close()
            return False
        self._held[port] = held
        return True


def is_free(port: int) -> bool:
    """Whether nothing listens there (a connection that lingers after a stop does not count)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _hold(port: int) -> socket.socket | None:
    """A claim on the port among stacks of this machine; None when another stack has one."""
    held = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    if sys.platform == "linux":
        try:
            held.bind(f"\0packstream-port-{port}")
        except OSError:
            held.close()
            return None
    return held
