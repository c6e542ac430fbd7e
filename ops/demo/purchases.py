"""The purchases to replay: read from the fixture, moved into the demo's week, filled into carts. Pure but for the file.

A logged purchase says how many units it had and what they cost together, not what each cost. So the units are split
over at most two list prices whose sum is the logged amount, to the cent; what nothing was paid for is a free sample.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Final

from ops.demo.views import FIXTURES, WEEK

FILE: Final = FIXTURES / "purchases-sample.csv.gz"
FREE: Final = 0  #: the price of a free sample
LINES_MAX: Final = 100  #: of a cart


@dataclass(frozen=True, slots=True)
class Purchase:
    """One logged row."""

    day: date
    buyer: int
    quantity: int
    amount_cents: int


@dataclass(frozen=True, slots=True)
class Basket:
    """What one buyer store orders at once: units by list price, and the rows that they come from."""

    at: datetime
    store: int  #: which of the buyer stores
    units: Counter[int]
    rows: Sequence[Purchase]

    @property
    def day(self) -> date:
        """The UTC day of the demo's week."""
        return self.at.date()


@dataclass(slots=True)
class _Filling:
    units: Counter[int] = field(default_factory=Counter)
    rows: list[Purchase] = field(default_factory=list)


def read_purchases() -> list[Purchase]:
    """Every row, by day; rows of one day in the order of the file."""
    rows = csv.DictReader(io.StringIO(gzip.decompress(FILE.read_bytes()).decode()))
    found = [
        Purchase(date.fromisoformat(row["date"]), int(row["buyer"]), int(row["quantity"]), int(row["amount_cents"]))
        for row in rows
    ]
    return sorted(found, key=lambda row: row.day)


def evenly(rows: Sequence[Purchase], count: int) -> list[Purchase]:
    """So many of them, at least one, evenly spread."""
    kept = max(1, min(count, len(rows)))
    return [rows[n * len(rows) // kept] for n in range(kept)]


class PriceList:
    """The prices that single units were sold at, and how other amounts are made of them."""

    def __init__(self, rows: Iterable[Purchase]) -> None:
        self._prices = {row.amount_cents for row in rows if row.quantity == 1 and row.amount_cents}
        self._ordered = sorted(self._prices)
        self._known: dict[tuple[int, int], Counter[int]] = {}

    def split(self, quantity: int, amount_cents: int) -> Counter[int]:
        """Units by price that are `quantity` in all and cost exactly `amount_cents`.

        One price of the list if one will do, else the two of it that lie closest together, else two neighbours that
        are not on it.
        """
        key = quantity, amount_cents
        if key not in self._known:
            self._known[key] = self._split(quantity, amount_cents)
        return self._known[key]

    def _split(self, quantity: int, amount_cents: int) -> Counter[int]:
        price, rest = divmod(amount_cents, quantity)
        even = Counter({price: quantity - rest}) + Counter({price + 1: rest})
        if amount_cents == 0:
            return Counter({FREE: quantity})
        if rest == 0 and price in self._prices:
            return even
        pairs = [pair for fewer in range(1, quantity) for pair in self._pairs(fewer, quantity, amount_cents)]
        return min(pairs, key=lambda pair: (max(pair) - min(pair), min(pair)), default=even)

    def _pairs(self, fewer: int, quantity: int, amount_cents: int) -> Iterable[Counter[int]]:
        """`fewer` units of one price of the list, the others of another."""
        for price in self._ordered:
            other, rest = divmod(amount_cents - fewer * price, quantity - fewer)
            if rest == 0 and other in self._prices:
                yield Counter({price: fewer, other: quantity - fewer})


def _basket(store: int, filling: _Filling, moment: Callable[[Purchase], datetime]) -> Basket:
    return Basket(moment(filling.rows[-1]), store, filling.units, filling.rows)


def fill(rows: Sequence[Purchase], *, starts_at: datetime, stores: int, days: int = 7) -> list[Basket]:
    """The baskets of the first `days` days of the week that begins at `starts_at`, by time; each row is in one.

    The file's months are spread over the week. A buyer is always the same of the `stores`; what a store buys on one day
    of the week is one basket, ordered when its last row was.
    """
    prices, filled = PriceList(rows), list[Basket]()
    by_store: dict[tuple[date, int], _Filling] = defaultdict(_Filling)
    first, span = rows[0].day, (rows[-1].day - rows[0].day).days + 1

    def moment(row: Purchase) -> datetime:
        return starts_at + WEEK * (row.day - first).days / span

    for row in rows:
        if moment(row) >= starts_at + timedelta(days=days):
            break
        key = moment(row).date(), row.buyer % stores
        units = prices.split(row.quantity, row.amount_cents)
        if len(by_store[key].units | units) > LINES_MAX:
            filled.append(_basket(key[1], by_store.pop(key), moment))
        by_store[key].units.update(units)
        by_store[key].rows.append(row)
    filled += [_basket(store, one, moment) for (_, store), one in by_store.items()]
    return sorted(filled, key=lambda basket: basket.at)
