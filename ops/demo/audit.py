"""All checks of a run, and the table's lines. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import date

from models.ads.rules import Placement
from ops.demo.billing import Billing, check_billing
from ops.demo.books import (
    GATE_CLOSED,
    Books,
    Difference,
    Place,
    check_budgets,
    check_charges,
    check_rollups,
    check_views,
    place_of,
    split_cents,
)
from ops.demo.courses import OrderBook, check_orders
from ops.demo.dashboards import Dashboards, check_dashboards
from ops.demo.licensing import LicenseBook, check_licenses
from ops.demo.purchases import Basket
from ops.demo.receipts import Receipts, check_sales
from ops.demo.settling import Stored
from ops.demo.views import PageView
from ops.reconcile import Reconciliation

REASONS = ("budget_exhausted", "no_candidates", GATE_CLOSED)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the checks are made on: logged rows, our books, what Postgres has, and the recount of the raw topic."""

    views: Sequence[PageView]
    books: Books
    licenses: LicenseBook
    vendors: set[str]  #: stores
    stored: Stored
    reconciled: Sequence[Reconciliation]
    baskets: Sequence[Basket]
    receipts: Receipts
    orders: OrderBook
    billing: Billing
    dashboards: Dashboards


@dataclass(slots=True)
class Line:
    """Views, money and differences of one day and placement, one day, or all."""

    views: int = 0
    served: int = 0
    budget_exhausted: int = 0
    no_candidates: int = 0
    gate_closed: int = 0
    impressions: int = 0
    clicks: int = 0
    spend_micros: int = 0
    charged_cents: int = 0
    differences: int = 0

    def __add__(self, other: Line) -> Line:
        mine, theirs = asdict(self), asdict(other)
        return Line(**{name: mine[name] + theirs[name] for name in mine})


def audit(evidence: Evidence) -> list[Difference]:
    """Everything that is not as it should be."""
    books, stored = evidence.books, evidence.stored
    return [
        *check_views(evidence.views, books),
        *books.misplaced,
        *(Difference("answers", failure, "an answer", None) for failure in books.failures),
        *(
            Difference("closed gate", str(place.day), 0, count, place.day, place.placement)
            for place, count in sorted(books.refused[GATE_CLOSED].items())
        ),
        *check_rollups(books, stored.rollups),
        *check_charges(books, stored.charges),
        *check_budgets(books, stored.rollups),
        *stored.leftovers,
        *check_sales(evidence.baskets, evidence.receipts, stored.sales),
        *check_orders(evidence.orders, stored.orders, evidence.receipts.shelves),
        *check_billing(evidence.billing, evidence.vendors, stored.charges, _cleared(evidence.reconciled)),
        *check_dashboards(evidence.dashboards),
        *check_licenses(evidence.licenses, stored.licenses, stored.verified, evidence.vendors),
        *(difference for one in evidence.reconciled for difference in check_reconciliation(books, one)),
    ]


def _cleared(reconciled: Iterable[Reconciliation]) -> list[date]:
    """The days whose charges may be billed."""
    return [date.fromisoformat(one.day) for one in reconciled if one.ok and one.closed]


def check_reconciliation(books: Books, one: Reconciliation) -> list[Difference]:
    """Its own differences, and its recount of the raw topic against our books."""
    day = date.fromisoformat(one.day)
    own = [totals for key, totals in books.totals().items() if key.day == day]
    impressions, clicks = sum(t.impressions for t in own), sum(t.clicks for t in own)
    sums = {
        "closed": (True, one.closed),
        "ok": (True, one.ok),
        "accepted": (impressions + clicks, one.accepted),
        "impressions": (impressions, one.impressions),
        "clicks": (clicks, one.clicks),
        "spend_micros": (sum(t.spend_micros for t in own), one.spend_micros),
    }
    return [
        *(Difference(f"reconcile: {d.level}", d.key, d.expected, d.found, day) for d in one.differences),
        *(Difference("reconcile", name, due, found, day) for name, (due, found) in sums.items() if due != found),
    ]


def lines(evidence: Evidence, differences: Iterable[Difference]) -> dict[Place, Line]:
    """A line for each day and placement, and one with the placement "" for what belongs to the day alone.

    Impressions, clicks and spend are the system's rollups; a store's charge is split over its placements as by
    largest remainder of what they spent.
    """
    books, stored = evidence.books, evidence.stored
    rows = Counter(place_of(view) for view in evidence.views)
    days = sorted({place.day for place in rows})
    table = {Place(day, placement): Line() for day in days for placement in (*Placement, "")}
    for place, line in table.items():
        line.views, line.served = rows[place], books.served[place]
        line.budget_exhausted, line.no_candidates, line.gate_closed = (books.refused[r][place] for r in REASONS)
    for key, totals in stored.rollups.items():
        ad = books.ads.get(key.ad_id)
        line = table[Place(key.day, ad.placement if ad else "")]
        line.impressions += totals.impressions
        line.clicks += totals.clicks
        line.spend_micros += totals.spend_micros
    for place, cents in _charged(books, stored).items():
        table[place].charged_cents += cents
    for difference in differences:
        if difference.day in days:
            table[Place(difference.day, difference.placement or "")].differences += 1
    return table


def _charged(books: Books, stored: Stored) -> dict[Place, int]:
    spend = books.spend_of_stores()
    charged: dict[Place, int] = defaultdict(int)
    for (day, store_id), (_, cents) in stored.charges.items():
        shares = spend.get((day, store_id)) or Counter({"": 1})
        for placement, part in split_cents(cents, shares).items():
            charged[Place(day, placement)] += part
    return charged
