"""The `packstream relay` process: the outbox's rows become Kafka records. DESIGN.md 3.

process.py runs everything; pump.py is one loop of claim, read, publish, settle; publish.py speaks to Kafka,
models/outbox_commands.py to Postgres; failures.py decides what happens to a refused row.
"""

from __future__ import annotations

import sys

import uvloop

from agents.relay.process import run
from models.errors import PackstreamError
from ops.logs import configure_logs
from ops.settings import Settings


def main(settings: Settings) -> None:
    """Run the relay until SIGTERM; one line on standard error and exit status 1 where it cannot run at all."""
    configure_logs(level=settings.log_level, format_=settings.log_format)
    try:
        uvloop.run(run(settings))
    except PackstreamError as exc:
        sys.exit(f"packstream relay: {exc}")
