"""Commands on carts: quote, convert. None of them touches the stock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from models.cart import attribution, rules
from models.cart.attribution import Dropped, Kept, TokenRules
from models.cart.reads import HeldCart
from models.cart.rules import (
    CURRENCY,
    AskedPromo,
    CartStatus,
    Group,
    Line,
    LineStatus,
    Notice,
    Product,
    Promo,
    Quote,
    Wanted,
)
from models.cart.tables import CartItem, CartRecord, CartVendorGroup
from models.catalog import reads as catalog
from models.catalog.reads import QuoteProduct
from models.database import Driver, as_json, as_loaded, insert_of, new_id, send
from schemas.http.cart import NewQuote


@dataclass(frozen=True, slots=True)
class QuoteTerms:
    """How long a quote is good, and what its ad tokens are held against."""

    ttl_s: int
    tokens: TokenRules


class Quoted(NamedTuple):
    """The cart after a quote, and how many ad tokens were left out for which reason."""

    cart: CartRecord
    dropped: Mapping[Dropped, int]


async def quote(db: Driver, body: NewQuote, terms: QuoteTerms, *, buyer_store_id: UUID, now: datetime) -> Quoted:
    """Replace what the store's active cart says by a new quote; a store without one gets one.

    Quotes of a store come one after the other (each holds the cart's row), and each is whole. The number of statements
    does not depend on the number of items.
    """
    cart_id, created_at = await _hold(db, buyer_store_id, now)
    wanted = [Wanted(item.product_id, item.quantity) for item in body.items]
    asked = [AskedPromo(promo.vendor_store_id, promo.code) for promo in body.promos]
    priced = await _price(db, wanted, asked, buyer_store_id=buyer_store_id, now=now)
    kept, dropped = attribution.select(body.attribution_tokens, terms.tokens, buyer_store_id=buyer_store_id, now=now)
    header = _header(priced, asked, kept) | {"valid_until": now + timedelta(seconds=terms.ttl_s), "updated_at": now}
    keys = {"cart_id": cart_id, "buyer_store_id": buyer_store_id}
    items = [keys | _item(place, line) for place, line in enumerate(priced.lines)]
    groups = [keys | _group(place, group) for place, group in enumerate(priced.groups)]
    await send(db, _BEGIN_ANEW, cart_id, as_json([header]))
    await send(db, _FILL, as_json(items), as_json(groups))
    record = header | {"id": cart_id, "buyer_store_id": buyer_store_id, "created_at": created_at}
    return Quoted(_written(record, items, groups), dropped)


def _written(
    record: Mapping[str, Any], items: Iterable[Mapping[str, Any]], groups: Iterable[Mapping[str, Any]]
) -> CartRecord:
    """The rows as a cart with its lines and groups, as a query would give it; no part of the session."""
    return as_loaded(
        CartRecord,
        {"status": CartStatus.ACTIVE, "currency": CURRENCY, **record},
        items=[as_loaded(CartItem, row) for row in items],
        vendor_groups=[as_loaded(CartVendorGroup, row) for row in groups],
    )


async def convert(db: Driver, cart: HeldCart, *, now: datetime) -> None:
    """Keep a cart that its holder has made a `converted` one."""
    snapshot = (cart.shipping_address, cart.shipping_line, cart.rejected_vendors)
    await send(
        db, _CONVERT, cart.id, now, cart.checkout_group_id, cart.payment_method, *(as_json(one) for one in snapshot)
    )


async def _hold(db: Driver, buyer_store_id: UUID, now: datetime) -> tuple[UUID, datetime]:
    """The store's active cart and when it was made; it is locked until the transaction ends, and made if need be.

    In one statement, so that two first quotes cannot both make one, and a cart that is converted meanwhile is not
    taken for an active one.
    """
    ((cart_id, created_at),) = await send(db, _HOLD, new_id(), buyer_store_id, CURRENCY, now)
    return cart_id, created_at


async def _price(
    db: Driver, wanted: Sequence[Wanted], asked: Sequence[AskedPromo], *, buyer_store_id: UUID, now: datetime
) -> Quote:
    """Today's prices, stock and promos applied to what is wanted."""
    found = await catalog.for_quote(db, [one.product_id for one in wanted], buyer_store_id=buyer_store_id)
    promos = await catalog.promos_for(db, asked, now=now)
    return rules.price_cart(
        wanted,
        {product_id: _product(one) for product_id, one in found.items()},
        asked,
        {vendor: Promo(*promo) for (vendor, _), promo in promos.items()},
    )


def _product(found: QuoteProduct) -> Product:
    return Product(
        id=found.id,
        vendor_store_id=found.store_id,
        title=found.title,
        category=found.category,
        price_cents=found.price_cents,
        moq=found.moq,
        max_qty=found.max_qty,
        available=found.available_qty,
        tiers=found.volume_discounts,
        offered=found.offered,
        vendor_may_sell=found.vendor_eligible,
    )


_HOLD: Final = """
INSERT INTO cart_records (id, buyer_store_id, status, currency, valid_until, subtotal_cents, discounts_cents,
  total_cents, ok_items, warnings, promos_asked, attribution_tokens, attribution_claims, created_at, updated_at)
VALUES ($1, $2, 'active', $3, $4, 0, 0, 0, 0, '[]', '[]', '[]', '[]', $4, $4)
ON CONFLICT (buyer_store_id) WHERE status = 'active' DO UPDATE SET updated_at = $4
RETURNING id, created_at
"""
_QUOTED: Final = (
    "subtotal_cents, discounts_cents, total_cents, ok_items, warnings, promos_asked, attribution_tokens,"
    " attribution_claims, valid_until, updated_at"
)
_BEGIN_ANEW: Final = f"""
WITH items AS (DELETE FROM cart_items WHERE cart_id = $1), groups AS (DELETE FROM cart_vendor_groups WHERE cart_id = $1)
UPDATE cart_records SET ({_QUOTED}) =
  (SELECT {_QUOTED} FROM jsonb_populate_recordset(NULL::cart_records, $2))
WHERE id = $1
"""
_FILL: Final = f"WITH items AS ({insert_of(CartItem, '$1')}) {insert_of(CartVendorGroup, '$2')}"
_CONVERT: Final = """
UPDATE cart_records SET status = 'converted', converted_at = $2, updated_at = $2, checkout_group_id = $3,
  payment_method = $4, shipping_address = $5, shipping_line = $6, rejected_vendors = $7
WHERE id = $1
"""


def _header(priced: Quote, asked: Sequence[AskedPromo], kept: Sequence[Kept]) -> dict[str, Any]:
    return {
        "subtotal_cents": priced.subtotal_cents,
        "discounts_cents": priced.discounts_cents,
        "total_cents": priced.total_cents,
        "ok_items": sum(line.status is LineStatus.OK for line in priced.lines),
        "warnings": _notices(priced.warnings),
        "promos_asked": [{"vendor_store_id": str(one.vendor_store_id), "code": one.code} for one in asked],
        "attribution_tokens": [one.token for one in kept],
        "attribution_claims": [attribution.plain(one.claims) for one in kept],
    }


def _item(place: int, line: Line) -> dict[str, Any]:
    product = line.product
    return {
        "id": new_id(),
        "position": place,
        "product_id": line.product_id,
        "vendor_store_id": product.vendor_store_id if product else None,
        "title": product.title if product else None,
        "category": product.category if product else None,
        "requested_qty": line.requested_qty,
        "quantity": line.quantity,
        "unit_price_cents": line.unit_price_cents,
        "moq": product.moq if product else None,
        "max_qty": product.max_qty if product else None,
        "applied_volume_discount": line.applied._asdict() if line.applied else None,
        "line_subtotal_cents": line.subtotal_cents,
        "line_total_cents": line.total_cents,
        "status": line.status,
        "warnings": _notices(line.warnings),
    }


def _group(place: int, group: Group) -> dict[str, Any]:
    promo = group.promo
    return {
        "vendor_store_id": group.vendor_store_id,
        "position": place,
        "status": group.status,
        "promo": promo._asdict() | {"id": str(promo.id)} if promo else None,
        "subtotal_cents": group.subtotal_cents,
        "discounts_cents": group.discounts_cents,
        "total_cents": group.total_cents,
        "warnings": _notices(group.warnings),
    }


def _notices(notices: Sequence[Notice]) -> list[dict[str, str]]:
    return [notice._asdict() for notice in notices]
