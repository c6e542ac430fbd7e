"""Commands of the ads area: vendors' ads, and the events that the collector hands over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from models import audit, outbox
from models.ads import reads, rules
from models.ads.rules import AdStatus, TargetType
from models.ads.tables import Ad
from models.catalog import reads as products
from models.database import Driver, new_id
from models.errors import FieldError, ValidationFailed, VendorNotEligible
from models.media import writes as media
from models.media.rules import EntityType, Slot
from models.stores import reads as stores
from schemas.ad_columns import AdEvent, pack
from schemas.http.ads import ChangeAd, CreateAd, check_flight, check_target
from schemas.records import AdChanged
from schemas.registry import EVENTS

AGGREGATE: Final = EVENTS["ad_events"].aggregatetype


async def create(tx: AsyncSession, draft: CreateAd, *, store_id: UUID, actor: str, now: datetime) -> Ad:
    """A new ad of the store, as a draft. NotFound for a product or creative that the store does not have."""
    await _check_product(tx, draft.target_product_id, store_id)
    ad_id = new_id()
    if draft.creative_media_id is not None:
        await _set_creative(tx, ad_id, draft.creative_media_id, store_id=store_id, now=now)
    ad = Ad(id=ad_id, store_id=store_id, status=AdStatus.DRAFT, created_at=now, updated_at=now, **draft.model_dump())
    tx.add(ad)
    await _record(tx, ad, action="ad_created", actor=actor, now=now, change={})
    return ad


async def change(tx: AsyncSession, ad_id: UUID, wanted: ChangeAd, *, store_id: UUID, actor: str, now: datetime) -> Ad:
    """Change the store's ad as `wanted` says; what is so already changes nothing.

    Raises NotFound, StateConflict, ValidationFailed, and VendorNotEligible for an activation.
    """
    ad = await reads.ad_of(tx, ad_id, store_id=store_id, lock=True)
    before = AdStatus(ad.status)
    asked = wanted.changes()
    after = rules.next_status(before, AdStatus(asked.pop("status", before)))
    changed = {name: value for name, value in _with_target(asked).items() if getattr(ad, name) != value}
    rules.check_change(before, after, changed)
    if after is AdStatus.ACTIVE and before is not AdStatus.ACTIVE:
        await _check_eligible(tx, store_id)
    if after is not before:
        changed["status"] = after
    if changed:
        await _apply(tx, ad, changed, actor=actor, now=now)
    return ad


def _with_target(asked: dict[str, Any]) -> dict[str, Any]:
    """An ad that turns to its store leaves its product."""
    return {"target_product_id": None, **asked} if asked.get("target_type") == TargetType.STORE else asked


async def _apply(tx: AsyncSession, ad: Ad, changed: Mapping[str, Any], *, actor: str, now: datetime) -> None:
    diff = {name: [_plain(getattr(ad, name)), _plain(value)] for name, value in changed.items()}
    await _check_product(tx, changed.get("target_product_id"), ad.store_id)
    if "creative_media_id" in changed:  # before the ad refers to it: a flush would meet media that are not there
        await _set_creative(tx, ad.id, changed["creative_media_id"], store_id=ad.store_id, now=now)
    for name, value in changed.items():
        setattr(ad, name, value)
    _check_whole(ad)
    ad.updated_at = now
    await _record(tx, ad, action="ad_changed", actor=actor, now=now, change=diff)


def _check_whole(ad: Ad) -> None:
    """ValidationFailed when the fields, each right by itself, do not fit each other."""
    with _about("target_product_id"):
        check_target(ad.target_type, ad.target_product_id)
    with _about("ends_at"):
        check_flight(ad.starts_at, ad.ends_at)


@contextmanager
def _about(field: str) -> Iterator[None]:
    try:
        yield
    except ValueError as exc:
        raise ValidationFailed(errors=[FieldError(field, "value_error", str(exc))]) from exc


async def _check_product(tx: AsyncSession, product_id: UUID | None, store_id: UUID) -> None:
    """NotFound for a product that the store does not have."""
    if product_id is not None:
        await products.product_of(tx, product_id, store_id=store_id)


async def _set_creative(tx: AsyncSession, ad_id: UUID, media_id: UUID | None, *, store_id: UUID, now: datetime) -> None:
    """Attach the creative, or none. The ad's own column says the same; media that go take it away."""
    await media.replace(
        tx,
        media_ids=[] if media_id is None else [media_id],
        store_id=store_id,
        entity_type=EntityType.AD,
        entity_id=ad_id,
        slot=Slot.CREATIVE,
        now=now,
        field="creative_media_id",
    )


