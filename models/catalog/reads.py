"""Queries on products, stock and promos. What a buyer sees of other stores is decided here, by LISTED and by the
vendors who may sell to the buyer (`stores.reads.selling_to`); quotes and ads ask the same two.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID

import asyncpg
from sqlalchemy import ARRAY, ColumnElement, Select, Uuid, any_, bindparam, func, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from models.catalog.rules import DiscountType, PromoType, Sort, VolumeDiscount, fold_code, in_force
from models.catalog.tables import Inventory, Product, Promo
from models.database import Driver, send
from models.errors import NotFound
from models.stores import reads as stores
from models.tenancy import as_service

LISTED: Final = Product.active & Product.deleted_at.is_(None)  #: a product's own part in being seen
AVAILABLE: Final = Inventory.on_hand - Inventory.reserved
CONFIG: Final = "english"  #: as in the generated column

ByTime = tuple[datetime, UUID]
ByPrice = tuple[int, UUID]
Query = TypeVar("Query", bound="Select[*tuple[Any, ...]]")


class ProductView(NamedTuple):
    """A product with what of it can be ordered."""

    product: Product
    available_qty: int


@dataclass(frozen=True, slots=True)
class StockView:
    """What is in stock of a product."""

    product: Product
    on_hand: int
    reserved: int
    updated_at: datetime

    @property
    def product_id(self) -> UUID:
        return self.product.id

    @property
    def available(self) -> int:
        """What can be ordered."""
        return self.on_hand - self.reserved


class ShopFilter(NamedTuple):
    """What a buyer looks for; None: anything. `q` is for websearch_to_tsquery."""

    q: str | None = None
    category: str | None = None
    vendor_store_id: UUID | None = None
    min_price_cents: int | None = None
    max_price_cents: int | None = None

    def conditions(self) -> Iterable[ColumnElement[bool]]:
        if self.q is not None:
            yield Product.search.bool_op("@@")(func.websearch_to_tsquery(text(f"'{CONFIG}'"), self.q))
        if self.category is not None:
            yield Product.category == self.category
        if self.vendor_store_id is not None:
            yield Product.store_id == self.vendor_store_id
        if self.min_price_cents is not None:
            yield Product.price_cents >= self.min_price_cents
        if self.max_price_cents is not None:
            yield Product.price_cents <= self.max_price_cents


# -- a vendor's own ---------------------------------------------------------------------------------------------------


async def product_of(tx: AsyncSession, product_id: UUID, *, store_id: UUID, lock: bool = False) -> Product:
    """The store's product, locked until the transaction ends if asked for; NotFound for a deleted or foreign one."""
    query = select(Product).where(Product.id == product_id, Product.store_id == store_id, Product.deleted_at.is_(None))
    found = await tx.scalar(query.with_for_update() if lock else query)
    if found is None:
        raise NotFound("there is no such product")
    return found


async def view_of(tx: AsyncSession, product_id: UUID, *, store_id: UUID) -> ProductView:
    """The store's product, as `product_of`."""
    product = await product_of(tx, product_id, store_id=store_id)
    available = await tx.scalar(select(AVAILABLE).where(Inventory.product_id == product_id))
    return ProductView(product, available or 0)


async def products_of(tx: AsyncSession, store_id: UUID, *, limit: int, after: ByTime | None) -> list[ProductView]:
    """The store's products, active or not, newest first, from behind `after` on."""
    query = _with_stock().where(Product.store_id == store_id, Product.deleted_at.is_(None))
    return await _views(tx, _page(query, Sort.NEWEST, after).limit(limit))


async def stock_of(tx: AsyncSession, store_id: UUID, *, limit: int, after: ByTime | None) -> list[StockView]:
    """The stock of the store's products, newest product first, from behind `after` on."""
    query = select(Product, Inventory.on_hand, Inventory.reserved, Inventory.updated_at)
    query = query.join(Inventory, Inventory.product_id == Product.id)
    query = query.where(Product.store_id == store_id, Product.deleted_at.is_(None))
    rows = await tx.execute(_page(query, Sort.NEWEST, after).limit(limit))
    return [StockView(*row) for row in rows]


