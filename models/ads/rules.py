"""Ads: kinds, status machine, arithmetic of money, minutes and days, candidate order. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Protocol, TypeVar
from uuid import UUID

from models.errors import StateConflict

MICROS_PER_CENT = 10_000
MICROS_PER_CPM_CENT = 10  #: one impression of a bid of 1 cent per thousand
MINUTE_S = 60
CANDIDATES_MAX = 8  #: how many ads one serve offers to the gate


class BillingModel(StrEnum):
    CPM = "cpm"


class Placement(StrEnum):
    HOME = "home"
    CATEGORY = "category"
    SEARCH = "search"


class TargetType(StrEnum):
    STORE = "store"
    PRODUCT = "product"


class AdStatus(StrEnum):
    DRAFT = "draft"
    ACTIVE = "active"
    PAUSED = "paused"
    ARCHIVED = "archived"


class EventKind(StrEnum):
    IMPRESSION = "impression"
    CLICK = "click"


class NoAdReason(StrEnum):
    """Why a serve has no ad."""

    NO_CANDIDATES = "no_candidates"
    BUDGET_EXHAUSTED = "budget_exhausted"
    GATE_CLOSED = "gate_closed"


class Exclusion(StrEnum):
    """Why an active ad of the placement was not the one served."""

    NOT_STARTED = "not_started"
    ENDED = "ended"
    VENDOR_NOT_ELIGIBLE = "vendor_not_eligible"
    OTHER_STATE = "other_state"
    PRODUCT_NOT_LISTED = "product_not_listed"
    BEYOND_LIMIT = "beyond_limit"
    BUDGET_EXHAUSTED = "budget_exhausted"
    GATE_CLOSED = "gate_closed"


TRANSITIONS: dict[AdStatus, frozenset[AdStatus]] = {
    AdStatus.DRAFT: frozenset({AdStatus.ACTIVE, AdStatus.ARCHIVED}),
    AdStatus.ACTIVE: frozenset({AdStatus.PAUSED, AdStatus.ARCHIVED}),
    AdStatus.PAUSED: frozenset({AdStatus.ACTIVE, AdStatus.ARCHIVED}),
    AdStatus.ARCHIVED: frozenset(),
}


def next_status(current: AdStatus, wanted: AdStatus) -> AdStatus:
    """`wanted`, when it is where the ad already is or may go; StateConflict otherwise."""
    if wanted is not current and wanted not in TRANSITIONS[current]:
        raise StateConflict(current=current, action=f"changing to {wanted}")
    return wanted


FIXED_WHILE_ACTIVE = frozenset({"placement", "target_type", "target_product_id"})


def check_change(current: AdStatus, wanted: AdStatus, fields: Collection[str]) -> None:
    """StateConflict where `fields` may not change on the way from `current` to `wanted`.

    An archived ad is final. An active one keeps its placement and target, since its counters would mix two ads: pause
    it first, or in the same change. Bid, budget, flight and texts may change at any time before the archive.
    """
    if fields and current is AdStatus.ARCHIVED:
        raise StateConflict(current=current, action=f"changing {', '.join(sorted(fields))}")
    fixed = FIXED_WHILE_ACTIVE.intersection(fields)
    if fixed and current is wanted is AdStatus.ACTIVE:
        raise StateConflict(current=current, action=f"changing {', '.join(sorted(fixed))}")


def no_ad_reason(refused: Collection[str]) -> NoAdReason:
    """Why a serve has no ad, from what the gate said of each ad offered."""
    for reason in (NoAdReason.GATE_CLOSED, NoAdReason.BUDGET_EXHAUSTED):
        if reason in refused:
            return reason
    return NoAdReason.NO_CANDIDATES


def shard_of(ad_id: UUID, shards: int) -> int:
    """The shard that an ad's events travel in."""
    return zlib.crc32(ad_id.bytes) % shards


def impression_cost_micros(bid_cpm_cents: int) -> int:
    """What one impression costs."""
    return bid_cpm_cents * MICROS_PER_CPM_CENT


def budget_micros(daily_budget_cents: int) -> int:
    """A daily budget as the gate counts."""
    return daily_budget_cents * MICROS_PER_CENT


def charge_cents(spend_micros: int) -> int:
    """Micros as cents, rounded half to even, once."""
    cents, rest = divmod(spend_micros, MICROS_PER_CENT)
    half = MICROS_PER_CENT // 2
    return cents + (rest > half or (rest == half and cents % 2 == 1))


def day_of(epoch_s: int) -> date:
    """The UTC day of a time in seconds."""
    return datetime.fromtimestamp(epoch_s, UTC).date()


def day_number(day: date) -> int:
    """Days since 1970-01-01."""
    return (day - date(1970, 1, 1)).days


def day_from_number(number: int) -> date:
    """The day that is `number` days after 1970-01-01."""
    return date(1970, 1, 1) + timedelta(days=number)


def turn(ad_id: UUID, minute: int) -> bytes:
    """What orders equal bids: SHA-256 of the ad's id and the UTC minute (minutes since 1970)."""
    return sha256(f"{ad_id}{minute}".encode()).digest()


# -- attribution ------------------------------------------------------------------------------------------------------


class AttributionReason(StrEnum):
    """What told the chosen ad from the next best one."""

    ONLY = "only"  #: there was no other
    CLICK_BEFORE_IMPRESSION = "click_before_impression"
    NEWEST = "newest"
    SMALLEST_JTI = "smallest_jti"


class Claim(Protocol):
    """What a token says, as far as it attributes."""

    @property
    def kind(self) -> EventKind: ...
    @property
    def jti(self) -> UUID: ...
    @property
    def iat(self) -> int: ...
    @property
    def target_type(self) -> TargetType: ...
    @property
    def target_id(self) -> UUID: ...


C = TypeVar("C", bound=Claim)


def attribute(claims: Iterable[C], target_type: TargetType, target_id: UUID) -> tuple[C, AttributionReason] | None:
    """Which of the claims led to what was ordered, and why that one; None when none is for this target.

    A click before an impression, then the newest, then the smallest `jti`.
    """
    fitting = {
        claim.jti: claim for claim in claims if claim.target_type is target_type and claim.target_id == target_id
    }
    ranked = sorted(fitting.values(), key=_rank)
    if not ranked:
        return None
    return ranked[0], _told_by(*ranked[:2]) if len(ranked) > 1 else AttributionReason.ONLY


def _rank(claim: Claim) -> tuple[bool, int, UUID]:
    return claim.kind is not EventKind.CLICK, -claim.iat, claim.jti


def _told_by(best: Claim, second: Claim) -> AttributionReason:
    if best.kind is not second.kind:
        return AttributionReason.CLICK_BEFORE_IMPRESSION
    return AttributionReason.SMALLEST_JTI if best.iat == second.iat else AttributionReason.NEWEST
