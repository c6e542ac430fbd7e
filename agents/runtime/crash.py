"""Crash only: anything unexpected ends the process, and a supervisor starts it again from the changelog."""

from __future__ import annotations

import logging
import os
from typing import Any, Final

import structlog

RESTART_EXIT_CODE: Final = 75  #: EX_TEMPFAIL: "start me again"

log = structlog.get_logger(__name__)


def restart(app: Any, reason: str) -> None:
    """End the process at once. While it stops anyway, only say why."""
    if app.should_stop:
        log.warning("error_during_shutdown", reason=reason, exc_info=True)
        return
    log.critical("worker_restart", reason=reason, exc_info=True)
    logging.shutdown()
    os._exit(RESTART_EXIT_CODE)
