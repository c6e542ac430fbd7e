"""Dead letters: look, replay, discard."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Query

from api.dependencies import Admin, Now, Tx
from api.envelope import Envelope, ListEnvelope
from api.idempotency import IdempotentRoute
from api.pagination import Paged, by_time
from models import dead_letter_commands as commands
from models.dead_letter_commands import ReplayOutcome
from models.dead_letters import DeadLetter, DeadLetterStatus
from models.errors import Conflict, StateConflict
from schemas.http.common import Asked
from schemas.http.ops import DeadLetterOut, DeadLetterState, Discard

LIST: Final = "dead_letters"
LISTED_PAYLOAD_BYTES_MAX: Final = 4096

router = APIRouter(prefix="/api/admin/ops/dead-letters", tags=["operations"], route_class=IdempotentRoute)


@router.get("")
async def list_letters(
    admin: Admin,
    tx: Tx,
    page: Paged,
    status: DeadLetterState | None = None,
    source: Annotated[Asked | None, Query()] = None,
    topic: Annotated[Asked | None, Query()] = None,
    key: Annotated[Asked | None, Query()] = None,
) -> ListEnvelope[DeadLetterOut]:
    """Newest first."""
    letters = await commands.list_letters(
        tx,
        status=DeadLetterStatus(status) if status else None,
        source=source,
        topic=topic,
        key=key,
        limit=page.limit + 1,
        after=page.after_time(LIST),
    )
    shown, cursor = page.cut(LIST, letters, by_time)
    return ListEnvelope.of([_out(letter) for letter in shown], cursor)


@router.get("/{letter_id}")
async def show_letter(letter_id: UUID, admin: Admin, tx: Tx) -> Envelope[DeadLetterOut]:
    """One letter with its payload."""
    return Envelope(data=_out(await commands.show(tx, letter_id), full=True))


@router.post("/{letter_id}/replay")
async def replay_letter(letter_id: UUID, admin: Admin, tx: Tx, now: Now) -> Envelope[DeadLetterOut]:
    """Send it on its way again; what waits behind it follows in order. One that fails again parks again."""
    (done,) = await commands.replay(tx, [letter_id], actor=admin.actor, now=now)
    letter = await commands.show(tx, letter_id)
    if done.outcome is ReplayOutcome.DISCARDED:
        raise StateConflict(current=letter.status, action="replay")
    if done.outcome in (ReplayOutcome.UNDER_WAY, ReplayOutcome.NO_TOPIC):
        raise Conflict(f"the letter cannot be replayed: {done.outcome.value}")
    return Envelope(data=_out(letter, full=True))


@router.post("/{letter_id}/discard")
async def discard_letter(letter_id: UUID, body: Discard, admin: Admin, tx: Tx, now: Now) -> Envelope[DeadLetterOut]:
    """Give it up for good; what waits behind it goes on."""
    letter = await commands.discard(tx, letter_id, reason=body.reason, actor=admin.actor, now=now)
    return Envelope(data=_out(letter, full=True))


def _out(letter: DeadLetter, *, full: bool = False) -> DeadLetterOut:
    small = len(letter.payload) <= LISTED_PAYLOAD_BYTES_MAX
    columns = {name: getattr(letter, name) for name in DeadLetterOut.model_fields if name not in ("payload", "decoded")}
    payload = letter.payload.hex() if full or small else None
    decoded = commands.decoded(letter) if full else None
    return DeadLetterOut(**columns, payload=payload, decoded=_as_json(decoded))


def _as_json(value: Any) -> Any:
    """A decoded record as JSON has it: bytes in hexadecimal, ids and times as text."""
    match value:
        case dict():
            return {name: _as_json(item) for name, item in value.items()}
        case list():
            return [_as_json(item) for item in value]
        case bytes():
            return value.hex()
        case UUID() | date():
            return str(value)
    return value
