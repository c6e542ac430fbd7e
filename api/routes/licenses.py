"""Licences: a store submits them, an admin decides."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from fastapi import APIRouter, Response

from api.dependencies import Admin, Manager, Now, StoreMember, Tx
from api.envelope import Envelope, ListEnvelope
from api.idempotency import IdempotentRoute
from api.pagination import Paged, by_time
from models.licensing import reads, writes
from models.licensing.rules import Decision, LicenseStatus
from schemas.http.licensing import LicenseDecision, LicenseOut, NewLicense
from schemas.http.licensing import Status as StatusFilter

LIST: Final = "licenses"
QUEUE: Final = "license_queue"

router = APIRouter(prefix="/api/v1/licenses", tags=["licences"], route_class=IdempotentRoute)
admin_router = APIRouter(prefix="/api/admin/licenses", tags=["licences"], route_class=IdempotentRoute)


@router.post("", status_code=201)
async def submit(body: NewLicense, manager: Manager, tx: Tx, now: Now) -> Envelope[LicenseOut]:
    """Submit a licence; its document is uploaded media of kind `license`."""
    made = await writes.submit(tx, body, store_id=manager.store_id, actor=manager.actor, now=now)
    return Envelope(data=LicenseOut.model_validate(made))


@router.get("")
async def list_licenses(member: StoreMember, tx: Tx, page: Paged) -> ListEnvelope[LicenseOut]:
    """The store's licences, newest first."""
    name = f"{LIST}:{member.store_id}"
    rows = await reads.of_store(tx, member.store_id, limit=page.limit + 1, after=page.after_time(name))
    shown, cursor = page.cut(name, [LicenseOut.model_validate(row) for row in rows], by_time)
    return ListEnvelope.of(shown, cursor)


@router.delete("/{license_id}", status_code=204)
async def delete(license_id: UUID, manager: Manager, tx: Tx, now: Now) -> Response:
    """Delete an expired licence; its document stays, free to be deleted."""
    await writes.delete(tx, license_id, store_id=manager.store_id, actor=manager.actor, now=now)
    return Response(status_code=204)


@admin_router.get("")
async def queue(admin: Admin, tx: Tx, page: Paged, status: StatusFilter | None = None) -> ListEnvelope[LicenseOut]:
    """All stores' licences, oldest first."""
    name = f"{QUEUE}:{status}"
    wanted = None if status is None else LicenseStatus(status)
    rows = await reads.queue(tx, status=wanted, limit=page.limit + 1, after=page.after_time(name))
    shown, cursor = page.cut(name, [LicenseOut.model_validate(row) for row in rows], by_time)
    return ListEnvelope.of(shown, cursor)


@admin_router.post("/{license_id}/decision")
async def decide(license_id: UUID, body: LicenseDecision, admin: Admin, tx: Tx, now: Now) -> Envelope[LicenseOut]:
    """Approve or, with a reason, reject a pending licence."""
    found = await writes.decide(
        tx, license_id, Decision(body.decision), reason=body.reason or None, actor=admin.actor, now=now
    )
    return Envelope(data=LicenseOut.model_validate(found))
