"""One system for all faults of a module; each test has a day, a tally and a load of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.faults.load import Load, Market, Tally
from tests.faults.system import System


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    with System() as system:
        yield system


@pytest.fixture(scope="module")
def market(system: System) -> Market:
    market = Market(system)
    asyncio.run(market.open())
    return market


@pytest.fixture
def load(market: Market) -> Load:
    return Load(market, Tally())
