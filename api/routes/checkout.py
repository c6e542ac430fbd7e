"""A buyer's checkout: the cart becomes orders."""

from __future__ import annotations

from fastapi import APIRouter, Response

from api.ad_services import AdServices
from api.dependencies import Buyer, Now, Process, Tx
from api.envelope import Envelope
from api.idempotency import IdempotentRoute, KeyGiven
from api.services import Services
from models.cart.attribution import TokenRules
from models.checkout.implementations import IMPLEMENTATIONS
from models.checkout.writes import CheckoutTerms
from schemas.http.orders import CheckoutOut, NewCheckout

router = APIRouter(prefix="/api/v1/checkout", tags=["checkout"], route_class=IdempotentRoute)


@router.post("", status_code=201, responses={200: {"description": "The cart was converted before: the same again"}})
async def check_out(
    body: NewCheckout, buyer: Buyer, _key: KeyGiven, tx: Tx, now: Now, process: Process, response: Response
) -> Envelope[CheckoutOut]:
    """Order what the cart says: one order a vendor, stock held, a payment intent each, in one transaction.

    What cannot be had any more is rejected in its order; vendors of whom nothing can be had are named. A cart that was
    converted gives the same result again, with 200.
    """
    command = IMPLEMENTATIONS[process.settings.checkout_implementation]
    done = await command(tx, body, _terms(process), buyer_store_id=buyer.store_id, actor=buyer.actor, now=now)
    if done.repeated:
        response.status_code = 200
    fields = {name: getattr(done, name) for name in ("checkout_group_id", "vendor_orders", "rejected_vendors")}
    snapshot = {name: getattr(done.cart, name) for name in ("payment_method", "shipping_address", "shipping_line")}
    return Envelope(
        data=CheckoutOut.model_validate(
            {**fields, **snapshot, "cart_id": done.cart.id, "total_cents": done.total_cents}
        )
    )


def _terms(process: Services) -> CheckoutTerms:
    settings = process.settings
    keys = process.get(AdServices).keys
    return CheckoutTerms(
        order_ttl_s=settings.order_ttl_s,
        order_nudge_s=settings.order_nudge_s,
        tokens=TokenRules(keys, ttl_s=settings.ad_attribution_ttl_s, skew_s=settings.clock_skew_s),
    )
