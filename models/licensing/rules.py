"""Licences: kinds, decisions, expiry, and the standing that follows for the store. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta
from enum import StrEnum
from typing import Final

from models.errors import FieldError, LicenseNotExpired, StateConflict, ValidationFailed
from models.stores.rules import KycStatus

WARN_BEFORE: Final = timedelta(days=14)
KEPT_AFTER: Final = timedelta(days=30)  #: an expired licence is deleted for good then


class LicenseType(StrEnum):
    PRODUCER = "producer"
    GROWER = "grower"
    DISPENSARY = "dispensary"
    MERCHANT = "merchant"


class LicenseStatus(StrEnum):
    PENDING = "pending"
    VERIFIED = "verified"
    REJECTED = "rejected"
    EXPIRED = "expired"


class Decision(StrEnum):
    APPROVE = "approve"
    REJECT = "reject"


#: what a store's standing follows from: its best licence, in this order
RANKING: Final = (
    (LicenseStatus.VERIFIED, KycStatus.VERIFIED),
    (LicenseStatus.PENDING, KycStatus.PENDING),
    (LicenseStatus.EXPIRED, KycStatus.EXPIRED),
    (LicenseStatus.REJECTED, KycStatus.REJECTED),
)


def standing(statuses: Iterable[LicenseStatus]) -> KycStatus:
    """The store's standing by all its licences; without any it is pending."""
    held = set(statuses)
    return next((kyc for status, kyc in RANKING if status in held), KycStatus.PENDING)


def decide(
    current: LicenseStatus, decision: Decision, *, reason: str | None, expires_on: date, today: date
) -> LicenseStatus:
    """The status that a decision leads to.

    Raises StateConflict for a second decision or the approval of an expired licence, and ValidationFailed for a
    rejection without a reason.
    """
    if current is not LicenseStatus.PENDING:
        raise StateConflict(current=current, action=decision)
    if decision is Decision.REJECT:
        if not reason:
            raise ValidationFailed(errors=[FieldError("reason", "reason_missing", "say why it is rejected")])
        return LicenseStatus.REJECTED
    if has_expired(expires_on, today):
        raise StateConflict(current=f"past its end on {expires_on}", action=decision)
    return LicenseStatus.VERIFIED


def has_expired(expires_on: date, today: date) -> bool:
    """A licence is good through its last day, in UTC."""
    return expires_on < today


def check_deletable(status: LicenseStatus) -> None:
    """Only an expired licence may be deleted."""
    if status is not LicenseStatus.EXPIRED:
        raise LicenseNotExpired(f"the licence is {status}: only an expired one can be deleted")
