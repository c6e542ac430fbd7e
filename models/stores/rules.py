"""Stores: kinds, compliance states and who may sell. Pure."""

from __future__ import annotations

from enum import StrEnum


class StoreType(StrEnum):
    BUYER = "buyer"
    VENDOR = "vendor"


class KycStatus(StrEnum):
    """Mirrors the store's best licence."""

    PENDING = "pending"
    VERIFIED = "verified"
    REJECTED = "rejected"
    EXPIRED = "expired"


def may_sell(*, kyc_status: KycStatus, subscription_active: bool) -> bool:
    """Whether a vendor is shown, sells and advertises."""
    return kyc_status is KycStatus.VERIFIED and subscription_active
