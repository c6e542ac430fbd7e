"""The demo's own books, kept from HTTP answers and logged rows alone, and how they are held against the system's. Pure.

Nothing here is shared with the code that it checks: costs come from the bids that the demo placed, cents from Python's
fractions.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from fractions import Fraction
from typing import Any, Final, NamedTuple

from ops.demo.views import PageView

MICROS_PER_CENT: Final = 10_000
MICROS_PER_CPM_CENT: Final = 10
GATE_CLOSED: Final = "gate_closed"


class Place(NamedTuple):
    """A line of the table: one day and placement."""

    day: date
    placement: str


class AdDayKey(NamedTuple):
    """One ad on one day."""

    day: date
    ad_id: str


class Totals(NamedTuple):
    """What an ad did on a day."""

    impressions: int
    clicks: int
    spend_micros: int


NOTHING: Final = Totals(0, 0, 0)


@dataclass(frozen=True, slots=True)
class PlacedAd:
    """An ad that the demo has placed."""

    ad_id: str
    store_id: str
    state: str
    placement: str
    bid_cpm_cents: int
    daily_budget_cents: int

    @property
    def cost_micros(self) -> int:
        return self.bid_cpm_cents * MICROS_PER_CPM_CENT

    @property
    def budget_micros(self) -> int:
        return self.daily_budget_cents * MICROS_PER_CENT


@dataclass(frozen=True, slots=True)
class Difference:
    """Two numbers that should be one. `placement` is None where a whole day is meant, `day` where the whole run is."""

    level: str
    key: str
    expected: Any
    found: Any
    day: date | None = None
    placement: str | None = None


@dataclass(slots=True)
class Books:
    """What was sent and what was answered."""

    ads: Mapping[str, PlacedAd]
    served: Counter[Place] = field(default_factory=Counter)
    refused: dict[str, Counter[Place]] = field(default_factory=lambda: defaultdict(Counter))
    impressions: Counter[AdDayKey] = field(default_factory=Counter)
    clicks: Counter[AdDayKey] = field(default_factory=Counter)
    clicks_without_ad: Counter[Place] = field(default_factory=Counter)
    misplaced: list[Difference] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)  #: views that got no proper answer

    def take_served(self, view: PageView, ad_id: str, state: str) -> None:
        """An ad was served to a buyer of `state`."""
        self.served[place_of(view)] += 1
        ad = self.ads.get(ad_id)
        found = (ad.placement, ad.state) if ad else None
        if found != (view.placement, state):
            expected = (str(view.placement), state)
            self.misplaced.append(Difference("served ad", ad_id, expected, found, view.day, view.placement))

    def take_refused(self, view: PageView, reason: str) -> None:
        """A page stayed without an ad."""
        self.refused[reason][place_of(view)] += 1
        if view.clicked:
            self.clicks_without_ad[place_of(view)] += 1

    def totals(self) -> dict[AdDayKey, Totals]:
        """By ad and day: an impression costs what was bid, a click nothing."""
        return {key: self._totals(key) for key in self.impressions.keys() | self.clicks.keys()}

    def _totals(self, key: AdDayKey) -> Totals:
        shown = self.impressions[key]
        return Totals(shown, self.clicks[key], shown * self.ads[key.ad_id].cost_micros)

    def spend_of_stores(self) -> dict[tuple[date, str], Counter[str]]:
        """By day and store: micros on each placement."""
        spend: dict[tuple[date, str], Counter[str]] = defaultdict(Counter)
        for key, totals in self.totals().items():
            ad = self.ads[key.ad_id]
            spend[key.day, ad.store_id][ad.placement] += totals.spend_micros
        return {key: placements for key, placements in spend.items() if placements.total()}

    def charges(self) -> dict[tuple[date, str], tuple[int, int]]:
        """By day and store: micros and cents due; rounded once, half to even."""
        return {key: (spend.total(), cents_of(spend.total())) for key, spend in self.spend_of_stores().items()}


def place_of(view: PageView) -> Place:
    return Place(view.day, view.placement)


def cents_of(micros: int) -> int:
    """Cents, half to even."""
    return round(Fraction(micros, MICROS_PER_CENT))


def split_cents(cents: int, micros: Mapping[str, int]) -> dict[str, int]:
    """Cents over shares by largest remainder, so that they add up; equal remainders in the order of names."""
    total = sum(micros.values())
    exact = {name: Fraction(cents * share, total) for name, share in micros.items()}
    parts = {name: int(share) for name, share in exact.items()}
    by_rest = sorted(exact, key=lambda name: (parts[name] - exact[name], name))
    for name in by_rest[: cents - sum(parts.values())]:
        parts[name] += 1
    return parts


def both_ways(level: str, expected: Mapping[Any, Any], found: Mapping[Any, Any]) -> list[Difference]:
    """What is due and not so, and what is there and not due; a key of several texts is shown with spaces."""
    return [
        Difference(level, " ".join(key) if isinstance(key, tuple) else str(key), expected.get(key), found.get(key))
        for key in sorted(expected.keys() | found.keys())
        if expected.get(key) != found.get(key)
    ]


def check_views(views: Iterable[PageView], books: Books) -> list[Difference]:
    """Every row was served or refused, and every logged click was made or had no ad to be made on."""
    rows, clicks = Counter[Place](), Counter[Place]()
    for view in views:
        rows[place_of(view)] += 1
        clicks[place_of(view)] += view.clicked
    shown, clicked = Counter[Place](), Counter(books.clicks_without_ad)
    for key, count in books.impressions.items():
        shown[Place(key.day, books.ads[key.ad_id].placement)] += count
    for key, count in books.clicks.items():
        clicked[Place(key.day, books.ads[key.ad_id].placement)] += count
    answered = sum(books.refused.values(), Counter(books.served))
    return [
        *_compare("rows = served + refused", rows, answered),
        *_compare("served = impressions", books.served, shown),
        *_compare("clicks in the file", clicks, clicked),
    ]


def _compare(level: str, expected: Counter[Place], found: Counter[Place]) -> list[Difference]:
    return [
        Difference(level, f"{place.day} {place.placement}", expected[place], found[place], place.day, place.placement)
        for place in sorted(expected.keys() | found.keys())
        if expected[place] != found[place]
    ]


def check_rollups(books: Books, rollups: Mapping[AdDayKey, Totals]) -> list[Difference]:
    """Each ad and day, in both directions."""
    own, found = books.totals(), []
    for key in sorted(own.keys() | rollups.keys()):
        ours, theirs = own.get(key, NOTHING), rollups.get(key, NOTHING)
        if ours != theirs:
            ad = books.ads.get(key.ad_id)
            found.append(Difference("rollups", key.ad_id, ours, theirs, key.day, ad.placement if ad else None))
    return found


def check_charges(books: Books, charges: Mapping[tuple[date, str], tuple[int, int]]) -> list[Difference]:
    """Each store and day, in both directions: micros and cents."""
    due = books.charges()
    return [
        Difference("charges", store_id, due.get((day, store_id)), charges.get((day, store_id)), day)
        for day, store_id in sorted(due.keys() | charges.keys())
        if due.get((day, store_id)) != charges.get((day, store_id))
    ]


def check_budgets(books: Books, rollups: Mapping[AdDayKey, Totals]) -> list[Difference]:
    """No ad has spent more on a day than its budget, by our books or by the system's."""
    own, found = books.totals(), []
    for key in sorted(own.keys() | rollups.keys()):
        ad = books.ads.get(key.ad_id)
        spent = max(own.get(key, NOTHING).spend_micros, rollups.get(key, NOTHING).spend_micros)
        if ad and spent > ad.budget_micros:
            found.append(Difference("daily budget", key.ad_id, f"<= {ad.budget_micros}", spent, key.day, ad.placement))
    return found
