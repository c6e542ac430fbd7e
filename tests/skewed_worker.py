"""``python -m tests.skewed_worker SECONDS AGENT``: a worker on a host whose clock is wrong by so many seconds."""

from __future__ import annotations

import sys
import time
from datetime import datetime, timedelta

from agents import worker
from models.clock import Clock
from ops.settings import load_settings


def main(skew_s: int, agent: str) -> None:
    """Run until killed."""
    true_time = time.time

    class WrongClock(Clock):
        def now(self) -> datetime:
            return super().now() + timedelta(seconds=skew_s)

    time.time = lambda: true_time() + skew_s
    worker.Clock = WrongClock  # type: ignore[misc]
    worker.main(load_settings(), [agent])


if __name__ == "__main__":
    agent = sys.argv.pop()
    main(int(sys.argv.pop()), agent)
