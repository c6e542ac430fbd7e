"""Programs that open what strangers uploaded: each in a process of its own, with bounds, without our secrets."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

CONFINE: Final = Path(__file__).with_name("confine.py")
CPU_S: Final = 60
WALL_S: Final = 120.0
MEMORY_BYTES: Final = 2 << 30
FILE_BYTES: Final = 64 << 20
TOLD_BYTES: Final = 500  #: of what it says on standard error
PASSED_ON: Final = ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "TESSDATA_PREFIX", "LANG", "LD_LIBRARY_PATH")


class Ended(NamedTuple):
    """How it ended: below zero by a signal, None when it took too long."""

    status: int | None
    said: str


async def run(argv: Sequence[str | Path], *, directory: Path, wall_s: float = WALL_S) -> Ended:
    """Run the program to its end, which comes with the caller's cancellation too. Its files go into `directory`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-I", "-S", str(CONFINE), str(os.getpid()), str(CPU_S), str(MEMORY_BYTES), str(FILE_BYTES)),
        *map(str, argv),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=_environment(directory),
    )
    try:
        async with asyncio.timeout(wall_s):
            _, said = await process.communicate()
    except TimeoutError:
        return Ended(None, f"killed after {wall_s:g} s")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Ended(process.returncode, said[-TOLD_BYTES:].decode(errors="replace"))


def _environment(directory: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {**kept, "HOME": str(directory), "TMPDIR": str(directory), "OMP_THREAD_LIMIT": "1", "PYTHONUTF8": "1"}
