"""What the supervisor says: to DATA/logs/up.log, and to standard error while somebody listens there."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click


class Announcer:
    """Call it with a line. A reader of standard error who goes away does not end the system."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._heard = True

    def __call__(self, line: str) -> None:
        self._keep(line)
        if not self._heard:
            return
        try:
            click.echo(line, err=True)
        except OSError as exc:
            self._heard = False
            self._keep(f"standard error takes nothing any more ({exc})")

    def _keep(self, line: str) -> None:
        with self._log.open("a") as log:
            log.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}Z {line}\n")
