"""The negative control: the same fault and the same check, on a counter without a fence. It has to be wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.faults.count import count_day
from tests.faults.load import Load, Market, Tally
from tests.faults.naive import WORKER
from tests.faults.stand_still import stand_still
from tests.faults.system import System

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

ATTEMPTS = 5


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    with System((sys.executable, "-m", "tests.faults.naive", "up"), worker=WORKER) as system:
        yield system


async def test_a_counter_without_a_fence_fails_the_check_when_a_worker_stands_still(
    system: System, market: Market
) -> None:
    second = system.second_worker()
    second.start()
    await second.ready()
    for attempt in range(ATTEMPTS):
        day = await market.next_morning()
        load = Load(market, Tally(), seed=attempt)
        await stand_still(market, second, load)
        found = await count_day(market, load.tally, day, patience_s=15.0)
        print(f"\nattempt {attempt + 1}: {found}; {found.wrong[:3]}")
        assert system.fencings() == 0
        assert system.log_lines("kafka", "Initialized transactionalId packstream-ad_counters") == 0, "it has a fence"
        if found.wrong:
            return
    pytest.fail(f"the check did not notice a missing fence in {ATTEMPTS} attempts")
