"""A vendor's subscription and billing history; and the webhook by which Stripe tells what became of them."""

from __future__ import annotations

from typing import Annotated, Any, Final

import orjson
import structlog
from fastapi import APIRouter, Depends, Request

from api import subscribing
from api.billing_services import Billing, StripeRoute
from api.dependencies import Now, Process, Tx, Vendor
from api.envelope import Envelope, ListEnvelope
from api.idempotency import HEADER, KeyGiven
from api.pagination import Paged, by_time
from models.billing import news, reads
from models.billing.reads import Subscription
from models.billing.rules import PAYING
from models.billing.stripe_objects import Event, NotAnObject, event_of
from models.errors import FieldError, ValidationFailed
from schemas.http.billing import BillingChargeOut, NewSubscription, SubscriptionOut, WebhookTaken

LIST: Final = "billing_charges"
ACTOR: Final = "webhook:stripe"
SIGNATURE: Final = "stripe-signature"
EVENT: Final = {"type": "object", "required": ["id", "type", "created", "data"], "properties": {}}
EVENT_BODY: Final[dict[str, Any]] = {  # FastAPI does not read it: the signature is over the raw bytes
    "requestBody": {"required": True, "content": {"application/json": {"schema": EVENT}}},
    "parameters": [
        {"name": "Stripe-Signature", "in": "header", "required": True, "schema": {"type": "string"}},
    ],
}

log = structlog.get_logger(__name__)
router = APIRouter(prefix="/api/v1/vendor", tags=["billing"], route_class=StripeRoute)
webhook_router = APIRouter(prefix="/webhooks", tags=["webhooks"])


@router.post("/subscription", status_code=201)
async def subscribe(
    body: NewSubscription,
    vendor: Vendor,
    _: KeyGiven,
    request: Request,
    process: Process,
    billing: Billing,
    tx: Tx,
    now: Now,
) -> Envelope[SubscriptionOut]:
    """Subscribe: the store may sell once Stripe says that it is paid for, and its licence is verified."""
    made = await subscribing.subscribe(
        process, billing, tx, vendor, body.payment_method_id, key=request.headers[HEADER], now=now
    )
    return Envelope(data=shown(made))


@router.get("/subscription")
async def subscription(vendor: Vendor, tx: Tx) -> Envelope[SubscriptionOut]:
    """The store's subscription; the last one, where it has ended."""
    return Envelope(data=shown(await reads.subscription(tx, vendor.store_id)))


@router.post("/subscription/cancel")
async def cancel(vendor: Vendor, _: KeyGiven, billing: Billing, tx: Tx, now: Now) -> Envelope[SubscriptionOut]:
    """End the subscription now: the store sells no more. Again: the same answer."""
    return Envelope(data=shown(await subscribing.cancel(billing, tx, vendor, now=now)))


@router.get("/billing/charges")
async def charges(vendor: Vendor, tx: Tx, page: Paged) -> ListEnvelope[BillingChargeOut]:
    """The store's invoices, and the days of advertising that come on them; newest first."""
    name = f"{LIST}:{vendor.store_id}"
    rows = await reads.history(tx, vendor.store_id, limit=page.limit + 1, after=page.after_time(name))
    found, cursor = page.cut(name, [BillingChargeOut.model_validate(row) for row in rows], by_time)
    return ListEnvelope.of(found, cursor)


async def _event(request: Request, billing: Billing, now: Now) -> Event:
    """The event, from whom it should come: that is checked before anything of it is read."""
    payload = await request.body()
    billing.secrets.check(payload, request.headers.get(SIGNATURE), now=now)
    try:
        return event_of(orjson.loads(payload))
    except (orjson.JSONDecodeError, NotAnObject) as exc:
        error = FieldError("body", "event_invalid", str(exc)[:200])
        raise ValidationFailed("this is not an event", errors=[error]) from None


@webhook_router.post("/stripe", openapi_extra=EVENT_BODY)
async def stripe_event(event: Annotated[Event, Depends(_event)], process: Process, now: Now) -> Envelope[WebhookTaken]:
    """News from Stripe. 200 once what follows from it is durable; what is known or concerns nobody is taken too."""
    async with process.transaction() as tx:
        outcome = await news.take(tx, event, actor=ACTOR, now=now)
    log.info("stripe_event", event_id=event.id, type=event.type, outcome=outcome)
    return Envelope(data=WebhookTaken(outcome=outcome))


def shown(found: Subscription) -> SubscriptionOut:
    return SubscriptionOut(
        id=found.id,
        store_id=found.store_id,
        status=found.status,
        active=found.status in PAYING,
        payment_method_id=found.stripe_payment_method_id,
        current_period_end=found.current_period_end,
        canceled_at=found.canceled_at,
        stripe_subscription_id=found.stripe_subscription_id,
        stripe_customer_id=found.stripe_customer_id,
        created_at=found.created_at,
    )
