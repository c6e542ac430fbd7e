"""Commands on licences: submit, decide, warn, expire, delete. Each keeps the store's standing in step."""

from __future__ import annotations

from datetime import date, datetime
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from models import audit, outbox
from models.database import new_id
from models.licensing import reads, rules
from models.licensing.rules import Decision, LicenseStatus
from models.licensing.tables import License
from models.media import writes as media
from models.media.rules import EntityType, Slot
from models.notifications import writes as notifications
from models.notifications.rules import NotificationKind
from models.stores import reads as stores_reads
from models.stores import writes as stores
from schemas.http.licensing import NewLicense
from schemas.records import LicenseExpiring, LicenseStatusChanged


async def submit(tx: AsyncSession, wanted: NewLicense, *, store_id: UUID, actor: str, now: datetime) -> License:
    """A licence that waits for a decision, with its document attached.

    Raises what attaching raises: NotFound, ValidationFailed (media of another kind), StateConflict (not uploaded yet).
    """
    await stores_reads.store(tx, store_id, lock=True)  # before its media, as in delete_due: else they could deadlock
    found = License(id=new_id(), store_id=store_id, status=LicenseStatus.PENDING, created_at=now, **wanted.model_dump())
    await media.attach(
        tx,
        media_id=wanted.media_id,
        store_id=store_id,
        entity_type=EntityType.LICENSE,
        entity_id=found.id,
        slot=Slot.DOCUMENT,
        now=now,
    )
    tx.add(found)
    await _changed(tx, found, before=None, reason=None, actor=actor, now=now)
    return found


async def decide(
    tx: AsyncSession, license_id: UUID, decision: Decision, *, reason: str | None, actor: str, now: datetime
) -> License:
    """An admin's decision, once. Raises NotFound, StateConflict, ValidationFailed."""
    found = await reads.license_of(tx, license_id, store_id=None, lock=True)
    before = LicenseStatus(found.status)
    found.status = rules.decide(before, decision, reason=reason, expires_on=found.expires_on, today=now.date())
    found.decided_at, found.decision_reason = now, reason
    await _changed(tx, found, before=before, reason=reason, actor=actor, now=now)
    await _notify(
        tx,
        found,
        NotificationKind.LICENSE_DECIDED,
        {"decision": "approved" if found.status == LicenseStatus.VERIFIED else "rejected", "reason": reason or ""},
        actor=actor,
        now=now,
    )
    return found


async def delete(tx: AsyncSession, license_id: UUID, *, store_id: UUID, actor: str, now: datetime) -> None:
    """Delete the store's expired licence; its document stays, free to be deleted. NotFound, LicenseNotExpired."""
    found = await reads.license_of(tx, license_id, store_id=store_id, lock=True)
    rules.check_deletable(LicenseStatus(found.status))
    await _remove(tx, found, action="license.deleted", actor=actor, now=now)


async def warn_due(tx: AsyncSession, *, limit: int, actor: str, now: datetime) -> int:
    """Announce the end of verified licences within WARN_BEFORE, once each; how many. Others' locks are passed over."""
    query = select(License).where(
        License.status == LicenseStatus.VERIFIED,
        License.warned_at.is_(None),
        License.expires_on <= now.date() + rules.WARN_BEFORE,
        License.expires_on >= now.date(),
    )
    due = await _take(tx, query, limit)
    for found in due:
        found.warned_at = now
        await _announce(tx, found, actor=actor, now=now)
    return len(due)


async def expire_due(tx: AsyncSession, *, limit: int, actor: str, now: datetime) -> int:
    """Expire verified and pending licences whose last day is over; how many."""
    query = select(License).where(
        License.status.in_([LicenseStatus.VERIFIED, LicenseStatus.PENDING]), License.expires_on < now.date()
    )
    due = await _take(tx, query, limit)
    for found in due:
        before = LicenseStatus(found.status)
        found.status, found.expired_at = LicenseStatus.EXPIRED, now
        await _changed(tx, found, before=before, reason=None, actor=actor, now=now)
        await _notify(tx, found, NotificationKind.LICENSE_EXPIRED, {}, actor=actor, now=now)
    return len(due)


