"""A worker that stands still for longer than its session, while another takes over, and then goes on."""

from __future__ import annotations

import asyncio
import os
import signal

from tests.faults.load import Load
from tests.faults.system import ExtraWorker, System, until

TABLE_LOADED = '"event":"table_loaded"'
TICKS_S = 2.0  #: every shard has ticked meanwhile


async def stand_still(system: System, second: ExtraWorker, load: Load) -> None:
    """SIGSTOP for the supervised worker, until `second` has counted for it for a while; then SIGCONT."""
    before = system.log_lines(second.log_name, TABLE_LOADED)
    await load.goes_on()
    pid = await system.signal("worker", signal.SIGSTOP)
    try:

        async def taken_over() -> bool:
            return system.log_lines(second.log_name, TABLE_LOADED) > before

        await until("the second worker has taken over", taken_over)
        await load.goes_on()
        await asyncio.sleep(TICKS_S)
    finally:
        os.kill(pid, signal.SIGCONT)
    await asyncio.sleep(TICKS_S)
    await load.goes_on()
