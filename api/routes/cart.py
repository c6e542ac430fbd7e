"""A buyer's cart: quote it, look at it."""

from __future__ import annotations

from time import perf_counter

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api import cart_metrics
from api.ad_services import AdServices
from api.dependencies import Buyer, Member, Tx, as_buyer, request_now, services_of
from api.envelope import Envelope
from api.idempotency import KEY_DOCS, once
from api.plain_routes import Json, PlainRoute, body_docs, body_of
from api.services import Services
from models.cart import reads, writes
from models.cart.writes import QuoteTerms
from models.database import Driver
from schemas.http.cart import CartOut, NewQuote

quotes = APIRouter(prefix="/api/v1/cart", tags=["cart"], route_class=PlainRoute)
router = APIRouter(prefix="/api/v1/cart", tags=["cart"])


@quotes.post("", response_model=Envelope[CartOut], openapi_extra=body_docs(NewQuote) | KEY_DOCS)
@once(as_buyer)
async def quote(request: Request, buyer: Member, db: Driver) -> Response:
    """Price what the buyer wants, and keep it as the store's cart in place of what was there.

    What cannot be had is in the answer, with warnings; totals count `ok` lines alone. No stock is reserved.
    """
    body = body_of(NewQuote, await request.body())
    started, terms, now = perf_counter(), _terms(services_of(request)), request_now(request)
    quoted = await writes.quote(db, body, terms, buyer_store_id=buyer.store_id, now=now)
    cart_metrics.record(quoted, elapsed_s=perf_counter() - started)
    return Json(Envelope[CartOut](data=CartOut.model_validate(quoted.cart)).model_dump_json().encode())


@router.get("")
async def get_cart(buyer: Buyer, tx: Tx) -> Envelope[CartOut]:
    """The store's active cart as it was last quoted; 404 before the first quote and after a checkout."""
    return Envelope(data=CartOut.model_validate(await reads.active(tx, buyer_store_id=buyer.store_id)))


def _terms(process: Services) -> QuoteTerms:
    return QuoteTerms(ttl_s=process.settings.quote_ttl_s, tokens=process.get(AdServices).attribution)
