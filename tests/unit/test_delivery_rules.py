"""Who gets the next order: one of those who carry least, whichever is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from models.delivery.rules import least_loaded

AGENTS = [UUID(int=number) for number in range(1, 6)]


@given(
    st.lists(st.sampled_from(AGENTS), unique=True),
    st.dictionaries(st.sampled_from(AGENTS), st.integers(1, 3)),
    st.randoms(use_true_random=False),
)
def test_nobody_who_gets_an_order_carries_more_than_another(
    agents: list[UUID], loads: dict[UUID, int], rng: Random
) -> None:
    chosen = least_loaded(agents, loads, rng.choice)
    if not agents:
        assert chosen is None
        return
    assert chosen in agents
    assert all(loads.get(chosen, 0) <= loads.get(agent, 0) for agent in agents)


def test_each_of_those_who_carry_least_may_be_drawn() -> None:
    offered: list[list[UUID]] = []

    def first(those: Sequence[UUID]) -> UUID:
        offered.append(list(those))
        return offered[-1][0]

    least_loaded(AGENTS, {AGENTS[0]: 1, AGENTS[3]: 2}, first)
    assert offered == [[AGENTS[1], AGENTS[2], AGENTS[4]]]
