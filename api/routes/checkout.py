"""A buyer's checkout: the cart becomes orders. Vendors' stock is held meanwhile, so it is a plain route."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api.ad_services import AdServices
from api.dependencies import Member, as_buyer, request_now, services_of
from api.envelope import Envelope
from api.idempotency import KEY_DOCS, once
from api.plain_routes import Json, PlainRoute, body_docs, body_of
from api.services import Services
from models.checkout.implementations import IMPLEMENTATIONS
from models.checkout.reads import Checkout
from models.checkout.writes import CheckoutTerms
from models.database import Driver
from schemas.http.orders import CheckoutOut, NewCheckout

router = APIRouter(prefix="/api/v1/checkout", tags=["checkout"], route_class=PlainRoute)


@router.post(
    "",
    status_code=201,
    response_model=Envelope[CheckoutOut],
    responses={200: {"description": "The cart was converted before: the same again"}},
    openapi_extra=body_docs(NewCheckout) | KEY_DOCS,
)
@once(as_buyer)
async def check_out(request: Request, buyer: Member, db: Driver) -> Response:
    """Order what the cart says: one order a vendor, stock held, a payment intent each, in one transaction.

    What cannot be had any more is rejected in its order; vendors of whom nothing can be had are named. A cart that was
    converted gives the same result again, with 200.
    """
    body = body_of(NewCheckout, await request.body())
    process, now = services_of(request), request_now(request)
    command, terms = IMPLEMENTATIONS[process.settings.checkout_implementation], _terms(process)
    return await command(db, body, terms, buyer_store_id=buyer.store_id, actor=buyer.actor, now=now, render=_answer)


def _answer(done: Checkout) -> Response:
    fields = {name: getattr(done, name) for name in ("checkout_group_id", "vendor_orders", "rejected_vendors")}
    snapshot = {name: getattr(done.cart, name) for name in ("payment_method", "shipping_address", "shipping_line")}
    out = CheckoutOut.model_validate({**fields, **snapshot, "cart_id": done.cart.id, "total_cents": done.total_cents})
    return Json(Envelope[CheckoutOut](data=out).model_dump_json().encode(), 200 if done.repeated else 201)


def _terms(process: Services) -> CheckoutTerms:
    settings = process.settings
    return CheckoutTerms(
        order_ttl_s=settings.order_ttl_s,
        order_nudge_s=settings.order_nudge_s,
        tokens=process.get(AdServices).attribution,
    )
