"""Where the local stack keeps things: the data directory of a stack, and the cache that all stacks share."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import ops

REPOSITORY = Path(ops.__file__).resolve().parents[1]


def cache_dir() -> Path:
    """Jars, AOT caches and built binaries: PACKSTREAM_CACHE, else ``.packstream-cache`` in the checkout."""
    return Path(os.environ.get("PACKSTREAM_CACHE") or REPOSITORY / ".packstream-cache").resolve()


def write_atomically(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Replace ``path`` by ``text``; a reader sees the old or the new file, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text)
    draft.chmod(mode)
    draft.replace(path)


@dataclass(frozen=True)
class DataDir:
    """The layout under ``--data DIR``; ``root`` is absolute."""

    root: Path

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> DataDir:
        return cls(Path(path).expanduser().resolve())

    def make(self) -> None:
        """Create the directories that every stack has."""
        for path in (self.root, self.logs, self.run):
            path.mkdir(parents=True, exist_ok=True)

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """Process records, readiness files, the lock."""
        return self.root / "run"

    @property
    def env_file(self) -> Path:
        """Addresses as KEY=VALUE lines; there while the stack is up."""
        return self.root / "stack.env"

    @property
    def pids_file(self) -> Path:
        return self.root / "pids.json"

    @property
    def ports_file(self) -> Path:
        """The ports chosen last time, taken again where they are free."""
        return self.run / "ports.json"

    def home(self, name: str) -> Path:
        """The data of one part."""
        return self.root / name

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def ready_file(self, name: str) -> Path:
        """Written by a relay or worker, with its pid, once it is ready (PACKSTREAM_READY_FILE)."""
        return self.run / f"{name}.ready"

    def read_env(self) -> dict[str, str]:
        """The addresses of the running stack; empty when there is none."""
        if not self.env_file.exists():
            return {}
        lines = (line.strip() for line in self.env_file.read_text().splitlines())
        pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
        return {key: value for key, _, value in pairs}

    def write_env(self, addresses: Mapping[str, str]) -> None:
        """Write the addresses; without any, take the file away."""
        if not addresses:
            self.env_file.unlink(missing_ok=True)
            return
        lines = ["# The addresses of this stack; the environment wins over them."]
        lines += [f"{key}={value}" for key, value in sorted(addresses.items())]
        write_atomically(self.env_file, "\n".join(lines) + "\n", mode=0o600)

    def read_ports(self) -> dict[str, int]:
        return json.loads(self.ports_file.read_text()) if self.ports_file.exists() else {}

    def write_ports(self, ports: Mapping[str, int]) -> None:
        write_atomically(self.ports_file, json.dumps(ports, indent=1, sort_keys=True) + "\n")
