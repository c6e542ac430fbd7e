"""Commands on money: cash collected, a bank transfer settled, a payout confirmed. Each is one transaction.

Order, intent, ledger and event change together, under the order's lock.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from models.delivery import reads as delivery
from models.delivery.reads import Assigned
from models.errors import FieldError, ValidationFailed
from models.ledger import journal, rules
from models.ledger.rules import SETTLEMENTS, EventType
from models.notifications.rules import NotificationKind, dollars
from models.orders import reads as orders
from models.orders import settling
from models.orders.reads import Order
from models.orders.rules import OrderAction, OrderStatus, PaymentMethod, is_done
from models.orders.telling import about, tell, to_vendor
from schemas.records import AchSettled, CashCollected, OrderPaid


async def collect_cash(
    tx: AsyncSession, order_id: UUID, amount_cents: int, *, agent_id: UUID, actor: str, now: datetime
) -> Assigned:
    """The agent was given the order's total in cash; again: the same.

    Raises NotFound unless the order is theirs, Conflict unless it is delivered and to be paid in cash,
    ValidationFailed for any other amount.
    """
    found = await delivery.assigned(tx, order_id, agent_id=agent_id)
    order = found.order
    settled = settling.is_settled(order, PaymentMethod.CASH)
    if amount_cents != order.total_cents:
        wrong = FieldError("amount_cents", "amount_mismatch", f"the order's total is {order.total_cents}")
        raise ValidationFailed("the amount is not the order's total", errors=[wrong])
    if not settled:
        event_id = await _settle(tx, order, actor=actor, now=now)
        common = about(order, actor=actor, now=now)
        event = CashCollected(**common, amount_cents=order.total_cents, ledger_event_id=event_id, agent_id=agent_id)
        await tell(tx, [event], [], actor=actor, now=now)
    return found


async def settle_ach(tx: AsyncSession, order_id: UUID, *, actor: str, now: datetime) -> Order:
    """The bank transfer for a delivered order has come in; again: the same.

    Raises NotFound, and Conflict unless the order is delivered and to be paid by ACH.
    """
    order = await orders.any_order(tx, order_id, lock=True)
    if not settling.is_settled(order, PaymentMethod.ACH):
        event_id = await _settle(tx, order, actor=actor, now=now)
        common = about(order, actor=actor, now=now)
        event = AchSettled(**common, amount_cents=order.total_cents, ledger_event_id=event_id)
        await tell(tx, [event], [], actor=actor, now=now)
    return order


async def _settle(tx: AsyncSession, order: Order, *, actor: str, now: datetime) -> UUID:
    await settling.settle(tx, order, now=now)
    method, total_cents = PaymentMethod(order.payment_method), order.total_cents
    postings = rules.settlement(method, total_cents)
    return await journal.append(tx, order, SETTLEMENTS[method], total_cents, postings, actor=actor, now=now)


async def confirm_payout(tx: AsyncSession, order_id: UUID, *, fee_bp: int, actor: str, now: datetime) -> Order:
    """The vendor has been paid for a settled order, less the platform's fee, and hears of it; again: the same.

    The order is closed. Raises NotFound, and Conflict unless it is delivered and settled.
    """
    order = await orders.any_order(tx, order_id, lock=True)
    if is_done(OrderStatus(order.status), OrderAction.PAY):
        return order
    await settling.pay(tx, order, now=now)
    total_cents = order.total_cents
    fee_cents = rules.fee_of(total_cents, fee_bp)
    postings = rules.payout(PaymentMethod(order.payment_method), total_cents, fee_cents)
    event_id = await journal.append(tx, order, EventType.VENDOR_PAYOUT, total_cents, postings, actor=actor, now=now)
    event = OrderPaid(**about(order, actor=actor, now=now), amount_cents=total_cents, ledger_event_id=event_id)
    notice = to_vendor(order, NotificationKind.PAYOUT_CONFIRMED, total=dollars(total_cents - fee_cents))
    await tell(tx, [event], [notice], actor=actor, now=now)
    return order
