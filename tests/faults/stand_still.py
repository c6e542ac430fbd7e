"""A worker that stands still for longer than its session, while another takes over, and then goes on."""

from __future__ import annotations

import asyncio
import os
import signal

from tests.faults.system import ExtraWorker, System

SESSION_S = 6.0
MARGIN_S = 3.0


async def stand_still(system: System, second: ExtraWorker) -> None:
    """SIGSTOP for the supervised worker, until `second` has counted for it for a while; then SIGCONT."""
    pid = await system.signal("worker", signal.SIGSTOP)
    try:
        if second.process is None or second.process.poll() is not None:
            second.start()
            await second.ready()
        else:
            await asyncio.sleep(SESSION_S)
        await asyncio.sleep(MARGIN_S)
    finally:
        os.kill(pid, signal.SIGCONT)
    await asyncio.sleep(MARGIN_S)
