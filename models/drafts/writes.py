"""Commands on drafts: make, read (claim, put off, finish), publish.

A draft is read once its certificate was processed. It is claimed in a transaction, read outside any, and finished in
another; a worker that dies leaves it to the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, cast
from uuid import UUID

from sqlalchemy import CursorResult, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from models.catalog import reads as catalog_reads
from models.catalog import writes as catalog
from models.catalog.reads import ProductView
from models.database import new_id
from models.drafts import reads, rules
from models.drafts.rules import DraftFailure, DraftStatus, Reading
from models.drafts.tables import ProductDraft
from models.media import reads as media
from models.media.rules import SLOTS, EntityType, MediaKind, MediaStatus, Slot, check_kind, check_readable
from schemas.http.catalog import NewProduct

ATTEMPTS_MAX: Final = 4  #: after so many that ended without a word, it is given up
FIELD: Final = "coa_media_id"


@dataclass(frozen=True, slots=True)
class Claimed:
    """A draft that is to be read now, by the holder of `claim` alone. `store_id` is whose it is."""

    id: UUID
    store_id: UUID
    coa_media_id: UUID | None
    claim: UUID
    attempts: int

    @property
    def given_up(self) -> bool:
        """Nobody who had it before came back: it is not tried again."""
        return self.attempts > ATTEMPTS_MAX


async def create(tx: AsyncSession, media_id: UUID, *, store_id: UUID, now: datetime, wall: datetime) -> ProductDraft:
    """A draft that waits to be read.

    Raises NotFound (another store's media as well), ValidationFailed (media that are no certificate), StateConflict
    (nothing uploaded yet, or it is of no use).
    """
    certificate = await media.media_of(tx, media_id, store_id=store_id)
    check_kind(SLOTS[EntityType.PRODUCT, Slot.COA], MediaKind(certificate.kind), FIELD)
    check_readable(MediaStatus(certificate.status), certificate.failure, "read")
    draft = ProductDraft(
        id=new_id(),
        store_id=store_id,
        coa_media_id=media_id,
        status=DraftStatus.PROCESSING,
        fields={},
        confidence={},
        due_at=wall,
        attempts=0,
        created_at=now,
        updated_at=now,
    )
    tx.add(draft)
    await tx.flush()
    return draft


async def publish(
    tx: AsyncSession, draft_id: UUID, wanted: NewProduct, *, store_id: UUID, actor: str, now: datetime
) -> ProductView:
    """Make a product of the store's draft, once; its certificate goes with it unless another is named.

    Raises NotFound, StateConflict (not ready, or published before), and what making a product raises.
    """
    draft = await reads.draft_of(tx, draft_id, store_id=store_id)
    rules.check_publishable(DraftStatus(draft.status))
    if FIELD not in wanted.model_fields_set:
        wanted = wanted.model_copy(update={FIELD: draft.coa_media_id})
    product = await catalog.create(tx, wanted, store_id=store_id, actor=actor, now=now)
    await _publish_once(tx, draft_id, product_id=product.id, now=now)
    return await catalog_reads.view_of(tx, product.id, store_id=store_id)


async def _publish_once(tx: AsyncSession, draft_id: UUID, *, product_id: UUID, now: datetime) -> None:
    """After the media were locked, as whoever deletes them has it. StateConflict when another was faster."""
    ready = update(ProductDraft).where(ProductDraft.id == draft_id, ProductDraft.status == DraftStatus.READY)
    values = {"status": DraftStatus.PUBLISHED, "product_id": product_id, "updated_at": now}
    done = await tx.execute(ready.values(**values).execution_options(synchronize_session=False))
    if cast("CursorResult[None]", done).rowcount == 0:
        rules.check_publishable(DraftStatus.PUBLISHED)


# -- reading ----------------------------------------------------------------------------------------------------------


async def claim(tx: AsyncSession, *, limit: int, until: datetime, wall: datetime) -> list[Claimed]:
    """Claim drafts that are due, those that others are claiming left out."""
    due = select(ProductDraft).where(ProductDraft.status == DraftStatus.PROCESSING, ProductDraft.due_at <= wall)
    rows = await tx.scalars(due.order_by(ProductDraft.due_at).limit(limit).with_for_update(skip_locked=True))
    claimed = []
    for draft in rows.all():
        draft.claim, draft.due_at, draft.attempts = new_id(), until, draft.attempts + 1
        claimed.append(Claimed(draft.id, draft.store_id, draft.coa_media_id, draft.claim, draft.attempts))
    await tx.flush()
    return claimed


async def renew(tx: AsyncSession, claimed: Claimed, *, until: datetime) -> bool:
    """Hold on to the draft; False when it is not the caller's any more."""
    return await _change(tx, claimed, due_at=until)


async def put_off(tx: AsyncSession, claimed: Claimed, *, until: datetime) -> None:
    """Give the draft back, to be claimed from `until` on: something that it needs is not there yet."""
    await _change(tx, claimed, claim=None, due_at=until, attempts=ProductDraft.attempts - 1)


async def finish(tx: AsyncSession, claimed: Claimed, outcome: Reading | DraftFailure, *, now: datetime) -> bool:
    """Keep what was read, or why nothing was; False when the draft is not the caller's any more."""
    if isinstance(outcome, Reading):
        values = {"status": DraftStatus.READY, "fields": outcome.fields, "confidence": outcome.confidence}
    else:
        values = {"status": DraftStatus.FAILED, "failure": outcome}
    return await _change(tx, claimed, claim=None, updated_at=now, **values)


async def _change(tx: AsyncSession, claimed: Claimed, **values: object) -> bool:
    mine = update(ProductDraft).where(ProductDraft.id == claimed.id, ProductDraft.claim == claimed.claim)
    done = await tx.execute(mine.values(**values).execution_options(synchronize_session=False))
    return cast("CursorResult[None]", done).rowcount > 0
