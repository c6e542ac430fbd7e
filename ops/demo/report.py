"""What the demo says at the end: a table and the checks for people, one JSON document for programs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import date
from itertools import groupby
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

from ops.demo.audit import Line
from ops.demo.billing import Billing
from ops.demo.books import Difference, Place
from ops.demo.courses import OrdersSummary
from ops.demo.dashboards import Dashboards
from ops.demo.receipts import SalesLine

SHOWN_MAX: Final = 20  #: differences; the rest is counted
HEADINGS: Final = (
    "day",
    "placement",
    "views",
    "served",
    "refused:\nbudget",
    "\nno ad",
    "\ngate",
    "impressions",
    "clicks",
    "spend $",
    "charged $",
    "differences",
)
SALES_HEADINGS: Final = ("day", "purchases", "carts", "orders", "units", "ordered $", "by an ad", "of them $")


@dataclass(frozen=True, slots=True)
class Report:
    """A finished run."""

    api: str
    data: str
    stores: dict[str, int]
    ads: int
    licenses: dict[str, int]  #: uploaded, approved, activations_refused (before that)
    offers_refused: int
    clicks_without_ad: int
    lines: dict[Place, Line]
    sales: dict[date, SalesLine]
    products: int
    carts_with_ads: int
    orders: OrdersSummary
    billing: Billing
    dashboards: Dashboards
    reconciled: list[str]  #: days whose reconciliation is at zero
    differences: list[Difference]
    seconds: dict[str, float]
    client_cpu_s: float  #: what this process took of the cores that it shares with the system

    @property
    def ok(self) -> bool:
        return not self.differences

    @property
    def total(self) -> Line:
        return sum(self.lines.values(), Line())

    @property
    def sales_total(self) -> SalesLine:
        return sum(self.sales.values(), SalesLine())

    def as_json(self) -> dict[str, Any]:
        """Everything, for `json.dumps(…, default=str)`."""
        return {
            "ok": self.ok,
            "api": self.api,
            "data": self.data,
            "stores": self.stores,
            "ads": self.ads,
            "licenses": self.licenses,
            "offers_refused": self.offers_refused,
            "clicks_without_ad": self.clicks_without_ad,
            "total": asdict(self.total),
            "lines": [
                {"day": place.day, "placement": place.placement or None, **asdict(line)}
                for place, line in self.lines.items()
            ],
            "sales": {
                "total": asdict(self.sales_total),
                "days": [{"day": day, **asdict(line)} for day, line in self.sales.items()],
                "products": self.products,
                "carts_with_ads": self.carts_with_ads,
            },
            "orders": asdict(self.orders),
            "billing": self.billing.as_json(),
            "dashboards": self.dashboards.as_json(),
            "reconciled": self.reconciled,
            "differences": [asdict(difference) for difference in self.differences],
            "seconds": self.seconds,
            "client_cpu_s": self.client_cpu_s,
        }


def show(report: Report, console: Console) -> None:
    """Print it for people."""
    console.print(_table(report))
    console.print(_sales_table(report))
    console.print(_licenses(report.licenses))
    total = report.total
    refused = total.views - total.served
    console.print(
        f"{report.stores['buyer']} buyer stores opened {total.views:,} pages; {report.ads} ads of "
        f"{report.stores['vendor']} vendors were bidding.\n"
        f"{total.served:,} pages got an ad, {refused:,} none; the gate refused {report.offers_refused:,} offers whose "
        f"budget was used up.\n{total.clicks} of {total.clicks + report.clicks_without_ad} logged clicks had an ad to "
        "be made on."
    )
    console.print(_sales(report))
    console.print(_books(report.orders))
    console.print(_billing(report.billing))
    console.print(_dashboards(report.dashboards))
    console.print(f"reconciled to zero: {', '.join(report.reconciled) or 'no day'}")
    console.print(
        f"the API was at {report.api}, its console at {report.api}/console: `packstream up --data {report.data}` "
        "starts the same system again, "
        "`packstream demo --keep` leaves it running"
    )
    seconds = {**report.seconds, "of them the demo's own CPU": report.client_cpu_s}
    console.print("seconds: " + "; ".join(f"{name} {took:.1f}" for name, took in seconds.items()))
    for difference in report.differences[:SHOWN_MAX]:
        where = f"{difference.day or ''} {difference.level} {difference.key}".strip()
        console.print(f"DIFFERENCE {where}: expected {difference.expected}, found {difference.found}", markup=False)
    if len(report.differences) > SHOWN_MAX:
        console.print(f"… and {len(report.differences) - SHOWN_MAX} more")
    verdict = "every row is accounted for and all differences are zero"
    console.print(verdict if report.ok else f"NOT OK: {len(report.differences)} differences")


def _licenses(counts: dict[str, int]) -> str:
    return (
        f"{counts['uploaded']} licences were uploaded, {counts['approved']} approved by an administrator; before that, "
        f"{counts['activations_refused']} activation of an ad was tried and refused."
    )


def _dashboards(dashboards: Dashboards) -> str:
    name, kpis = dashboards.best
    return (
        f"the warehouse's dashboard of {name}: {kpis.orders:,} orders, {_dollars(kpis.net_cents)} $ net, "
        f"{_dollars(kpis.aov_cents)} $ an order; ads: {kpis.impressions:,} impressions, {kpis.clicks:,} clicks, "
        f"{_dollars(kpis.spend_cents)} $ spent, {_dollars(kpis.attributed_cents)} $ owed to them, "
        f"ROAS {kpis.roas:.2f}; all {len(dashboards.shown)} vendors' dashboards were compared with Postgres."
    )


def _billing(billing: Billing) -> str:
    return (
        f"{billing.checked.subscriptions} vendors subscribed at the local Stripe, whose signed news made them active; "
        f"{billing.items} charges of {_dollars(billing.cents)} $ are on their bills there, each once."
    )


def _sales(report: Report) -> str:
    total = report.sales_total
    return (
        f"{total.purchases:,} logged purchases became {total.carts:,} carts and {total.orders:,} orders of "
        f"{report.products} products, for {_dollars(total.ordered_cents)} $.\n"
        f"{report.carts_with_ads:,} carts told of ads that their buyers had just seen; {total.credited_orders:,} "
        "orders are owed to one of those."
    )


def _books(orders: OrdersSummary) -> str:
    outcomes = ", ".join(f"{count:,} {status.replace('_', ' ')}" for status, count in orders.outcomes.items())
    out = (orders.paid_out_cents, orders.fee_cents, orders.due_cents)
    paid, fees, due = map(_dollars, out)
    same = "=" if sum(out) == orders.collected_cents else "is NOT"
    return (
        f"orders in the end: {outcomes}; {orders.nudged:,} vendors were nudged by the clock.\n"
        f"the books: {_dollars(orders.collected_cents)} $ collected {same} {paid} $ paid to vendors + {fees} $ fees + "
        f"{due} $ still due; {orders.ledger_events:,} ledger events, every chain and sum checked."
    )


def _sales_table(report: Report) -> Table:
    table = Table(title="Purchases, replayed", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for n, heading in enumerate(SALES_HEADINGS):
        table.add_column(heading, justify="left" if n < 1 else "right", no_wrap=True)
    for day, line in report.sales.items():
        table.add_row(day.isoformat(), *_sales_cells(line))
    table.add_row("total", *_sales_cells(report.sales_total), style="bold")
    return table


def _sales_cells(line: SalesLine) -> list[str]:
    counts = (line.purchases, line.carts, line.orders, line.units)
    credited = (f"{line.credited_orders:,}", _dollars(line.credited_cents))
    return [*(f"{count:,}" for count in counts), _dollars(line.ordered_cents), *credited]


def _dollars(cents: int) -> str:
    return f"{cents // 100:,}.{cents % 100:02}"


def _table(report: Report) -> Table:
    table = Table(title="Page views, replayed", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for n, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if n < 2 else "right", no_wrap=True)
    for day, places in groupby(report.lines, key=lambda place: place.day):
        _add_day(table, day, [(place.placement, report.lines[place]) for place in places])
    table.add_row("total", "", *_cells(report.total), style="bold")
    return table


def _add_day(table: Table, day: date, placements: Iterable[tuple[str, Line]]) -> None:
    total = Line()
    for placement, line in placements:
        total += line
        if placement:
            table.add_row(day.isoformat(), placement, *_cells(line))
    table.add_row(day.isoformat(), "all", *_cells(total), style="bold", end_section=True)


def _cells(line: Line) -> list[str]:
    counts = (line.views, line.served, line.budget_exhausted, line.no_candidates, line.gate_closed)
    return [
        *(f"{count:,}" for count in (*counts, line.impressions, line.clicks)),
        f"{line.spend_micros // 1_000_000:,}.{line.spend_micros % 1_000_000:06}",
        _dollars(line.charged_cents),
        f"{line.differences:,}",
    ]
