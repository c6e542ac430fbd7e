"""Faults for real, under load: afterwards answers, topic, counters, rollups and charges are one.

Each test takes a business day of its own, does its harm, closes the day and counts (count.py).
"""

from __future__ import annotations

import asyncio
import signal
from datetime import timedelta

import pytest

from tests.faults.count import count_day
from tests.faults.load import Load, Market
from tests.faults.system import System, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

ROUNDS = 4
PROGRAMS = ("worker", "relay", "api")
SESSION_S = 6


async def test_killed_workers_relays_and_apis_lose_and_repeat_nothing(
    system: System, market: Market, load: Load
) -> None:
    day = await market.next_morning()
    kills = 0
    async with load.running():
        for round_ in range(ROUNDS):
            await asyncio.sleep(1.5)
            old = {}
            for name in PROGRAMS[round_ % 3 :] + PROGRAMS[: round_ % 3]:
                old[name] = await system.kill(name)
                kills += 1
                await asyncio.sleep(0.7)
            for name in PROGRAMS:
                await system.back(name, old[name])
        await asyncio.sleep(2)
    found = await count_day(market, load.tally, day)
    print(f"\n{kills} kills; {found}; {load.tally.answers}")
    assert not found.wrong, found.wrong[:20]
    assert kills >= 10
    assert found.accepted > 300
