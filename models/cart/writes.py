"""Commands on carts: quote, convert. None of them touches the stock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, cast
from uuid import UUID

from sqlalchemy import Insert, Table, Uuid, bindparam, insert, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm.attributes import set_committed_value

from models.cart import attribution, rules
from models.cart.attribution import Dropped, Kept, TokenRules
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
from models.database import new_id
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


async def quote(tx: AsyncSession, body: NewQuote, terms: QuoteTerms, *, buyer_store_id: UUID, now: datetime) -> Quoted:
    """Replace what the store's active cart says by a new quote; a store without one gets one.

    Quotes of a store come one after the other (each holds the cart's row), and each is whole. The number of statements
    does not depend on the number of items.
    """
    cart_id, created_at = await _hold(tx, buyer_store_id, now)
    wanted = [Wanted(item.product_id, item.quantity) for item in body.items]
    asked = [AskedPromo(promo.vendor_store_id, promo.code) for promo in body.promos]
    priced = await _price(tx, wanted, asked, buyer_store_id=buyer_store_id, now=now)
    kept, dropped = attribution.select(body.attribution_tokens, terms.tokens, buyer_store_id=buyer_store_id, now=now)
    await tx.execute(_EMPTY, {"cart_id": cart_id})
    header = _header(priced, asked, kept) | {"valid_until": now + timedelta(seconds=terms.ttl_s), "updated_at": now}
    await tx.execute(update(CartRecord).where(CartRecord.id == cart_id).values(**header))
    keys = {"cart_id": cart_id, "buyer_store_id": buyer_store_id}
    items = [keys | _item(place, line) for place, line in enumerate(priced.lines)]
    await tx.execute(_insert(CartItem), items)
    groups = [keys | _group(place, group) for place, group in enumerate(priced.groups)]
    if groups:
        await tx.execute(_insert(CartVendorGroup), groups)
    record = header | {"id": cart_id, "buyer_store_id": buyer_store_id, "created_at": created_at}
    return Quoted(_written(record, items, groups), dropped)


def _written(
    record: Mapping[str, Any], items: Iterable[Mapping[str, Any]], groups: Iterable[Mapping[str, Any]]
) -> CartRecord:
    """The rows as a cart with its lines and groups, as a query would give it; no part of the session."""
    cart = CartRecord(status=CartStatus.ACTIVE, currency=CURRENCY, **record)
    set_committed_value(cart, "items", [CartItem(**row) for row in items])
    set_committed_value(cart, "vendor_groups", [CartVendorGroup(**row) for row in groups])
    return cart


async def convert(
    tx: AsyncSession,
    cart: CartRecord,
    *,
    checkout_group_id: UUID,
    payment_method: str,
    shipping_address: dict[str, Any],
    shipping_line: dict[str, Any] | None,
    rejected_vendors: Sequence[dict[str, Any]] = (),
    now: datetime,
) -> None:
    """Confirm the cart for a checkout. The caller holds its row; CartNotActive unless its quote is in force.

    `rejected_vendors`, of whom nothing was ordered: {vendor_store_id, reason}.
    """
    rules.check_convertible(CartStatus(cart.status), valid_until=cart.valid_until, now=now)
    cart.status = CartStatus.CONVERTED
    cart.checkout_group_id = checkout_group_id
    cart.payment_method = payment_method
    cart.shipping_address = shipping_address
    cart.shipping_line = shipping_line
    cart.rejected_vendors = list(rejected_vendors)
    cart.converted_at = cart.updated_at = now
    await tx.flush()


async def _hold(tx: AsyncSession, buyer_store_id: UUID, now: datetime) -> tuple[UUID, datetime]:
    """The store's active cart and when it was made; it is locked until the transaction ends, and made if need be.

    In one statement, so that two first quotes cannot both make one, and a cart that is converted meanwhile is not
    taken for an active one.
    """
    empty = {"valid_until": now, "warnings": [], "promos_asked": [], "attribution_tokens": [], "attribution_claims": []}
    counts = dict.fromkeys(("subtotal_cents", "discounts_cents", "total_cents", "ok_items"), 0)
    statement = upsert(CartRecord).values(
        id=new_id(),
        buyer_store_id=buyer_store_id,
        status=CartStatus.ACTIVE,
        currency=CURRENCY,
        created_at=now,
        updated_at=now,
        **empty,
        **counts,
    )
    statement = statement.on_conflict_do_update(
        index_elements=[CartRecord.buyer_store_id],
        index_where=text("status = 'active'"),
        set_={"updated_at": now},
    )
    cart_id, created_at = (await tx.execute(statement.returning(CartRecord.id, CartRecord.created_at))).one()
    return cart_id, created_at


async def _price(
    tx: AsyncSession, wanted: Sequence[Wanted], asked: Sequence[AskedPromo], *, buyer_store_id: UUID, now: datetime
) -> Quote:
    """Today's prices, stock and promos applied to what is wanted."""
    found = await catalog.for_quote(tx, [one.product_id for one in wanted], buyer_store_id=buyer_store_id)
    promos = await catalog.promos_for(tx, asked, now=now)
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


_EMPTY: Final = text(
    "WITH items AS (DELETE FROM cart_items WHERE cart_id = :cart_id)"
    " DELETE FROM cart_vendor_groups WHERE cart_id = :cart_id"
).bindparams(bindparam("cart_id", type_=Uuid()))


def _insert(table: type[CartItem | CartVendorGroup]) -> Insert:
    """For many rows in one statement; into the table itself, without the mapper's look at each row."""
    return insert(cast(Table, table.__table__))


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
