"""Which ads a serve offers, and in which order."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.ads.catalog import Candidate, Snapshot
from models.ads.gateway import Offer
from models.ads.rules import Exclusion, Placement, TargetType
from models.database import new_id

NOON = datetime(2027, 3, 1, 12, 0, 30, tzinfo=UTC)


def candidate(**changes: Any) -> Candidate:
    ad_id, store_id = changes.pop("ad_id", new_id()), new_id()
    fields: dict[str, Any] = {
        "ad_id": ad_id,
        "store_id": store_id,
        "placement": Placement.HOME,
        "target_type": TargetType.STORE,
        "target_id": store_id,
        "headline": "Fresh",
        "creative": None,
        "bid_cpm_cents": 100,
        "starts_at": NOON - timedelta(days=1),
        "ends_at": None,
        "state": "CA",
        "eligible": True,
        "listed": True,
        "offer": Offer(ad_id, 1000, 1_000_000),
    }
    return Candidate(**(fields | changes))


def offered(ads: list[Candidate], now: datetime = NOON, state: str = "CA") -> list[UUID]:
    return [offer.ad_id for offer in Snapshot(1, ads).lineup(Placement.HOME, state, now).offers]


def test_highest_bid_first_whatever_the_order_they_came_in() -> None:
    ads = [candidate(bid_cpm_cents=bid) for bid in (5, 100_000, 1, 70)]
    by_bid = sorted(ads, key=lambda ad: -ad.bid_cpm_cents)
    assert offered(ads) == offered(ads[::-1]) == [ad.ad_id for ad in by_bid]


def test_equal_bids_take_turns_by_the_hash_of_id_and_minute() -> None:
    ads = [candidate() for _ in range(5)]

    def turn(ad: Candidate, now: datetime) -> bytes:
        return sha256(f"{ad.ad_id}{int(now.timestamp()) // 60}".encode()).digest()

    winners: Counter[UUID] = Counter()
    for minute in range(300):
        now = NOON + timedelta(minutes=minute)
        expected = sorted(ads, key=lambda ad: (turn(ad, now), ad.ad_id))
        assert offered(ads, now) == [ad.ad_id for ad in expected]
        winners[expected[0].ad_id] += 1
    assert set(winners) == {ad.ad_id for ad in ads}
    assert min(winners.values()) > 30, "each of five wins about a fifth of the minutes"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"starts_at": NOON + timedelta(microseconds=1)}, Exclusion.NOT_STARTED),
        ({"ends_at": NOON}, Exclusion.ENDED),
        ({"eligible": False}, Exclusion.VENDOR_NOT_ELIGIBLE),
        ({"state": "NV"}, Exclusion.OTHER_STATE),
    ],
)
def test_excluded_ad_is_not_offered_and_the_reason_is_counted(changes: dict[str, Any], reason: Exclusion) -> None:
    lineup = Snapshot(1, [candidate(**changes)]).lineup(Placement.HOME, "CA", NOON)
    assert lineup.offers == ()
    assert lineup.excluded == {reason: 1}


def test_other_placements_are_not_looked_at() -> None:
    lineup = Snapshot(1, [candidate(placement=Placement.SEARCH)]).lineup(Placement.HOME, "CA", NOON)
    assert (lineup.offers, lineup.excluded) == ((), {})


def test_flight_holds_from_its_start_to_before_its_end() -> None:
    ad = candidate(starts_at=NOON, ends_at=NOON + timedelta(seconds=10))
    snapshot = Snapshot(1, [ad])
    for at, count in ((-1, 0), (0, 1), (9_999_999, 1), (10_000_000, 0), (-1, 0), (0, 1)):
        lineup = snapshot.lineup(Placement.HOME, "CA", NOON + timedelta(microseconds=at))
        assert len(lineup.offers) == count, f"{at} µs after the start"


def test_at_most_eight_are_offered_and_the_others_counted() -> None:
    ads = [candidate(bid_cpm_cents=bid) for bid in range(1, 21)]
    lineup = Snapshot(1, ads).lineup(Placement.HOME, "CA", NOON)
    assert [ad.bid_cpm_cents for ad in lineup.candidates] == list(range(20, 12, -1))
    assert lineup.excluded == {Exclusion.BEYOND_LIMIT: 12}


def test_lineup_is_made_once_for_a_minute() -> None:
    snapshot = Snapshot(1, [candidate()])
    first = snapshot.lineup(Placement.HOME, "CA", NOON)
    assert snapshot.lineup(Placement.HOME, "CA", NOON - timedelta(seconds=30)) is first
    assert snapshot.lineup(Placement.HOME, "CA", NOON + timedelta(seconds=29.999999)) is first
    assert snapshot.lineup(Placement.HOME, "CA", NOON + timedelta(seconds=30)) is not first


SECONDS = st.integers(-90, 90)
FLIGHTS = st.lists(st.tuples(st.integers(1, 3), SECONDS, st.one_of(st.none(), st.integers(1, 60))), max_size=30)


@given(flights=FLIGHTS, visits=st.lists(SECONDS, min_size=1, max_size=20))
def test_kept_lineup_says_what_a_fresh_one_would(flights: list[tuple[int, int, int | None]], visits: list[int]) -> None:
    ads = [
        candidate(
            bid_cpm_cents=bid,
            starts_at=NOON + timedelta(seconds=start),
            ends_at=None if life is None else NOON + timedelta(seconds=start + life),
        )
        for bid, start, life in flights
    ]
    kept = Snapshot(1, ads)
    for second in visits:
        now = NOON + timedelta(seconds=second)
        flying = [ad for ad in ads if ad.starts_at <= now and (ad.ends_at is None or now < ad.ends_at)]
        best = sorted(-ad.bid_cpm_cents for ad in flying)[:8]
        lineup = kept.lineup(Placement.HOME, "CA", now)
        assert [offer.ad_id for offer in lineup.offers] == offered(ads, now)
        assert [-ad.bid_cpm_cents for ad in lineup.candidates] == best