async def delete_due(tx: AsyncSession, *, limit: int, actor: str, now: datetime) -> int:
    """Delete licences for good that expired KEPT_AFTER ago, with documents that nothing else uses; how many."""
    last: date = now.date() - rules.KEPT_AFTER
    query = select(License).where(License.status == LicenseStatus.EXPIRED, License.expires_on < last)
    due = await _take(tx, query, limit)
    for found in due:
        media_id = found.media_id
        await _remove(tx, found, action="license.expunged", actor=actor, now=now)
        await media.discard_unused(tx, [media_id], actor=actor, now=now)
    return len(due)


async def _take(tx: AsyncSession, query: Select[License], limit: int) -> list[License]:
    """Due licences, locked with their stores; where others hold one of the two, the next turn has them.

    A change of standing locks the ad catalogue's version. Whoever has it must wait for no store: whoever has that may
    wait for the version.
    """
    locked = query.order_by(License.store_id, License.id).limit(limit).with_for_update(skip_locked=True)
    due = (await tx.scalars(locked)).all()
    free = await stores_reads.lock_free(tx, {found.store_id for found in due})
    return [found for found in due if found.store_id in free]


async def _remove(tx: AsyncSession, found: License, *, action: str, actor: str, now: datetime) -> None:
    await stores_reads.store(tx, found.store_id, lock=True)
    await media.detach_entity(tx, entity_type=EntityType.LICENSE, entity_id=found.id)
    await tx.delete(found)
    await tx.flush()
    _audit(tx, found, action, {"status": [found.status, None]}, actor, now)
    await _mirror(tx, found.store_id, actor=actor, now=now)


async def _changed(
    tx: AsyncSession, found: License, *, before: LicenseStatus | None, reason: str | None, actor: str, now: datetime
) -> None:
    """A licence has another status: audit, event, and the store's standing.

    The store's row is locked first: two decisions see each other, and all who change a store lock in this order.
    """
    await stores_reads.store(tx, found.store_id, lock=True)
    await tx.flush()
    _audit(
        tx, found, f"license.{found.status}", {"status": [before, found.status], "reason": [None, reason]}, actor, now
    )
    await outbox.append(
        tx,
        LicenseStatusChanged(
            event_id=new_id(),
            occurred_at=now,
            actor=actor,
            store_id=found.store_id,
            license_id=found.id,
            before=before,
            after=found.status,
            reason=reason,
        ),
    )
    await _mirror(tx, found.store_id, actor=actor, now=now)


async def _mirror(tx: AsyncSession, store_id: UUID, *, actor: str, now: datetime) -> None:
    """The store's standing by all its licences; its row is locked."""
    standing = rules.standing(await reads.statuses(tx, store_id))
    await stores.set_kyc(tx, store_id, standing, actor=actor, now=now)


async def _announce(tx: AsyncSession, found: License, *, actor: str, now: datetime) -> None:
    event = LicenseExpiring(
        event_id=new_id(),
        occurred_at=now,
        actor=actor,
        store_id=found.store_id,
        license_id=found.id,
        expires_on=found.expires_on,
    )
    await outbox.append(tx, event)
    _audit(tx, found, "license.warned", {"expires_on": [None, found.expires_on.isoformat()]}, actor, now)
    values = {"expires_on": found.expires_on.isoformat()}
    await _notify(tx, found, NotificationKind.LICENSE_EXPIRING, values, actor=actor, now=now)


async def _notify(
    tx: AsyncSession, found: License, kind: NotificationKind, values: dict[str, str], *, actor: str, now: datetime
) -> None:
    await notifications.request(
        tx,
        store_id=found.store_id,
        kind=kind,
        subject_id=found.id,
        values={"number": found.number, "license_id": str(found.id), **values},
        actor=actor,
        now=now,
    )


def _audit(tx: AsyncSession, found: License, action: str, change: dict[str, object], actor: str, now: datetime) -> None:
    audit.record(
        tx,
        actor=actor,
        action=action,
        object_type="license",
        object_id=found.id,
        store_id=found.store_id,
        now=now,
        change=change,
    )
