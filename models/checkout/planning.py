"""What a checkout is about to write, worked out before stock is held: whoever wants the same products waits for that.

Only what cannot be had may be found out under the locks; the plan is then made anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from models import outbox
from models.ads.tokens import AdClaims
from models.cart.reads import HeldCart, HeldGroup, HeldQuote
from models.checkout import attribution, rules
from models.checkout.reads import Checkout
from models.checkout.rules import Failures
from models.notifications import writes as notifications
from models.notifications.rules import NotificationKind, dollars
from models.orders import placing
from models.orders.placing import NewLine, NewOrder, Placement, Terms
from models.orders.rules import Totals
from models.orders.snapshots import snapshot
from models.outbox import Encoded
from schemas.records import CheckoutConverted


@dataclass(frozen=True, slots=True)
class Plan:
    """A checkout that only needs to be written."""

    done: Checkout
    placement: Placement
    events: Encoded


@dataclass(frozen=True, slots=True, kw_only=True)
class Planner:
    """What all plans of a checkout have in common. `serials`: a number for each vendor of the quote."""

    cart: HeldCart
    quote: HeldQuote
    terms: Terms
    claims: Sequence[AdClaims]
    serials: Sequence[int]
    actor: str

    def plan(self, failures: Failures) -> Plan:
        """The checkout in which these lines fail. NoOrderableItems where all do."""
        outcome = rules.outcome(self.quote.lines, failures)
        orders = [self._order(vendor, lines, failures) for vendor, lines in outcome.lines.items()]
        placement = placing.prepare(self.terms, orders, self.serials)
        cart = self.cart.converted(
            checkout_group_id=self.terms.checkout_group_id,
            payment_method=self.terms.payment_method,
            shipping_address=self.terms.shipping_address,
            shipping_line=self.terms.shipping_line,
            rejected_vendors=[
                {"vendor_store_id": str(one.vendor_store_id), "reason": one.reason.value} for one in outcome.rejected
            ],
        )
        done = Checkout(cart, placement.orders, repeated=False)
        return Plan(done, placement, outbox.encoded(_events(done, actor=self.actor, now=self.terms.created_at)))

    def _order(self, vendor: UUID, lines: Sequence[Any], failures: Failures) -> NewOrder:
        """The group's totals, of which each failed line takes its own."""
        group: HeldGroup = self.quote.groups[vendor]
        shipping = self.terms.shipping_line["price_cents"] if self.terms.shipping_line else 0
        whole = Totals(group.subtotal_cents, group.discounts_cents, shipping)
        return NewOrder(
            vendor_store_id=vendor,
            totals=whole.without(line for line in lines if line.product_id in failures),
            promo=group.promo,
            warnings=group.warnings,
            attribution=attribution.of_order(self.claims, vendor),
            lines=[self._line(line, failures) for line in lines],
        )

    def _line(self, line: Any, failures: Failures) -> NewLine:
        return NewLine.of(
            line,
            cart_item_id=line.id,
            attribution=attribution.of_line(self.claims, line.product_id),
            rejection_reason=failures.get(line.product_id),
        )


def _events(done: Checkout, *, actor: str, now: datetime) -> list[Any]:
    """The conversion's id is the group's: however often it is told, it is the same one."""
    converted = CheckoutConverted(
        event_id=done.checkout_group_id,
        occurred_at=now,
        actor=actor,
        checkout_group_id=done.checkout_group_id,
        cart_id=done.cart.id,
        buyer_store_id=done.cart.buyer_store_id,
        currency=done.cart.currency,
        total_cents=done.total_cents,
        orders=[snapshot(order) for order in done.vendor_orders],
    )
    values = {
        "checkout_group_id": str(done.checkout_group_id),
        "orders": str(len(done.vendor_orders)),
        "total": dollars(done.total_cents),
    }
    notice = notifications.requested(
        store_id=done.cart.buyer_store_id,
        kind=NotificationKind.CHECKOUT,
        subject_id=done.checkout_group_id,
        values=values,
        actor=actor,
        now=now,
    )
    return [converted, notice]