async def _check_eligible(tx: AsyncSession, store_id: UUID) -> None:
    standing = (await stores.standings(tx, [store_id])).get(store_id)
    if standing is None or not standing.may_sell:
        raise VendorNotEligible


async def _record(tx: AsyncSession, ad: Ad, *, action: str, actor: str, now: datetime, change: dict[str, Any]) -> None:
    """The change's row, audit entry and event, in one transaction."""
    await tx.flush()
    audit.record(
        tx, actor=actor, action=action, object_type="ad", object_id=ad.id, now=now, store_id=ad.store_id, change=change
    )
    await outbox.append(tx, _changed(ad, actor=actor, now=now))


def _changed(ad: Ad, *, actor: str, now: datetime) -> AdChanged:
    return AdChanged(
        event_id=new_id(),
        occurred_at=now,
        actor=actor,
        ad_id=ad.id,
        store_id=ad.store_id,
        status=ad.status,
        placement=ad.placement,
        target_type=ad.target_type,
        target_id=ad.target_product_id or ad.store_id,
        bid_cpm_cents=ad.bid_cpm_cents,
        daily_budget_cents=ad.daily_budget_cents,
        starts_at=ad.starts_at,
        ends_at=ad.ends_at,
    )


def _plain(value: object) -> object:
    """The value as JSON has it."""
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value


async def record_flush(
    driver: Driver, events: Mapping[int, Sequence[AdEvent]], *, skew_s: int, actor: str, now: datetime
) -> list[AdEvent]:
    """`record_events` in a transaction of its own: in one round trip where no event is refused, as nearly always.

    A busy event loop comes back to a flush only after everyone else, so it is the round trips that requests wait for.
    """
    shards = sorted(events)
    batches = [pack(events[shard], event_id=new_id(), shard=shard, occurred_at=now, actor=actor) for shard in shards]
    recorded = await driver.fetchval(
        _APPEND,
        [outbox.lock_key(AGGREGATE, str(shard)) for shard in shards],
        shards,
        [min(event.exp_s for event in events[shard]) + skew_s for shard in shards],
        *outbox.columns_of(batches),
    )
    if recorded:
        return []
    async with driver.transaction():
        return await record_events(driver, events, skew_s=skew_s, actor=actor, now=now)


async def record_events(
    driver: Driver, events: Mapping[int, Sequence[AdEvent]], *, skew_s: int, actor: str, now: datetime
) -> list[AdEvent]:
    """Publish one record for each shard's events, and return the events refused: a tick has passed their `exp + skew`.

    The shards' locks are taken (shared, by number, as whoever takes several does) before the ticks are read: the tick
    that this transaction sees is the last one before its records.
    """
    shards = sorted(events)
    await outbox.lock_aggregates(driver, AGGREGATE, list(map(str, shards)), shared=True)
    ticks = await reads.ticked_until(driver, shards)
    refused: list[AdEvent] = []
    batches = []
    for shard in shards:
        ticked = ticks.get(shard)
        limit_s = 0 if ticked is None else int(ticked.timestamp()) - skew_s
        taken = [event for event in events[shard] if event.exp_s > limit_s]
        refused += [event for event in events[shard] if event.exp_s <= limit_s]
        if taken:
            batches.append(pack(taken, event_id=new_id(), shard=shard, occurred_at=now, actor=actor))
    await outbox.append_locked(driver, batches)
    return refused


_APPEND: Final = f"SELECT append_ad_batches({', '.join(f'${number}' for number in range(1, 12))})"  # migration 0013
