"""Deliveries: the life of an assignment, and who gets the next order. Pure.

assigned → picked_up → delivered; an assigned one is canceled with its order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Final
from uuid import UUID

Choose = Callable[[Sequence[UUID]], UUID]
"""Takes one of several; in production `random.choice`."""


class AssignmentStatus(StrEnum):
    ASSIGNED = "assigned"
    PICKED_UP = "picked_up"
    DELIVERED = "delivered"
    CANCELED = "canceled"


# What an agent still has to carry: their load.
CARRIED: Final = frozenset({AssignmentStatus.ASSIGNED, AssignmentStatus.PICKED_UP})


def least_loaded(agents: Sequence[UUID], loads: Mapping[UUID, int], choose: Choose) -> UUID | None:
    """One of the agents who have the fewest orders to carry; None where there is no agent. No load is a load of 0."""
    if not agents:
        return None
    least = min(loads.get(agent, 0) for agent in agents)
    return choose([agent for agent in agents if loads.get(agent, 0) == least])
