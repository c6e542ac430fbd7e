"""The checkout: a quote becomes orders, in one transaction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from models import outbox
from models.cart import attribution as tokens
from models.cart import reads as carts
from models.cart import rules as cart_rules
from models.cart import writes as cart_writes
from models.cart.attribution import TokenRules
from models.cart.reads import HeldCart
from models.cart.rules import CartStatus
from models.catalog import reads as catalog
from models.catalog import writes as stock
from models.checkout import reads, rules
from models.checkout.planning import Planner
from models.checkout.reads import Checkout
from models.database import Driver, new_id
from models.orders import placing
from models.orders.placing import Terms
from models.orders.rules import PaymentMethod, RejectionReason, deadlines
from schemas.http.orders import NewCheckout

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CheckoutTerms:
    """How long vendors have to decide, when they are nudged, and what ad tokens are held against."""

    order_ttl_s: int
    order_nudge_s: int
    tokens: TokenRules


async def check_out(
    db: Driver,
    body: NewCheckout,
    terms: CheckoutTerms,
    *,
    buyer_store_id: UUID,
    actor: str,
    now: datetime,
    render: Callable[[Checkout], T],
) -> T:
    """Convert the store's cart: stock is held, and each vendor with something to order gets one order.

    A cart that was converted gives the same checkout again, and nothing is written. Checkouts of a cart come one after
    the other, each holding its row. The number of statements does not depend on the number of lines. Two events go with
    it: `checkout_converted`, and the notification that names the group. It gives what `render` makes of the checkout,
    which is asked before stock is held, as all is that others need not wait for.
    Raises NotFound, CartNotActive, NoOrderableItems: the caller rolls back, and the cart is as it was.
    """
    cart = await carts.hold(db, body.cart_id, buyer_store_id=buyer_store_id)
    if cart.status == CartStatus.CONVERTED:
        return render(await reads.of_converted(db, cart))
    cart_rules.check_convertible(CartStatus(cart.status), valid_until=cart.valid_until, now=now)
    quote = await carts.quote_of(db, cart.id)
    kept, _ = tokens.select(cart.attribution_tokens, terms.tokens, buyer_store_id=buyer_store_id, now=now)
    planner = Planner(
        cart=cart,
        quote=quote,
        terms=_common(cart, body, terms, now),
        claims=[one.claims for one in kept],
        serials=await placing.serials(db, len(quote.groups)),
        actor=actor,
    )
    offers = await catalog.for_quote(db, [line.product_id for line in quote.lines], buyer_store_id=buyer_store_id)
    failures = rules.verify(quote.lines, offers)
    plan = planner.plan(failures)
    answer = render(plan.done)
    await cart_writes.convert(db, plan.done.cart, now=now)
    short = await stock.reserve(db, rules.demand(quote.lines, failures))
    if short:
        plan = planner.plan(failures | dict.fromkeys(short, RejectionReason.INSUFFICIENT_STOCK))
        answer = render(plan.done)
        await cart_writes.convert(db, plan.done.cart, now=now)
    await placing.write(db, plan.placement)
    await outbox.append_encoded(db, plan.events)
    return answer


def _common(cart: HeldCart, body: NewCheckout, terms: CheckoutTerms, now: datetime) -> Terms:
    nudge_at, expires_at = deadlines(now, ttl_s=terms.order_ttl_s, nudge_s=terms.order_nudge_s)
    return Terms(
        checkout_group_id=new_id(),
        cart_id=cart.id,
        buyer_store_id=cart.buyer_store_id,
        currency=cart.currency,
        payment_method=PaymentMethod(body.payment_method),
        shipping_address=body.shipping_address.model_dump(exclude_none=True),
        shipping_line=body.shipping_line.model_dump() if body.shipping_line else None,
        created_at=now,
        nudge_at=nudge_at,
        expires_at=expires_at,
    )
