"""Deliveries over HTTP: orders as the agents see them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from schemas.http.common import Body, Shape
from schemas.http.orders import OrderOut

AMOUNT_CENTS_MAX = 10**15

AssignmentStatus = Literal["assigned", "picked_up", "delivered", "canceled"]


class CollectedCash(Body):
    """What the agent was given: the order's total."""

    amount_cents: Annotated[int, Field(ge=0, le=AMOUNT_CENTS_MAX)]


class AssignmentOut(Shape):
    """An order in an agent's hands."""

    id: UUID
    order_id: UUID
    agent_id: UUID
    status: AssignmentStatus
    automatic: bool = Field(description="false: the agent took it from the queue")
    assigned_at: datetime
    picked_up_at: datetime | None
    delivered_at: datetime | None
    canceled_at: datetime | None


class DeliveryOut(OrderOut):
    """An order, and who brings it."""

    order_id: UUID = Field(description="the same as `id`")
    agent_id: UUID | None
    assignment: AssignmentOut | None
