"""Billing: kinds and states of charges and subscriptions, and which of two pieces of news is the newer. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

KEYS_KEPT: Final = timedelta(hours=24)  #: Stripe remembers an idempotency key for at least so long
RETRY_BY_KEY: Final = timedelta(hours=23)  #: later, what an earlier try led to is looked up instead
RETRY_FIRST: Final = timedelta(seconds=2)
RETRY_MAX: Final = timedelta(hours=1)
SIGNATURE_TOLERANCE_S: Final = 300


class UsageType(StrEnum):
    AD_SPEND = "ad_spend"


class UsageStatus(StrEnum):
    """`recorded` → `cleared` (its day reconciles to zero) → `billed` (Stripe has it)."""

    RECORDED = "recorded"
    CLEARED = "cleared"
    BILLED = "billed"


class SubscriptionStatus(StrEnum):
    """Stripe's own names."""

    INCOMPLETE = "incomplete"
    INCOMPLETE_EXPIRED = "incomplete_expired"
    TRIALING = "trialing"
    ACTIVE = "active"
    PAST_DUE = "past_due"
    UNPAID = "unpaid"
    PAUSED = "paused"
    CANCELED = "canceled"


class InvoiceStatus(StrEnum):
    """Stripe's own names."""

    DRAFT = "draft"
    OPEN = "open"
    PAID = "paid"
    UNCOLLECTIBLE = "uncollectible"
    VOID = "void"


PAYING: Final = frozenset((SubscriptionStatus.ACTIVE, SubscriptionStatus.TRIALING))  #: these count as active
ENDED: Final = frozenset((SubscriptionStatus.CANCELED, SubscriptionStatus.INCOMPLETE_EXPIRED))

# Stripe's times have whole seconds, and its events come in any order: of two states of one second the later stage wins.
FIRST_STAGE: Final = frozenset((SubscriptionStatus.INCOMPLETE, InvoiceStatus.DRAFT))
LAST_STAGE: Final = ENDED | {InvoiceStatus.PAID, InvoiceStatus.UNCOLLECTIBLE, InvoiceStatus.VOID}


def is_newer(status: str, at: datetime, than_status: str, than_at: datetime) -> bool:
    """Whether a state as of `at` may replace one as of `than_at`: it is not older, nor an earlier stage."""
    if at != than_at:
        return at > than_at
    return _stage(status) >= _stage(than_status)


def _stage(status: str) -> int:
    return 0 if status in FIRST_STAGE else 2 if status in LAST_STAGE else 1


def retry_after(attempts: int) -> timedelta:
    """The pause after the attempt of this number."""
    return min(RETRY_FIRST * float(4 ** min(attempts - 1, 10)), RETRY_MAX)
