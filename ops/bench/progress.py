"""How far a contender is: it prints `progress NANOSECONDS SEEN COUNTED`, at last `end`, and the bench reads it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ops.stack.errors import StackError
from ops.stack.units import last_line

SAY_S: Final = 0.02
WARM_SHARE: Final = 1 / 3  #: of what a contender sees: its pace is taken behind it, when caches and compilers are warm


class Progress:
    """The contender's side."""

    def __init__(self) -> None:
        self.seen = self._counted = self._said = 0
        self._next_s = 0.0

    def add(self, seen: int, counted: int) -> None:
        """Events met, and those of them that were counted."""
        self.seen += seen
        self._counted += counted

    def say(self) -> None:
        """Print where it stands, now and then."""
        now = time.monotonic()
        if now >= self._next_s and self.seen > self._said:
            self._line("progress")
            self._next_s, self._said = now + SAY_S, self.seen

    def end(self) -> None:
        """Print the last line."""
        self._line("end")

    def _line(self, word: str) -> None:
        print(word, time.monotonic_ns(), self.seen, self._counted, flush=True)


@dataclass(frozen=True, slots=True)
class Pace:
    """What a contender did once it was warm; `seen` and `counted` are of the whole run."""

    events_per_s: float
    seen: int
    counted: int


async def pace_of(argv: Sequence[str], log: Path, *, environment: Mapping[str, str], timeout_s: float) -> Pace:
    """Run a contender to its end. StackError when it fails or takes too long."""
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=errors, env=environment
        )
    try:
        async with asyncio.timeout(timeout_s):
            steps = await _steps(process)
            status = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if status or not steps or steps[-1][1] == steps[0][1]:
        raise StackError(f"{argv[0]} ended with status {status}: {last_line(log.read_text(errors='replace'))}")
    ended_ns, after, counted = steps[-1]
    began_ns, before, _ = next((step for step in steps[:-1] if after * WARM_SHARE <= step[1] < after), steps[0])
    return Pace((after - before) / (ended_ns - began_ns) * 1e9, after, counted)


async def _steps(process: asyncio.subprocess.Process) -> list[tuple[int, int, int]]:
    assert process.stdout is not None
    steps = []
    async for line in process.stdout:
        word, *numbers = line.decode(errors="replace").split()
        if word in ("progress", "end"):
            time_ns, seen, counted = map(int, numbers)
            steps.append((time_ns, seen, counted))
        if word == "end":
            break
    return steps
