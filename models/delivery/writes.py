"""Commands on deliveries: give an order to an agent, pick up, deliver; an order's cancellation takes it back.

Whoever changes an order's assignment holds the order's row.
"""

from __future__ import annotations

import random
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from models.database import new_id
from models.delivery import reads
from models.delivery.reads import Assigned
from models.delivery.rules import AssignmentStatus, least_loaded
from models.delivery.tables import DeliveryAssignment
from models.errors import Conflict
from models.identity import reads as identity
from models.orders import dispatching
from models.orders import reads as orders
from models.orders.reads import Order
from models.orders.rules import OrderAction, OrderStatus, is_done, next_status
from models.orders.telling import about, tell
from models.tenancy import as_service
from schemas.records import OrderAssigned

# One order is given out at a time, until its transaction ends: who chooses sees what the last one got.
_TURN: Final = text("SELECT pg_advisory_xact_lock(hashtextextended('packstream:assign an order', 0))")


async def assign_automatically(tx: AsyncSession, order: Order, *, actor: str, now: datetime) -> UUID | None:
    """Give an order that has become ready to one of the agents who carry least; their id, or None without an agent.

    For the transaction that made it ready (AUTO_ASSIGN): that one goes on as the service role, since a vendor sees no
    agents. An order that is not ready, or that an agent has, stays as it is.
    """
    if order.status != OrderStatus.READY_FOR_DISPATCH:
        return None
    await as_service(tx)
    if await reads.of_order(tx, order.id) is not None:
        return None
    await tx.execute(_TURN)
    agent_id = least_loaded(await identity.agents(tx), await reads.loads(tx), random.choice)
    if agent_id is not None:
        await _assign(tx, order, agent_id, automatic=True, actor=actor, now=now)
    return agent_id


async def take(tx: AsyncSession, order_id: UUID, *, agent_id: UUID, actor: str, now: datetime) -> Assigned:
    """Take a ready order from the queue; again: the same. NotFound; Conflict when it is not ready, or another's."""
    order = await orders.any_order(tx, order_id, lock=True)
    next_status(OrderStatus(order.status), OrderAction.ASSIGN)
    held = await reads.of_order(tx, order_id)
    if held is None:
        held = await _assign(tx, order, agent_id, automatic=False, actor=actor, now=now)
    elif held.agent_id != agent_id:
        raise Conflict(f"another agent has this order, which is {order.status}")
    return Assigned(order, held)


async def _assign(
    tx: AsyncSession, order: Order, agent_id: UUID, *, automatic: bool, actor: str, now: datetime
) -> DeliveryAssignment:
    made = DeliveryAssignment(
        id=new_id(),
        order_id=order.id,
        agent_id=agent_id,
        buyer_store_id=order.buyer_store_id,
        vendor_store_id=order.vendor_store_id,
        status=AssignmentStatus.ASSIGNED,
        automatic=automatic,
        assigned_at=now,
        picked_up_at=None,
        delivered_at=None,
        canceled_at=None,
    )
    tx.add(made)
    await tx.flush()
    event = OrderAssigned(**about(order, actor=actor, now=now), agent_id=agent_id, automatic=automatic)
    await tell(tx, [event], [], actor=actor, now=now)
    return made


async def pick_up(tx: AsyncSession, order_id: UUID, *, agent_id: UUID, actor: str, now: datetime) -> Assigned:
    """The agent has the goods: the order is in transit; again: the same. NotFound, StateConflict."""
    found = await reads.assigned(tx, order_id, agent_id=agent_id)
    if not is_done(OrderStatus(found.order.status), OrderAction.PICK_UP):
        await dispatching.pick_up(tx, found.order, agent_id=agent_id, actor=actor, now=now)
        found.assignment.status = AssignmentStatus.PICKED_UP
        found.assignment.picked_up_at = now
        await tx.flush()
    return found


async def deliver(tx: AsyncSession, order_id: UUID, *, agent_id: UUID, actor: str, now: datetime) -> Assigned:
    """The agent has delivered the order; again: the same. NotFound, StateConflict."""
    found = await reads.assigned(tx, order_id, agent_id=agent_id)
    if not is_done(OrderStatus(found.order.status), OrderAction.DELIVER):
        await dispatching.deliver(tx, found.order, agent_id=agent_id, actor=actor, now=now)
        found.assignment.status = AssignmentStatus.DELIVERED
        found.assignment.delivered_at = now
        await tx.flush()
    return found


async def release(tx: AsyncSession, order_id: UUID, *, now: datetime) -> None:
    """End the assignment, if there is one, of an order that is canceled: for the transaction that cancels it."""
    held = await reads.of_order(tx, order_id)
    if held is not None:
        held.status = AssignmentStatus.CANCELED
        held.canceled_at = now
        await tx.flush()
