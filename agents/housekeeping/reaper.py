"""With Debezium: archive and delete what it has published, as its slot's confirmed position tells."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from models import outbox_reaping as reaping

ROWS_MAX: Final = 5000
SWEEPS_MAX: Final = 20

log = structlog.get_logger(__name__)


class Reaper:
    """Remembers rows together with a position that lies behind them all, and deletes them once that is confirmed."""

    def __init__(
        self, transaction: Callable[[], AbstractAsyncContextManager[AsyncSession]], *, archive_ad_batches: bool
    ) -> None:
        self._transaction = transaction
        self._unarchived = () if archive_ad_batches else ("ad_events",)
        self._seen: deque[reaping.Sweep] = deque()

    async def reap(self) -> None:
        """Delete what is confirmed by now, and look at what has come since."""
        async with self._transaction() as tx:
            confirmed = await reaping.confirmed_position(tx)
        while self._seen and confirmed is not None and self._seen[0].position <= confirmed:
            async with self._transaction() as tx:
                await reaping.move_out(tx, self._seen[0].seqs, unarchived=self._unarchived)
            done = self._seen.popleft()
            log.info("reaped", rows=len(done.seqs))
        if len(self._seen) < SWEEPS_MAX:
            after = max((sweep.seqs[-1] for sweep in self._seen), default=0)
            async with self._transaction() as tx:
                sweep = await reaping.look(tx, after=after, rows_max=ROWS_MAX)
            if sweep.seqs:
                self._seen.append(sweep)
