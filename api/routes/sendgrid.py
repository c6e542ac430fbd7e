"""The webhook by which SendGrid tells what became of e-mails."""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from uuid import NAMESPACE_URL, UUID, uuid5

import structlog
from cryptography.exceptions import InvalidSignature as Mismatch
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.hashes import SHA256
from fastapi import APIRouter, Depends, Request, Response
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from api.dependencies import Process
from api.services import wall_clock
from models import inbox
from models.errors import FieldError, InvalidSignature, ValidationFailed
from models.notifications import deliveries
from models.notifications.rules import detail_of, sendgrid_news
from ops.settings import public_keys
from schemas.http.notifications import SendGridEvent, SendGridEvents

SIGNATURE: Final = "X-Twilio-Email-Event-Webhook-Signature"
TIMESTAMP: Final = "X-Twilio-Email-Event-Webhook-Timestamp"
CONSUMER: Final = "webhook:sendgrid"
EVENT: Final = {"type": "object", "required": ["event", "sg_event_id", "timestamp"], "properties": {}}
EVENTS_BODY: Final[dict[str, Any]] = {  # FastAPI does not read it: the signature is over the raw bytes
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"type": "array", "items": EVENT}}},
    },
    "parameters": [
        {"name": name, "in": "header", "required": True, "schema": {"type": "string"}}
        for name in (SIGNATURE, TIMESTAMP)
    ],
}

log = structlog.get_logger(__name__)
router = APIRouter(prefix="/webhooks", tags=["webhooks"])


async def _signed(request: Request, process: Process) -> list[SendGridEvent]:
    """The events, from whom they should come: that is checked before anything of them is read."""
    payload = await request.body()
    check_signature(
        process.settings.sendgrid_webhook_public_key,
        payload,
        signature=request.headers.get(SIGNATURE, ""),
        timestamp=request.headers.get(TIMESTAMP, ""),
    )
    try:
        return SendGridEvents.validate_json(payload)
    except ValidationError as exc:
        errors = [
            FieldError(".".join(map(str, entry["loc"]))[:200] or "body", entry["type"], entry["msg"])
            for entry in exc.errors(include_url=False, include_input=False, include_context=False)
        ]
        raise ValidationFailed("these are not SendGrid's events", errors=errors) from None


def check_signature(keys: str, payload: bytes, *, signature: str, timestamp: str) -> None:
    """InvalidSignature unless one of the public keys' owners signed timestamp and payload.

    However old: SendGrid repeats for a day what was not taken, and an event that comes again changes nothing.
    """
    try:
        given = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidSignature from None
    for key in public_keys(keys):
        try:
            key.verify(given, timestamp.encode() + payload, ECDSA(SHA256()))
        except Mismatch:
            continue
        return
    raise InvalidSignature


@router.post("/sendgrid", status_code=204, response_class=Response, openapi_extra=EVENTS_BODY)
async def email_events(events: Annotated[list[SendGridEvent], Depends(_signed)], process: Process) -> Response:
    """News of e-mails. 204 once what follows from them is durable; what is known or means nothing is taken too."""
    async with process.transaction() as tx:
        outcomes = [await _hear(tx, event) for event in events]
    log.info("sendgrid_events", **Counter(outcomes))
    return Response(status_code=204)


async def _hear(tx: AsyncSession, event: SendGridEvent) -> str:
    """What came of one event."""
    news, delivery_id = sendgrid_news(event.event, event.type), _delivery_of(event)
    if news is None or delivery_id is None:
        return "ignored"
    if not await inbox.first_time(tx, CONSUMER, uuid5(NAMESPACE_URL, event.sg_event_id), wall=wall_clock()):
        return "known"
    said = event.reason or event.response or ""
    detail = detail_of(" ".join(filter(None, (event.event, event.status, said))))
    at = datetime.fromtimestamp(event.timestamp, UTC)
    return news if await deliveries.hear(tx, delivery_id, news, detail=detail, at=at) else "unknown_email"


def _delivery_of(event: SendGridEvent) -> UUID | None:
    """Our id of the e-mail: what we gave SendGrid with it, else what its Message-ID is made of."""
    for text in (event.delivery_id, (event.message_id or "").strip("<> ").partition("@")[0]):
        try:
            return UUID(text)
        except (TypeError, ValueError):
            continue
    return None
