"""Charges: kinds and states. Pure."""

from __future__ import annotations

from enum import StrEnum


class UsageType(StrEnum):
    AD_SPEND = "ad_spend"


class UsageStatus(StrEnum):
    """`recorded` → `cleared` (its day reconciles to zero) → `billed`."""

    RECORDED = "recorded"
    CLEARED = "cleared"
    BILLED = "billed"
