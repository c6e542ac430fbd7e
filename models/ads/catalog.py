"""The active ads in memory, and which of them a serve offers to the gate. Pure: no IO, no clock.

A `Snapshot` is one version of the catalogue. A `Lineup` is what it offers to buyers of one state on one placement; it
holds for the rest of the UTC minute, or until a flight begins or ends, and is kept for all serves in that time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter
from typing import Final
from uuid import UUID

from models.ads.gateway import Offer
from models.ads.rules import CANDIDATES_MAX, MINUTE_S, Exclusion, Placement, TargetType, turn

LINEUPS_MAX: Final = 256  #: kept at once; placements × states is at most 168

_by_bid = attrgetter("bid_cpm_cents")


@dataclass(frozen=True, slots=True)
class Candidate:
    """An active ad as serve sees it."""

    ad_id: UUID
    store_id: UUID
    placement: Placement
    target_type: TargetType
    target_id: UUID
    headline: str
    creative: str | None  #: the name of its object
    bid_cpm_cents: int
    starts_at: datetime
    ends_at: datetime | None
    state: str  #: of the vendor's store
    eligible: bool  #: verified licence and active subscription
    listed: bool  #: the product, if it is one's ad, is on sale
    offer: Offer  #: as the gate takes it

    def exclusion(self, now: datetime) -> Exclusion | None:
        """Why the flight excludes the ad at `now`; a flight includes its start and not its end."""
        if now < self.starts_at:
            return Exclusion.NOT_STARTED
        return Exclusion.ENDED if self.ends_at is not None and now >= self.ends_at else None


@dataclass(frozen=True, slots=True)
class Lineup:
    """At most 8 candidates in order of preference, in force from `since` to before `until`."""

    candidates: tuple[Candidate, ...]
    offers: tuple[Offer, ...]
    excluded: Mapping[Exclusion, int]
    since: datetime
    until: datetime


@dataclass(slots=True)
class Snapshot:
    """One version of the catalogue; `buyer_states` fills as buyers come and goes with the version."""

    version: int
    candidates: Sequence[Candidate]
    buyer_states: dict[UUID, str] = field(default_factory=dict)
    _here: dict[tuple[Placement, str], list[Candidate]] = field(default_factory=dict)
    _elsewhere: dict[tuple[Placement, str], dict[Exclusion, int]] = field(default_factory=dict)
    _lineups: dict[tuple[Placement, str], Lineup] = field(default_factory=dict)

    def lineup(self, placement: Placement, state: str, now: datetime) -> Lineup:
        """Who may be served: the highest bid first, equal bids in the minute's turn, then by id."""
        key = placement, state
        known = self._lineups.get(key)
        if known is None or not known.since <= now < known.until:
            if len(self._lineups) >= LINEUPS_MAX:
                self._lineups.clear()
            known = self._lineups[key] = line_up(self._allowed(key), now, self._elsewhere[key])
        return known

    def _allowed(self, key: tuple[Placement, str]) -> list[Candidate]:
        """The placement's ads that buyers of the state may see, highest bid first."""
        if key not in self._here:
            placement, state = key
            there = [c for c in self.candidates if c.placement is placement]
            eligible = [c for c in there if c.eligible]
            near = [c for c in eligible if c.state == state]
            here = sorted((c for c in near if c.listed), key=_by_bid, reverse=True)
            self._here[key] = here
            self._elsewhere[key] = {
                Exclusion.VENDOR_NOT_ELIGIBLE: len(there) - len(eligible),
                Exclusion.OTHER_STATE: len(eligible) - len(near),
                Exclusion.PRODUCT_NOT_LISTED: len(near) - len(here),
            }
        return self._here[key]


EMPTY: Final = Snapshot(version=0, candidates=())


def line_up(by_bid: Sequence[Candidate], now: datetime, elsewhere: Mapping[Exclusion, int]) -> Lineup:
    """The first of `by_bid` (highest bid first) that are in flight at `now`.

    Whoever comes after the bid that fills the last place has not been looked at, and cannot change the outcome.
    """
    start = now.replace(second=0, microsecond=0)
    minute = int(start.timestamp()) // MINUTE_S
    chosen: list[Candidate] = []
    excluded = dict(elsewhere)
    seen: list[Candidate] = []
    for _, equals in groupby(by_bid, key=_by_bid):
        if len(chosen) >= CANDIDATES_MAX:
            break
        group = list(equals)
        seen += group
        chosen += sorted(_in_flight(group, now, excluded), key=lambda ad: (turn(ad.ad_id, minute), ad.ad_id.bytes))
    excluded[Exclusion.BEYOND_LIMIT] = len(by_bid) - len(seen) + max(0, len(chosen) - CANDIDATES_MAX)
    best = tuple(chosen[:CANDIDATES_MAX])
    changes = [at for ad in seen for at in (ad.starts_at, ad.ends_at) if at is not None]
    return Lineup(
        candidates=best,
        offers=tuple(ad.offer for ad in best),
        excluded={reason: count for reason, count in excluded.items() if count},
        since=max([start, *(at for at in changes if at <= now)]),
        until=min([start + timedelta(seconds=MINUTE_S), *(at for at in changes if at > now)]),
    )


def _in_flight(ads: Iterable[Candidate], now: datetime, excluded: dict[Exclusion, int]) -> list[Candidate]:
    flying = []
    for ad in ads:
        reason = ad.exclusion(now)
        if reason is None:
            flying.append(ad)
        else:
            excluded[reason] = excluded.get(reason, 0) + 1
    return flying