async def promo_of(tx: AsyncSession, promo_id: UUID, *, store_id: UUID) -> Promo:
    """The store's promo, locked until the transaction ends; NotFound for a deleted or foreign one."""
    query = select(Promo).where(Promo.id == promo_id, Promo.store_id == store_id, Promo.deleted_at.is_(None))
    found = await tx.scalar(query.with_for_update())
    if found is None:
        raise NotFound("there is no such promo")
    return found


async def promos_of(tx: AsyncSession, store_id: UUID, *, limit: int, after: ByTime | None) -> Sequence[Promo]:
    """The store's promos, newest first, from behind `after` on."""
    query = select(Promo).where(Promo.store_id == store_id, Promo.deleted_at.is_(None))
    if after is not None:
        query = query.where(tuple_(Promo.created_at, Promo.id) < after)
    return (await tx.scalars(query.order_by(Promo.created_at.desc(), Promo.id.desc()).limit(limit))).all()


# -- the shop ---------------------------------------------------------------------------------------------------------


async def browse(
    tx: AsyncSession,
    wanted: ShopFilter,
    *,
    buyer_store_id: UUID,
    sort: Sort,
    limit: int,
    after: ByTime | ByPrice | None = None,
) -> list[ProductView]:
    """What the buyer's store sees of the shop. The rest of the transaction is for no store.

    (Under a policy, Postgres would look at each row's store before it may ask the text index.)
    """
    await as_service(tx)
    return await _views(tx, shop_query(wanted, buyer_store_id=buyer_store_id, sort=sort, limit=limit, after=after))


async def shown(tx: AsyncSession, product_id: UUID, *, buyer_store_id: UUID) -> ProductView:
    """A product of the shop; NotFound unless `browse` would have it. The rest of the transaction is for no store."""
    await as_service(tx)
    found = await _views(tx, _shop(buyer_store_id).where(Product.id == product_id))
    if not found:
        raise NotFound("there is no such product")
    return found[0]


def shop_query(
    wanted: ShopFilter, *, buyer_store_id: UUID, sort: Sort, limit: int, after: ByTime | ByPrice | None = None
) -> Select[*tuple[Any, ...]]:
    """The statement of `browse`."""
    return _page(_shop(buyer_store_id).where(*wanted.conditions()), sort, after).limit(limit)


def _shop(buyer_store_id: UUID) -> Select[*tuple[Any, ...]]:
    return _with_stock().where(LISTED, Product.store_id == any_(stores.selling_to(buyer_store_id)))


def _with_stock() -> Select[*tuple[Any, ...]]:
    return select(Product, AVAILABLE).join(Inventory, Inventory.product_id == Product.id)


def _page(query: Query, sort: Sort, after: ByTime | ByPrice | None) -> Query:
    """Ties are broken by id in the column's own direction, so that one index serves both."""
    column: ColumnElement[Any] = Product.created_at if sort is Sort.NEWEST else Product.price_cents  # type: ignore[assignment]
    key = tuple_(column, Product.id)
    if sort is Sort.PRICE_ASC:
        query = query if after is None else query.where(key > after)
        return query.order_by(column, Product.id)
    query = query if after is None else query.where(key < after)
    return query.order_by(column.desc(), Product.id.desc())


async def _views(tx: AsyncSession, query: Select[*tuple[Any, ...]]) -> list[ProductView]:
    return [ProductView(product, available) for product, available in await tx.execute(query)]


async def listed(tx: AsyncSession, product_ids: Collection[UUID]) -> set[UUID]:
    """Those of the products that are on sale, as far as it is up to them. For who may read all stores' products."""
    if not product_ids:
        return set()
    return set(await tx.scalars(select(Product.id).where(Product.id.in_(product_ids), LISTED)))


