"""A buyer's cart: quote it, look at it."""

from __future__ import annotations

from time import perf_counter

from fastapi import APIRouter

from api import cart_metrics
from api.ad_services import AdServices
from api.dependencies import Buyer, Now, Process, Tx
from api.envelope import Envelope
from api.idempotency import IdempotentRoute, KeyGiven
from api.services import Services
from models.cart import reads, writes
from models.cart.attribution import TokenRules
from models.cart.writes import QuoteTerms
from schemas.http.cart import CartOut, NewQuote

router = APIRouter(prefix="/api/v1/cart", tags=["cart"], route_class=IdempotentRoute)


@router.post("")
async def quote(body: NewQuote, buyer: Buyer, _key: KeyGiven, tx: Tx, now: Now, process: Process) -> Envelope[CartOut]:
    """Price what the buyer wants, and keep it as the store's cart in place of what was there.

    What cannot be had is in the answer, with warnings; totals count `ok` lines alone. No stock is reserved.
    """
    started = perf_counter()
    quoted = await writes.quote(tx, body, _terms(process), buyer_store_id=buyer.store_id, now=now)
    cart_metrics.record(quoted, elapsed_s=perf_counter() - started)
    return Envelope(data=CartOut.model_validate(quoted.cart))


@router.get("")
async def get_cart(buyer: Buyer, tx: Tx) -> Envelope[CartOut]:
    """The store's active cart as it was last quoted; 404 before the first quote and after a checkout."""
    return Envelope(data=CartOut.model_validate(await reads.active(tx, buyer_store_id=buyer.store_id)))


def _terms(process: Services) -> QuoteTerms:
    settings = process.settings
    keys = process.get(AdServices).keys
    return QuoteTerms(
        ttl_s=settings.quote_ttl_s,
        tokens=TokenRules(keys, ttl_s=settings.ad_attribution_ttl_s, skew_s=settings.clock_skew_s),
    )
