"""Stores: kinds and compliance states. Pure. (Who may sell is said in SQL: `store_may_sell`.)"""

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
