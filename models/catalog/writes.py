"""Commands on products, stock and promos."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from models import audit, outbox
from models.catalog import reads, rules
from models.catalog.reads import StockView
from models.catalog.tables import Inventory, Product, Promo
from models.database import Driver, new_id, send
from models.errors import AlreadyExists
from models.media import reads as media_reads
from models.media import writes as media
from models.media.rules import EntityType, Slot
from schemas.http.catalog import ChangeProduct, NewProduct, NewPromo
from schemas.records import InventoryChanged, ProductChanged

GALLERY: Final = "gallery_media_ids"
COA: Final = "coa_media_id"
SLOTS: Final = {GALLERY: Slot.GALLERY, COA: Slot.COA}
UNIQUE_SKU: Final = "uq_products_store_id_sku"
UNIQUE_CODE: Final = "uq_promos_store_id_code_folded"

# -- products ---------------------------------------------------------------------------------------------------------


async def create(tx: AsyncSession, wanted: NewProduct, *, store_id: UUID, actor: str, now: datetime) -> Product:
    """A new product of the store, of which nothing is in stock.

    Raises ValidationFailed, AlreadyExists (the SKU), and what attaching media raises: NotFound, StateConflict.
    """
    fields = wanted.model_dump(exclude=set(SLOTS))
    product = Product(id=new_id(), store_id=store_id, deleted_at=None, created_at=now, updated_at=now)
    await _set_media(tx, product.id, store_id, wanted.model_dump(include=set(SLOTS)), now=now)
    await _keep(tx, product, _checked(product, fields))
    tx.add(Inventory(product_id=product.id, store_id=store_id, on_hand=0, reserved=0, updated_at=now))
    await tx.flush()
    await _record(tx, product, "product.created", {}, actor=actor, now=now)
    return product


async def change(
    tx: AsyncSession, product_id: UUID, wanted: ChangeProduct, *, store_id: UUID, actor: str, now: datetime
) -> Product:
    """Change the store's product as `wanted` says; what is so already changes nothing. Errors as those of `create`."""
    product = await reads.product_of(tx, product_id, store_id=store_id, lock=True)
    asked = wanted.changes()
    pictures = {name: asked.pop(name) for name in SLOTS if name in asked}
    fields = _checked(product, asked)
    diff: dict[str, list[Any]] = {}
    # First: whoever changes what ads are served must not wait for a store after that.
    diff |= await _set_media(tx, product_id, store_id, pictures, now=now)
    changed = {name: value for name, value in fields.items() if getattr(product, name) != value}
    diff |= {name: [getattr(product, name), value] for name, value in changed.items()}
    if diff:
        await _keep(tx, product, {**changed, "updated_at": now})
        await _record(tx, product, "product.changed", diff, actor=actor, now=now)
    return product


async def delete(tx: AsyncSession, product_id: UUID, *, store_id: UUID, actor: str, now: datetime) -> None:
    """Take the store's product out of the catalogue for good; its row stays for the orders that name it. NotFound."""
    product = await reads.product_of(tx, product_id, store_id=store_id, lock=True)
    await media.detach_entity(tx, entity_type=EntityType.PRODUCT, entity_id=product_id)
    product.deleted_at = product.updated_at = now
    await tx.flush()
    await _record(tx, product, "product.deleted", {"deleted_at": [None, now.isoformat()]}, actor=actor, now=now)


