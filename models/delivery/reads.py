"""Queries on deliveries: the queue, who has an order, how much each agent carries."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, and_, exists, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from models.delivery.rules import CARRIED, AssignmentStatus
from models.delivery.tables import DeliveryAssignment
from models.errors import NotFound
from models.orders import reads as orders
from models.orders.reads import WHOLE, Order
from models.orders.rules import OrderStatus


class Delivery(NamedTuple):
    """An order and its assignment, where it has one."""

    order: Order
    assignment: DeliveryAssignment | None


class Assigned(NamedTuple):
    """An order in an agent's hands."""

    order: Order
    assignment: DeliveryAssignment


async def queue(tx: AsyncSession, *, limit: int, after: tuple[datetime, UUID] | None = None) -> list[Delivery]:
    """The orders that are ready and that no agent has, the longest ready first."""
    query = select(Order).where(Order.status == OrderStatus.READY_FOR_DISPATCH, ~exists().where(_held(Order.id)))
    if after is not None:
        query = query.where(tuple_(Order.ready_at, Order.id) > after)
    found = await tx.scalars(query.order_by(Order.ready_at, Order.id).limit(limit).options(*WHOLE))
    return [Delivery(order, None) for order in found]


async def assignments_of(
    tx: AsyncSession,
    agent_id: UUID,
    *,
    status: AssignmentStatus | None = None,
    limit: int,
    after: tuple[datetime, UUID] | None = None,
) -> list[Assigned]:
    """An agent's assignments, the newest first; without a `status` those that are not canceled."""
    mine = DeliveryAssignment.agent_id == agent_id
    wanted = DeliveryAssignment.status != AssignmentStatus.CANCELED
    if status is not None:
        wanted = DeliveryAssignment.status == status
    query = select(Order, DeliveryAssignment).join(Order, Order.id == DeliveryAssignment.order_id).where(mine, wanted)
    if after is not None:
        query = query.where(tuple_(DeliveryAssignment.assigned_at, DeliveryAssignment.id) < after)
    newest_first = query.order_by(DeliveryAssignment.assigned_at.desc(), DeliveryAssignment.id.desc()).limit(limit)
    return [Assigned(*row) for row in await tx.execute(newest_first.options(*WHOLE))]


async def assigned(tx: AsyncSession, order_id: UUID, *, agent_id: UUID) -> Assigned:
    """The order, its row held until the transaction ends, and the agent's assignment. NotFound unless it is theirs."""
    order = await orders.any_order(tx, order_id, lock=True)
    assignment = await of_order(tx, order_id)
    if assignment is None or assignment.agent_id != agent_id:
        raise NotFound("no such order is assigned to you")
    return Assigned(order, assignment)


async def of_order(tx: AsyncSession, order_id: UUID) -> DeliveryAssignment | None:
    """The assignment of an order that is not canceled."""
    return await tx.scalar(select(DeliveryAssignment).where(_held(order_id)).execution_options(populate_existing=True))


async def loads(tx: AsyncSession) -> dict[UUID, int]:
    """How many orders each agent has to carry; who has none is not in it."""
    query = select(DeliveryAssignment.agent_id, func.count()).where(DeliveryAssignment.status.in_(sorted(CARRIED)))
    return dict((await tx.execute(query.group_by(DeliveryAssignment.agent_id))).all())


def _held(order_id: UUID | InstrumentedAttribute[UUID]) -> ColumnElement[bool]:
    return and_(DeliveryAssignment.order_id == order_id, DeliveryAssignment.status != AssignmentStatus.CANCELED)
