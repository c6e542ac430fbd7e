"""Which ads led to what is ordered, frozen as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from models.ads.rules import TargetType, attribute
from models.ads.tokens import AdClaims


def of_order(claims: Sequence[AdClaims], vendor_store_id: UUID) -> dict[str, Any] | None:
    """The store ad that led to an order of this vendor."""
    return _frozen(claims, TargetType.STORE, vendor_store_id)


def of_line(claims: Sequence[AdClaims], product_id: UUID) -> dict[str, Any] | None:
    """The product ad that led to a line."""
    return _frozen(claims, TargetType.PRODUCT, product_id)


def _frozen(claims: Sequence[AdClaims], target_type: TargetType, target_id: UUID) -> dict[str, Any] | None:
    chosen = attribute(claims, target_type, target_id)
    if chosen is None:
        return None
    claim, reason = chosen
    return {
        "ad_id": str(claim.ad_id),
        "kind": claim.kind.value,
        "jti": str(claim.jti),
        "target_type": claim.target_type.value,
        "target_id": str(claim.target_id),
        "issued_at": datetime.fromtimestamp(claim.iat, UTC).isoformat().replace("+00:00", "Z"),
        "reason": reason.value,
    }
