"""The demo's own system: `packstream up` as a child of this process, always ended with it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from ops.demo.courses import EXPIRES_AFTER, FEE_BP, NUDGE_AFTER
from ops.settings import Settings
from ops.stack.errors import StackError
from ops.stack.local import parse_parts, records
from ops.stack.paths import DataDir
from ops.stack.processes import SUPERVISOR, die_with_parent
from ops.stack.units import last_line

MARK: Final = "made-by-packstream-demo"
"""A file in every directory that a demo has made, and may empty again."""

STOP_S: Final = 40.0
NEEDED: Final = ("postgres", "kafka", "redis", "gcs", "bigquery", "stripe")  #: parts
ENVIRONMENT: Final = {
    "PACKSTREAM_ENV": "dev",
    "RATE_LIMIT_SCALE": "1000",  # a week of views in two minutes
    "LOG_LEVEL": "warning",
    "PLATFORM_FEE_BP": str(FEE_BP),
    "ORDER_TTL_S": str(int(EXPIRES_AFTER.total_seconds())),
    "ORDER_NUDGE_S": str(int(NUDGE_AFTER.total_seconds())),
}


@dataclass(frozen=True, slots=True)
class System:
    """A running system."""

    api: str
    settings: Settings


def prepare(data: DataDir) -> None:
    """An empty directory, since the logical clock never goes back. StackError when it is somebody else's or in use."""
    if data.root.exists():
        if not (data.root / MARK).exists() and any(data.root.iterdir()):
            raise StackError(f"demo: {data.root} is not empty and was not made by a demo: choose another --data")
        if records(data).living(SUPERVISOR):
            raise StackError(f"demo: a system runs in {data.root}: stop it, or choose another --data")
        shutil.rmtree(data.root)
    data.root.mkdir(parents=True)
    (data.root / MARK).touch()


@asynccontextmanager
async def running_system(data: DataDir, *, parts: str | None) -> AsyncIterator[System]:
    """All parts and processes, ready. They end with the block, and if this process is killed, with the process.

    Enter it in the main thread.
    """
    if missing := [name for name in NEEDED if name not in parse_parts(parts)]:
        raise StackError(f"demo: it needs {', '.join(missing)} too: name it in --parts")
    prepare(data)
    environ = {**os.environ, **ENVIRONMENT, "DATA_DIR": str(data.root)}
    log = data.log("up")
    process = await _start(data, parts, environ, log)
    try:
        described = await _ready(process, log)
        yield System(str(described["api"]), _settings({**environ, **data.read_env()}))
    finally:
        await _stop(process)


async def _start(data: DataDir, parts: str | None, environ: Mapping[str, str], log: Path) -> Process:
    log.parent.mkdir(parents=True)
    argv = ["-m", "ops.cli", "up", "--json", "--data", str(data.root), *(("--parts", parts) if parts else ())]
    with log.open("ab") as out:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *argv,
            env=environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            stderr=out,
            start_new_session=True,  # Ctrl-C is for the demo, which ends the system in order
            preexec_fn=partial(die_with_parent, signal.SIGTERM, os.getpid()),
        )


async def _ready(process: Process, log: Path) -> dict[str, object]:
    """What `up` says once all is ready; StackError with its last words when it ends before."""
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        words = last_line(await asyncio.to_thread(log.read_text, errors="replace"))
        raise StackError(f"demo: `packstream up` ended: {words} (see {log})")
    described: dict[str, object] = json.loads(line)
    return described


async def _stop(process: Process) -> None:
    """End it and wait, also while this task is being cancelled; the kernel ends its children should it hang."""
    if process.returncode is None:
        process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def _settings(environ: Mapping[str, str]) -> Settings:
    """As the system's own processes have them."""
    known = {name: environ[name.upper()] for name in Settings.model_fields if name.upper() in environ}
    return Settings(**known)  # type: ignore[arg-type]  # pydantic reads them as it reads the environment
