"""Operations: the state of the streams, and the test clock."""

from __future__ import annotations

from fastapi import APIRouter

from api.dependencies import Admin, Now, Process, Tx
from api.envelope import Envelope
from api.services import wall_clock
from models import overview
from models.clock import set_clock
from schemas.http.ops import ClockOut, Overview, SetClock

router = APIRouter(prefix="/api/admin/ops", tags=["operations"])
test_router = APIRouter(prefix="/api/admin/ops", tags=["operations"])


@router.get("/overview")
async def look(admin: Admin, tx: Tx, now: Now) -> Envelope[Overview]:
    """Relay, dead letters, gate and day closures in one look."""
    return Envelope(data=Overview.model_validate(await overview.read(tx, now=now, wall=wall_clock())))


@test_router.post("/clock")
async def move_clock(body: SetClock, admin: Admin, services: Process) -> Envelope[ClockOut]:
    """Move the logical clock that every process follows; it only moves forward."""
    async with services.transaction() as tx:
        await set_clock(tx, body.now, wall=wall_clock())
    async with services.transaction() as tx:
        await services.clock.refresh(tx)
    return Envelope(data=ClockOut(now=services.clock.now()))
