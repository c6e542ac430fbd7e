"""Operations: the state of the streams, and the test clock."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from api.dependencies import Admin, Now, Process, Tx
from api.envelope import Envelope
from api.idempotency import IdempotentRoute
from api.live_counters import live_counters
from api.services import wall_clock
from models import overview
from models.ads import reads as ads
from models.ads import reconciling
from models.clock import set_clock
from models.errors import NotFound
from schemas.http.ads import LiveOut
from schemas.http.common import Day
from schemas.http.ops import ClockOut, Overview, ReconciliationOut, SetClock

router = APIRouter(prefix="/api/admin/ops", tags=["operations"], route_class=IdempotentRoute)
test_router = APIRouter(prefix="/api/admin/ops", tags=["operations"], route_class=IdempotentRoute)


@router.get("/overview")
async def look(admin: Admin, tx: Tx, now: Now) -> Envelope[Overview]:
    """Relay, dead letters, gate and day closures in one look."""
    return Envelope(data=Overview.model_validate(await overview.read(tx, now=now, wall=wall_clock())))


@router.get("/reconciliation")
async def reconciliation(day: Annotated[Day, Query()], admin: Admin, tx: Tx) -> Envelope[ReconciliationOut]:
    """The last report of a UTC day, as `packstream reconcile` kept it; not found while there is none."""
    report = await reconciling.report(tx, day)
    if report is None:
        raise NotFound("this day was not reconciled yet")
    return Envelope(data=ReconciliationOut.model_validate(report))


@router.get("/ads/{ad_id}/live")
async def live(ad_id: UUID, admin: Admin, tx: Tx, now: Now, process: Process) -> Envelope[LiveOut]:
    """Any ad's counters of the UTC day, as its vendor sees them."""
    return Envelope(data=await live_counters(process, await ads.any_ad(tx, ad_id), now))


@test_router.post("/clock")
async def move_clock(body: SetClock, admin: Admin, services: Process) -> Envelope[ClockOut]:
    """Move the logical clock that every process follows; it only moves forward."""
    async with services.transaction() as tx:
        await set_clock(tx, body.now, wall=wall_clock())
    async with services.transaction() as tx:
        await services.clock.refresh(tx)
    return Envelope(data=ClockOut(now=services.clock.now()))
