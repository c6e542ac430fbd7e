"""Which of the ad tokens that come with a quote the cart keeps. Pure: keys and the time are arguments.

A bad token is dropped and counted by its reason; it is nobody's error, since a buyer's client cannot repair it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from models.ads.tokens import AdClaims, TokenKeys
from models.errors import InvalidToken


class Dropped(StrEnum):
    """Why a token is not kept."""

    INVALID = "invalid"  #: forged, malformed, or no ad token
    FUTURE = "future"
    EXPIRED = "expired"
    OTHER_BUYER = "other_buyer"
    REPEATED = "repeated"
    OLDER = "older"  #: there is a more recent one for the same target and kind


class Kept(NamedTuple):
    """A token that may attribute a checkout, with what it says."""

    token: str
    claims: AdClaims


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What a token is held against; `ttl_s` is its life for attribution, from `iat` on."""

    keys: TokenKeys
    ttl_s: int
    skew_s: int


def select(
    tokens: Iterable[str], rules: TokenRules, *, buyer_store_id: UUID, now: datetime
) -> tuple[list[Kept], Mapping[Dropped, int]]:
    """The tokens to keep, in the order they came, and how many were dropped for which reason.

    Of each (target, kind) only the most recent is kept; of equally old ones that with the smallest `jti`.
    """
    dropped: Counter[Dropped] = Counter()
    best: dict[tuple[str, UUID, str], Kept] = {}
    distinct = dict.fromkeys(tokens)
    for token in distinct:
        found = _read(token, rules, buyer_store_id=buyer_store_id, now_s=now.timestamp())
        if isinstance(found, Dropped):
            dropped[found] += 1
            continue
        key = found.claims.target_type, found.claims.target_id, found.claims.kind
        rival = best.get(key)
        if rival is not None:
            dropped[Dropped.REPEATED if rival.claims.jti == found.claims.jti else Dropped.OLDER] += 1
        if rival is None or _recency(found.claims) < _recency(rival.claims):
            best[key] = found
    order = {token: place for place, token in enumerate(distinct)}
    return sorted(best.values(), key=lambda kept: order[kept.token]), dropped


def plain(claims: AdClaims) -> dict[str, Any]:
    """The claims as JSON has them."""
    fields: dict[str, Any] = msgspec.to_builtins(claims)
    return fields


def claims_of(fields: Mapping[str, Any]) -> AdClaims:
    """Back from `plain`."""
    return msgspec.convert(fields, AdClaims)


def _read(token: str, rules: TokenRules, *, buyer_store_id: UUID, now_s: float) -> Kept | Dropped:
    try:
        claims = rules.keys.read(token)
    except InvalidToken:
        return Dropped.INVALID
    if claims.buyer_store_id != buyer_store_id:
        return Dropped.OTHER_BUYER
    if claims.iat > now_s + rules.skew_s:
        return Dropped.FUTURE
    if claims.iat + rules.ttl_s < now_s:
        return Dropped.EXPIRED
    return Kept(token, claims)


def _recency(claims: AdClaims) -> tuple[int, UUID]:
    return -claims.iat, claims.jti