# -- for carts and checkout -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class QuoteProduct:
    """A product of any store, whether the buyer may see it or not; what forbids a sale is said apart."""

    id: UUID
    store_id: UUID
    title: str
    category: str
    unit: str
    price_cents: int
    moq: int
    max_qty: int | None
    volume_discounts: tuple[VolumeDiscount, ...]  #: by min_qty
    active: bool
    deleted: bool
    vendor_eligible: bool  #: verified licence and active subscription
    in_state: bool  #: the vendor is in the buyer's state
    available_qty: int

    @property
    def offered(self) -> bool:
        """On sale to this buyer, as far as it is not up to the vendor's licence and subscription."""
        return self.active and not self.deleted and self.in_state


class QuotePromo(NamedTuple):
    """A promo that is in force."""

    id: UUID
    code: str
    type: PromoType
    value: int


_FOR_QUOTE: Final = f"""
SELECT id, store_id, title, category, unit, price_cents, moq, max_qty, volume_discounts, active, deleted,
  vendor_may_sell, vendor_state, available_qty, {stores.state_of("$2")} AS buyer_state
FROM products_for_quote($1)
"""
_PROMOS: Final = "SELECT store_id, code_folded, id, code, type, value, starts_at, ends_at FROM promos_by_code($1, $2)"
_AVAILABLE: Final = text("SELECT * FROM available_qty(:product_ids)").bindparams(
    bindparam("product_ids", type_=ARRAY(Uuid()))
)


async def for_quote(
    tx: AsyncSession | Driver, product_ids: Collection[UUID], *, buyer_store_id: UUID
) -> Mapping[UUID, QuoteProduct]:
    """Those of the products that exist (deleted ones too), of whatever store, in one query."""
    rows = await send(tx, _FOR_QUOTE, list(product_ids), buyer_store_id)
    return {row["id"]: _quote_product(row) for row in rows}


def _quote_product(row: asyncpg.Record) -> QuoteProduct:
    return QuoteProduct(
        id=row["id"],
        store_id=row["store_id"],
        title=row["title"],
        category=row["category"],
        unit=row["unit"],
        price_cents=row["price_cents"],
        moq=row["moq"],
        max_qty=row["max_qty"],
        volume_discounts=tiers_of(row["volume_discounts"]),
        active=row["active"],
        deleted=row["deleted"],
        vendor_eligible=row["vendor_may_sell"],
        in_state=row["vendor_state"] == row["buyer_state"],
        available_qty=row["available_qty"],
    )


def tiers_of(kept: Iterable[Mapping[str, Any]]) -> tuple[VolumeDiscount, ...]:
    """The tiers as the column has them."""
    return tuple(VolumeDiscount(one["min_qty"], DiscountType(one["type"]), one["value"]) for one in kept)


async def promos_for(
    tx: AsyncSession | Driver, wanted: Iterable[tuple[UUID, str]], *, now: datetime
) -> Mapping[tuple[UUID, str], QuotePromo]:
    """Those of the promos (vendor, code as it was typed) that are in force, under what was asked for; one query."""
    asked = list(wanted)
    if not asked:
        return {}
    rows = await send(tx, _PROMOS, [store for store, _ in asked], [fold_code(code) for _, code in asked])
    found = {
        (row["store_id"], row["code_folded"]): QuotePromo(row["id"], row["code"], PromoType(row["type"]), row["value"])
        for row in rows
        if in_force(row["starts_at"], row["ends_at"], now)
    }
    folded = {(store, code): (store, fold_code(code)) for store, code in asked}
    return {key: found[fold] for key, fold in folded.items() if fold in found}


async def available(tx: AsyncSession, product_ids: Collection[UUID]) -> Mapping[UUID, int]:
    """What can be ordered of each of the products that exist, of whatever store."""
    rows = await tx.execute(_AVAILABLE, {"product_ids": list(product_ids)})
    return {row.product_id: row.available for row in rows}
