"""Licences: decisions, expiry and the standing that follows."""

from __future__ import annotations

from datetime import date

import pytest

from models.errors import LicenseNotExpired, StateConflict, ValidationFailed
from models.licensing.rules import Decision, LicenseStatus, check_deletable, decide, has_expired, standing
from models.stores.rules import KycStatus

TODAY = date(2026, 11, 24)
PENDING, VERIFIED, REJECTED, EXPIRED = LicenseStatus


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ([], KycStatus.PENDING),
        ([PENDING], KycStatus.PENDING),
        ([REJECTED], KycStatus.REJECTED),
        ([EXPIRED], KycStatus.EXPIRED),
        ([REJECTED, VERIFIED, EXPIRED], KycStatus.VERIFIED),
        ([EXPIRED, PENDING], KycStatus.PENDING),
        ([EXPIRED, REJECTED], KycStatus.EXPIRED),
    ],
)
def test_a_store_stands_as_its_best_licence(held: list[LicenseStatus], expected: KycStatus) -> None:
    assert standing(held) is expected


def test_a_licence_is_good_through_its_last_day() -> None:
    assert not has_expired(TODAY, TODAY)
    assert has_expired(date(2026, 11, 23), TODAY)


def test_a_pending_licence_is_decided_once() -> None:
    assert decide(PENDING, Decision.APPROVE, reason=None, expires_on=TODAY, today=TODAY) is VERIFIED
    assert decide(PENDING, Decision.REJECT, reason="blurred", expires_on=TODAY, today=TODAY) is REJECTED
    for status in (VERIFIED, REJECTED, EXPIRED):
        with pytest.raises(StateConflict):
            decide(status, Decision.APPROVE, reason=None, expires_on=TODAY, today=TODAY)


def test_a_rejection_says_why() -> None:
    with pytest.raises(ValidationFailed):
        decide(PENDING, Decision.REJECT, reason=None, expires_on=TODAY, today=TODAY)


def test_what_has_expired_is_not_approved() -> None:
    with pytest.raises(StateConflict):
        decide(PENDING, Decision.APPROVE, reason=None, expires_on=date(2026, 11, 1), today=TODAY)


@pytest.mark.parametrize("status", [PENDING, VERIFIED, REJECTED])
def test_only_an_expired_licence_may_be_deleted(status: LicenseStatus) -> None:
    with pytest.raises(LicenseNotExpired):
        check_deletable(status)
    check_deletable(EXPIRED)
