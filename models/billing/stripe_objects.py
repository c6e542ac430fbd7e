"""What Stripe says, as values: subscriptions, invoices, usage, events. Pure; fields that nobody needs are left out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from models.billing.rules import InvoiceStatus, SubscriptionStatus

Fields = Mapping[str, Any]
Status = TypeVar("Status", SubscriptionStatus, InvoiceStatus)


class NotAnObject(ValueError):
    """Something that should be one of Stripe's objects is not."""


class SubscriptionState(NamedTuple):
    """A subscription. `store_id` and `request` are our own marks on it (metadata)."""

    stripe_id: str
    customer_id: str
    status: SubscriptionStatus
    store_id: UUID | None
    request: str | None
    payment_method_id: str | None
    current_period_end: datetime | None
    canceled_at: datetime | None
    created_at: datetime


class InvoiceState(NamedTuple):
    """An invoice."""

    stripe_id: str
    customer_id: str
    subscription_id: str | None
    store_id: UUID | None
    status: InvoiceStatus
    number: str | None
    amount_due_cents: int
    amount_paid_cents: int
    currency: str
    period_start: datetime | None
    period_end: datetime | None
    paid_at: datetime | None
    created_at: datetime


class UsageState(NamedTuple):
    """An invoice item that stands for a usage charge. `charge_id` is our own mark on it."""

    stripe_id: str
    customer_id: str
    charge_id: UUID | None
    amount_cents: int
    currency: str


class MethodState(NamedTuple):
    """A payment method."""

    stripe_id: str
    kind: str
    brand: str | None
    last4: str | None
    exp_month: int | None
    exp_year: int | None


class Event(NamedTuple):
    """News from Stripe about one object, as it was at `created_at`."""

    id: str
    type: str
    created_at: datetime
    object: Fields


def event_of(fields: object) -> Event:
    """NotAnObject unless it is an event about an object."""
    body = _mapping(fields)
    about = _mapping(_mapping(body.get("data")).get("object"))
    return Event(_text(body, "id"), _text(body, "type"), _time(body, "created"), about)


def subscription_of(fields: Fields, *, at: datetime | None = None) -> SubscriptionState:
    """NotAnObject where an id or a known status is missing, or a time that `at` does not stand in for."""
    marks = _marks(fields)
    ends = fields.get("current_period_end") or _item(fields).get(
        "current_period_end"
    )  # it depends on the API's version
    return SubscriptionState(
        stripe_id=_text(fields, "id"),
        customer_id=_id(fields.get("customer")) or "",
        status=_status(SubscriptionStatus, fields),
        store_id=uuid_or_none(marks.get("store_id")),
        request=marks.get("request"),
        payment_method_id=_id(fields.get("default_payment_method")),
        current_period_end=_time_or_none(ends),
        canceled_at=_time_or_none(fields.get("canceled_at")),
        created_at=_created(fields, at),
    )


def invoice_of(fields: Fields, *, at: datetime | None = None) -> InvoiceState:
    """NotAnObject where an id or a known status is missing, or a time that `at` does not stand in for."""
    parent = _mapping(_mapping(fields.get("parent") or {}).get("subscription_details") or {})
    marks = dict(_marks(parent)) | dict(_marks(fields))
    paid = _mapping(fields.get("status_transitions") or {}).get("paid_at")
    return InvoiceState(
        stripe_id=_text(fields, "id"),
        customer_id=_id(fields.get("customer")) or "",
        subscription_id=_id(fields.get("subscription")) or _id(parent.get("subscription")),
        store_id=uuid_or_none(marks.get("store_id")),
        status=_status(InvoiceStatus, fields),
        number=fields.get("number"),
        amount_due_cents=_cents(fields, "amount_due"),
        amount_paid_cents=_cents(fields, "amount_paid"),
        currency=str(fields.get("currency") or "usd").upper(),
        period_start=_time_or_none(fields.get("period_start")),
        period_end=_time_or_none(fields.get("period_end")),
        paid_at=_time_or_none(paid),
        created_at=_created(fields, at),
    )


def usage_of(fields: Fields) -> UsageState:
    return UsageState(
        stripe_id=_text(fields, "id"),
        customer_id=_id(fields.get("customer")) or "",
        charge_id=uuid_or_none(_marks(fields).get("charge_id")),
        amount_cents=_cents(fields, "amount"),
        currency=str(fields.get("currency") or "usd").upper(),
    )


def method_of(fields: Fields) -> MethodState:
    card = _mapping(fields.get("card") or {})
    return MethodState(
        stripe_id=_text(fields, "id"),
        kind=str(fields.get("type") or "card"),
        brand=card.get("brand"),
        last4=card.get("last4"),
        exp_month=card.get("exp_month"),
        exp_year=card.get("exp_year"),
    )


def uuid_or_none(text: object) -> UUID | None:
    """An id of ours, if it is one."""
    try:
        return UUID(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _marks(fields: Fields) -> Mapping[str, str]:
    marks = _mapping(fields.get("metadata") or {})
    return {name: value for name, value in marks.items() if isinstance(value, str)}


def _item(fields: Fields) -> Fields:
    """A subscription's one item."""
    items = _mapping(fields.get("items") or {}).get("data")
    return _mapping(items[0]) if isinstance(items, list) and items else {}


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise NotAnObject("expected a JSON object")
    return value


def _text(fields: Fields, name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value or len(value) > 255 or "\0" in value:
        raise NotAnObject(f"{name}: expected a text")
    return value


def _id(value: object) -> str | None:
    """The id of something that may be given whole."""
    found = value.get("id") if isinstance(value, Mapping) else value
    return found if isinstance(found, str) and found and len(found) <= 255 and "\0" not in found else None


def _cents(fields: Fields, name: str) -> int:
    value = fields.get(name) or 0
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 1 << 63:
        raise NotAnObject(f"{name}: expected a whole number")
    return value


def _time(fields: Fields, name: str) -> datetime:
    found = _time_or_none(fields.get(name))
    if found is None:
        raise NotAnObject(f"{name}: expected a time in seconds")
    return found


def _created(fields: Fields, at: datetime | None) -> datetime:
    """When the object was made; `at` where it does not say so."""
    return at if at is not None and fields.get("created") is None else _time(fields, "created")


def _time_or_none(value: object) -> datetime | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return datetime.fromtimestamp(value, UTC)
    except (OverflowError, OSError, ValueError):
        raise NotAnObject("a time out of range") from None


def _status(kind: type[Status], fields: Fields) -> Status:
    try:
        return kind(_text(fields, "status"))
    except ValueError as exc:
        raise NotAnObject(f"status: {exc}") from None
