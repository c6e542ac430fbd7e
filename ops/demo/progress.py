"""Progress of the demo: a bar in a terminal, plain lines elsewhere. All of it goes to standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

LINE_EVERY: Final = 0.1  #: of a stage, where there is no terminal


class Advance(Protocol):
    """Call it when `steps` of a stage are done."""

    def __call__(self, steps: int = 1) -> None: ...


class Progress:
    """Stages one after another; `seconds` tells how long each took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = time.monotonic()
        self._console = Console(stderr=True, highlight=False)

    def total_seconds(self) -> float:
        """Since this was made."""
        return round(time.monotonic() - self._began, 2)

    @contextmanager
    def stage(self, title: str, total: int = 1) -> Iterator[Advance]:
        """A stage of `total` steps."""
        began = time.monotonic()
        show = self._bar if self._console.is_terminal else self._lines
        with show(title, total) as advance:
            yield advance
        self.seconds[title] = round(time.monotonic() - began, 2)

    @contextmanager
    def _bar(self, title: str, total: int) -> Iterator[Advance]:
        columns = (TextColumn(f"{title:34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Bars(*columns, console=self._console, refresh_per_second=4) as bars:
            task = bars.add_task(title, total=total)

            def advance(steps: int = 1) -> None:
                bars.advance(task, steps)

            yield advance
            bars.update(task, completed=total)

    @contextmanager
    def _lines(self, title: str, total: int) -> Iterator[Advance]:
        began, done, said = time.monotonic(), 0, 0.0

        def advance(steps: int = 1) -> None:
            nonlocal done, said
            done += steps
            if total > 1 and done / total >= said + LINE_EVERY:
                said = done / total
                say(f"  {title}: {done} of {total}")

        say(f"{title} …")
        yield advance
        say(f"  {title}: done in {time.monotonic() - began:.1f} s")


def say(line: str) -> None:
    """A line for people."""
    print(line, file=sys.stderr, flush=True)