def _checked(product: Product, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields as the columns keep them; ValidationFailed unless the product's terms fit each other then."""
    kept = dict(fields)
    tiers = reads.tiers_of(fields.get("volume_discounts", product.volume_discounts))
    rules.check_terms(
        price_cents=fields.get("price_cents", product.price_cents),
        moq=fields.get("moq", product.moq),
        max_qty=fields.get("max_qty", product.max_qty),
        tiers=tiers,
    )
    if "volume_discounts" in fields:
        kept["volume_discounts"] = [tier._asdict() for tier in rules.in_order(tiers)]
    return kept


async def _keep(tx: AsyncSession, product: Product, fields: Mapping[str, Any]) -> None:
    """Write the product with these fields; AlreadyExists when the store has another with its SKU."""
    try:
        async with tx.begin_nested():
            for name, value in fields.items():
                setattr(product, name, value)
            tx.add(product)
    except IntegrityError as exc:
        if UNIQUE_SKU in str(exc.orig):
            raise AlreadyExists(f"another product has the SKU {fields['sku']}") from None
        raise


async def _set_media(
    tx: AsyncSession, product_id: UUID, store_id: UUID, wanted: Mapping[str, Any], *, now: datetime
) -> dict[str, list[Any]]:
    """Let the product have this gallery and certificate, as far as they are named; what changed."""
    diff: dict[str, list[Any]] = {}
    for field, value in wanted.items():
        before = await _media_ids(tx, product_id, SLOTS[field])
        after = [value] if isinstance(value, UUID) else list(value or ())
        if before == after:
            continue
        await media.replace(
            tx,
            media_ids=after,
            store_id=store_id,
            entity_type=EntityType.PRODUCT,
            entity_id=product_id,
            slot=SLOTS[field],
            now=now,
            field=field,
        )
        diff[field] = [[str(one) for one in before], [str(one) for one in after]]
    return diff


async def _media_ids(tx: AsyncSession, product_id: UUID, slot: Slot) -> list[UUID]:
    held = await media_reads.attachments(tx, entity_type=EntityType.PRODUCT, entity_ids=[product_id], slot=slot)
    return [one.id for one in held.get(product_id, ())]


async def _record(
    tx: AsyncSession, product: Product, action: str, change: dict[str, Any], *, actor: str, now: datetime
) -> None:
    _audit(tx, action, "product", product.id, product.store_id, change, actor=actor, now=now)
    event = ProductChanged(
        event_id=new_id(),
        occurred_at=now,
        actor=actor,
        product_id=product.id,
        store_id=product.store_id,
        sku=product.sku,
        title=product.title,
        category=product.category,
        unit=product.unit,
        price_cents=product.price_cents,
        moq=product.moq,
        max_qty=product.max_qty,
        active=product.active,
        deleted=product.deleted_at is not None,
    )
    await outbox.append(tx, event)


# -- stock ------------------------------------------------------------------------------------------------------------


async def set_on_hand(
    tx: AsyncSession, product_id: UUID, on_hand: int, *, store_id: UUID, actor: str, now: datetime
) -> StockView:
    """Say what is there of the store's product; what is so already changes nothing.

    Raises NotFound, and Conflict below what orders have reserved.
    """
    product = await reads.product_of(tx, product_id, store_id=store_id)
    stock = (await tx.scalars(select(Inventory).where(Inventory.product_id == product_id).with_for_update())).one()
    rules.check_on_hand(on_hand, stock.reserved)
    before = stock.on_hand
    if before != on_hand:
        stock.on_hand, stock.updated_at = on_hand, now
        await tx.flush()
        await _record_stock(tx, stock, before, actor=actor, now=now)
    return StockView(product, stock.on_hand, stock.reserved, stock.updated_at)


async def _record_stock(tx: AsyncSession, stock: Inventory, before: int, *, actor: str, now: datetime) -> None:
    diff = {"on_hand": [before, stock.on_hand]}
    _audit(tx, "inventory.set", "inventory", stock.product_id, stock.store_id, diff, actor=actor, now=now)
    event = InventoryChanged(
        event_id=new_id(),
        occurred_at=now,
        actor=actor,
        product_id=stock.product_id,
        store_id=stock.store_id,
        on_hand_before=before,
        on_hand=stock.on_hand,
        reserved=stock.reserved,
    )
    await outbox.append(tx, event)


_RESERVE, _RELEASE, _TAKE = (f"SELECT * FROM {move}_stock($1, $2)" for move in ("reserve", "release", "take"))


async def reserve(tx: AsyncSession | Driver, demand: Mapping[UUID, int]) -> set[UUID]:
    """Hold stock for an order, of whatever store's products, each quantity whole or not at all.

    Returns the products that have not enough. `demand` is above zero; rows are locked in primary-key order until the
    transaction ends.
    """
    return await _moved(tx, _RESERVE, demand)


async def release(tx: AsyncSession, demand: Mapping[UUID, int]) -> set[UUID]:
    """Give back what orders held. Returns the products of which less was held: nothing is given back of those."""
    return await _moved(tx, _RELEASE, demand)


async def take(tx: AsyncSession, demand: Mapping[UUID, int]) -> set[UUID]:
    """What orders held leaves the store. Returns the products of which less was held: nothing is taken of those."""
    return await _moved(tx, _TAKE, demand)


async def _moved(tx: AsyncSession | Driver, statement: str, demand: Mapping[UUID, int]) -> set[UUID]:
    if not demand:
        return set()
    return {short for (short,) in await send(tx, statement, list(demand), list(demand.values()))}


# -- promos -----------------------------------------------------------------------------------------------------------


async def create_promo(tx: AsyncSession, wanted: NewPromo, *, store_id: UUID, actor: str, now: datetime) -> Promo:
    """A new promo of the store. AlreadyExists when it has one with the code, in whatever case."""
    folded = rules.fold_code(wanted.code)
    promo = Promo(
        id=new_id(), store_id=store_id, code_folded=folded, deleted_at=None, created_at=now, **wanted.model_dump()
    )
    try:
        async with tx.begin_nested():
            tx.add(promo)
    except IntegrityError as exc:
        if UNIQUE_CODE in str(exc.orig):
            raise AlreadyExists(f"there is a promo {wanted.code} already") from None
        raise
    _audit(tx, "promo.created", "promo", promo.id, store_id, {}, actor=actor, now=now)
    return promo


async def delete_promo(tx: AsyncSession, promo_id: UUID, *, store_id: UUID, actor: str, now: datetime) -> None:
    """End the store's promo; carts that are quoted from now on do not have it. NotFound."""
    promo = await reads.promo_of(tx, promo_id, store_id=store_id)
    promo.deleted_at = now
    diff = {"deleted_at": [None, now.isoformat()]}
    _audit(tx, "promo.deleted", "promo", promo_id, store_id, diff, actor=actor, now=now)


def _audit(
    tx: AsyncSession,
    action: str,
    object_type: str,
    object_id: UUID,
    store_id: UUID,
    change: dict[str, Any],
    *,
    actor: str,
    now: datetime,
) -> None:
    audit.record(
        tx,
        actor=actor,
        action=action,
        object_type=object_type,
        object_id=object_id,
        store_id=store_id,
        change=change,
        now=now,
    )
