"""What each bench has to reach. The only place where that is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on a measured value, or on its ratio to the reference."""

    bound: float
    at_least: bool = True  #: False: at most
    ratio: bool = False

    def __str__(self) -> str:
        number = f"{self.bound:g}x" if self.ratio else f"{self.bound:,.10g}"
        return f"{'≥' if self.at_least else '≤'} {number}"

    def met(self, found: float) -> bool:
        """Whether `found` is within the bound."""
        return found >= self.bound if self.at_least else found <= self.bound

    def missed_by(self, found: float) -> float:
        """How far `found` is beyond the bound, as a share of it; 0 when it is within."""
        if self.met(found):
            return 0.0
        return abs(found - self.bound) / self.bound if self.bound else float("inf")


TARGETS: Final[dict[tuple[str, str], Target]] = {
    # (result, reference) → bound; without a reference the value itself is bound
    ("worker", ""): Target(150_000),
    # Of those that do the same: without dedupe the topic's repeats are counted twice.
    ("worker", "kafka streams at-least-once, dedupe"): Target(1, ratio=True),
    ("worker", "kafka streams exactly-once, dedupe"): Target(1, ratio=True),
    ("worker", "quix streams, dedupe"): Target(2.5, ratio=True),
    ("recovery: cold loading", ""): Target(3, at_least=False),
    ("recovery: planned hand-over", ""): Target(3, at_least=False),
    ("routes: serve", "no-op route"): Target(0.6, ratio=True),
    ("routes: impression", "no-op route"): Target(0.6, ratio=True),
    ("checkouts", "checkouts: bare SQL"): Target(0.5, ratio=True),
    ("lag: p50", ""): Target(100, at_least=False),
    ("lag: p99", ""): Target(250, at_least=False),
    ("timers: memory they take", ""): Target(128, at_least=False),
    ("timers: idle tick p99", ""): Target(50, at_least=False),
    ("timers: firing tick p99", ""): Target(50, at_least=False),
    ("timers: lateness p99", ""): Target(1500, at_least=False),
    ("relay", "debezium"): Target(2, ratio=True),
    ("relay: latency p99", "debezium: latency p99"): Target(1, at_least=False, ratio=True),
}
