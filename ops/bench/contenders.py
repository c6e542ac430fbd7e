"""Other ways to count the topic that the worker counts, each a process of its own that stops after so many events.

Those with `dedupe` do what the topic asks for, since it holds repeats; the others show what that costs them.
"""

from __future__ import annotations

import itertools
import os
import sys
from dataclasses import dataclass
from typing import Final, Literal

from ops.bench import kafka_streams_jar
from ops.bench.progress import Pace, pace_of
from ops.bench.site import BenchSite
from streams.topics import AD_EVENTS

TIMEOUT_S: Final = 180.0
Kind = Literal["aiokafka_loop", "quix_streams", "at_least_once", "exactly_once_v2"]

_runs = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Contender:
    """One of them. `kind` is a module of ops.bench, or a guarantee of Kafka Streams."""

    name: str
    kind: Kind
    dedupe: bool
    events: int  #: until it stops: enough for a steady pace
    note: str

    async def pace(self, found: BenchSite, *, quick_events: int | None = None) -> Pace:
        """Run it alone, from nothing."""
        directory = found.root / f"contender-{next(_runs)}"
        directory.mkdir()
        mode, events = "dedupe" if self.dedupe else "count", str(quick_events or self.events)
        argv: tuple[str, ...]
        if self.kind in ("aiokafka_loop", "quix_streams"):
            module = f"ops.bench.{self.kind}"
            argv = (sys.executable, "-m", module, found.brokers, AD_EVENTS, mode, events, str(directory))
        else:
            argv = await kafka_streams_jar.command(
                found.brokers, AD_EVENTS, directory.name, str(directory), self.kind, mode, events
            )
        return await pace_of(argv, directory / "log", environment=dict(os.environ), timeout_s=TIMEOUT_S)


LOOP_DEDUPE: Final = Contender(
    "aiokafka + dict, dedupe", "aiokafka_loop", True, 1_500_000, "in memory only: nothing kept, nothing shown"
)
QUIX_DEDUPE: Final = Contender(
    "quix streams, dedupe", "quix_streams", True, 400_000, "at least once; a mark an event in its state; nothing shown"
)
STREAMS_DEDUPE: Final = Contender(
    "kafka streams at-least-once, dedupe",
    "at_least_once",
    True,
    600_000,
    "one thread; a mark an event in a second store; nothing shown",
)
ALL: Final = (
    LOOP_DEDUPE,
    QUIX_DEDUPE,
    STREAMS_DEDUPE,
    Contender(
        "kafka streams exactly-once, dedupe", "exactly_once_v2", True, 400_000, "one thread; the same in transactions"
    ),
    Contender("aiokafka + dict", "aiokafka_loop", False, 1_500_000, "repeats counted; nothing kept, nothing shown"),
    Contender("quix streams", "quix_streams", False, 600_000, "at least once; repeats counted; nothing shown"),
    Contender(
        "kafka streams at-least-once", "at_least_once", False, 1_500_000, "one thread; repeats counted; nothing shown"
    ),
    Contender(
        "kafka streams exactly-once", "exactly_once_v2", False, 1_500_000, "one thread; repeats counted; nothing shown"
    ),
)
SOME: Final = (LOOP_DEDUPE, QUIX_DEDUPE, STREAMS_DEDUPE)
