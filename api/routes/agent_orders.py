"""Delivery agents: the queue of ready orders, and the way of an order from the vendor to the buyer."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from fastapi import APIRouter

from api.dependencies import AgentUser, Now, Tx
from api.envelope import Envelope, ListEnvelope
from api.idempotency import IdempotentRoute
from api.pagination import Key, Paged
from models.delivery import reads, writes
from models.delivery.rules import AssignmentStatus
from models.ledger import writes as ledger
from schemas.http.delivery import AssignmentOut, CollectedCash, DeliveryOut
from schemas.http.delivery import AssignmentStatus as StatusFilter
from schemas.http.orders import OrderOut

QUEUE: Final = "delivery_queue"
LIST: Final = "assignments"

router = APIRouter(prefix="/api/v1/agent", tags=["delivery"], route_class=IdempotentRoute)


@router.get("/orders")
async def queue(agent: AgentUser, tx: Tx, page: Paged) -> ListEnvelope[DeliveryOut]:
    """Orders that are ready and that no agent has, the longest ready first."""
    rows = await reads.queue(tx, limit=page.limit + 1, after=page.after_time(QUEUE))
    shown, cursor = page.cut(QUEUE, [shape(*row) for row in rows], _by_ready)
    return ListEnvelope.of(shown, cursor)


@router.get("/assignments")
async def list_assignments(
    agent: AgentUser, tx: Tx, page: Paged, status: StatusFilter | None = None
) -> ListEnvelope[DeliveryOut]:
    """The caller's orders, the newest assignment first; canceled ones only where `status` asks for them."""
    name = f"{LIST}:{agent.user_id}:{status}"
    wanted = None if status is None else AssignmentStatus(status)
    rows = await reads.assignments_of(
        tx, agent.user_id, status=wanted, limit=page.limit + 1, after=page.after_time(name)
    )
    shown, cursor = page.cut(name, [shape(*row) for row in rows], _by_assignment)
    return ListEnvelope.of(shown, cursor)


@router.post("/orders/{order_id}/assign")
async def take(order_id: UUID, agent: AgentUser, tx: Tx, now: Now) -> Envelope[DeliveryOut]:
    """Take an order from the queue. Not ready, or another agent's: 409."""
    found = await writes.take(tx, order_id, agent_id=agent.user_id, actor=agent.actor, now=now)
    return Envelope(data=shape(*found))


@router.post("/orders/{order_id}/pickup")
async def pick_up(order_id: UUID, agent: AgentUser, tx: Tx, now: Now) -> Envelope[DeliveryOut]:
    """The goods are in the agent's hands: the order is in transit, and its stock has left the shelf."""
    found = await writes.pick_up(tx, order_id, agent_id=agent.user_id, actor=agent.actor, now=now)
    return Envelope(data=shape(*found))


@router.post("/orders/{order_id}/deliver")
async def deliver(order_id: UUID, agent: AgentUser, tx: Tx, now: Now) -> Envelope[DeliveryOut]:
    """The goods have arrived."""
    found = await writes.deliver(tx, order_id, agent_id=agent.user_id, actor=agent.actor, now=now)
    return Envelope(data=shape(*found))


@router.post("/orders/{order_id}/cash-collected")
async def collect_cash(
    order_id: UUID, body: CollectedCash, agent: AgentUser, tx: Tx, now: Now
) -> Envelope[DeliveryOut]:
    """The buyer of a delivered order has paid its total in cash: the payment is settled. Another amount: 422."""
    found = await ledger.collect_cash(
        tx, order_id, body.amount_cents, agent_id=agent.user_id, actor=agent.actor, now=now
    )
    return Envelope(data=shape(*found))


def shape(order: Any, assignment: Any) -> DeliveryOut:
    """An order and its assignment, if it has one, as agents see them."""
    given = AssignmentOut.model_validate(assignment) if assignment is not None else None
    fields = OrderOut.model_validate(order).model_dump()
    return DeliveryOut(**fields, order_id=order.id, agent_id=given.agent_id if given else None, assignment=given)


def _by_ready(row: DeliveryOut) -> Key:
    assert row.ready_at is not None  # whoever is ready was made so
    return [row.ready_at.isoformat(), str(row.id)]


def _by_assignment(row: DeliveryOut) -> Key:
    assert row.assignment is not None
    return [row.assignment.assigned_at.isoformat(), str(row.assignment.id)]
