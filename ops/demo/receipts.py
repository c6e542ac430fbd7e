"""The demo's own books of what was bought, and how they are held against the file and the system's orders. Pure.

Nothing here is shared with the code that it checks: what is due comes from the logged amounts and the prices that the
demo has set; which ad an order is owed to is worked out anew from the tokens that its cart carried.
"""

from __future__ import annotations

import base64
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, NamedTuple

from ops.demo.books import Difference, both_ways
from ops.demo.purchases import Basket


class AdSeen(NamedTuple):
    """What a token says, unverified: the server verifies it."""

    token: str
    kind: str
    target_id: str
    iat: int
    jti: str


class OrderKey(NamedTuple):
    """One checkout and vendor."""

    group: str
    vendor: str


class OrderFacts(NamedTuple):
    """What is known of an order: goods, units, and the ad that led to it."""

    day: date
    buyer: str
    total_cents: int
    units: int
    ad_event: str | None  #: the token's jti


@dataclass(frozen=True, slots=True)
class StoredSales:
    """What Postgres has of orders and events."""

    orders: Mapping[OrderKey, OrderFacts]
    unlike: Sequence[str]  #: orders that are not the sum of their lines, or whose intent is not their total
    told: Counter[str]  #: `checkout_converted` events by group


@dataclass(slots=True)
class Receipts:
    """What the answers said; `shelves` as they were filled."""

    shelves: dict[str, int] = field(default_factory=dict)
    orders: dict[OrderKey, OrderFacts] = field(default_factory=dict)
    bought: list[Basket] = field(default_factory=list)
    with_ads: int = 0  #: carts that carried tokens
    wrong: list[Difference] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def take(
        self,
        basket: Basket,
        done: Mapping[str, Any],
        *,
        due: Mapping[str, int],
        units: Mapping[str, int],
        ads: Sequence[AdSeen],
    ) -> None:
        """A checkout was answered; `due` and `units` are what each vendor should have got."""
        self.bought.append(basket)
        self.with_ads += bool(ads)
        for order in done["vendor_orders"]:
            key = OrderKey(done["checkout_group_id"], order["vendor_store_id"])
            frozen = order["attribution"]
            found = (order["total_cents"], sum(line["quantity"] for line in order["line_items"]))
            self._compare("answer: cents, units", key, (due.get(key.vendor), units.get(key.vendor)), found, basket)
            expected = credited(ads, key.vendor)
            self._compare("answer: ad", key, expected, frozen and frozen["jti"], basket)
            self.orders[key] = OrderFacts(basket.day, order["buyer_store_id"], *found, expected)
        vendors = sorted(order["vendor_store_id"] for order in done["vendor_orders"])
        key = OrderKey(done["checkout_group_id"], "")
        self._compare("answer: vendors", key, sorted(due), vendors, basket)
        self._compare("answer: total", key, sum(due.values()), done["total_cents"], basket)
        self._compare("answer: rejected vendors", key, [], done["rejected_vendors"], basket)

    def _compare(self, level: str, key: OrderKey, expected: object, found: object, basket: Basket) -> None:
        if expected != found:
            self.wrong.append(Difference(level, " ".join(key).strip(), expected, found, basket.day))


def seen_in(token: str) -> AdSeen:
    """The claims of an ad's token."""
    body = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return AdSeen(token, claims["kind"], claims["target_id"], claims["iat"], claims["jti"])


def credited(ads: Iterable[AdSeen], vendor: str) -> str | None:
    """The event that an order of the vendor is owed to: a click before a view, then the newest, then the smallest."""
    for kind in ("click", "impression"):
        of_kind = [ad for ad in ads if ad.kind == kind and ad.target_id == vendor]
        if of_kind:
            newest = max(ad.iat for ad in of_kind)
            return min(ad.jti for ad in of_kind if ad.iat == newest)
    return None


def check_sales(baskets: Sequence[Basket], receipts: Receipts, stored: StoredSales) -> list[Difference]:
    """The file against the orders; each order in both directions; one event a checkout."""
    return [
        *receipts.wrong,
        *(Difference("checkouts", failure, "a checkout", None) for failure in receipts.failures),
        *_file(baskets, stored),
        *both_ways("orders", receipts.orders, stored.orders),
        *(Difference("intents and lines", order, "the order's total", "not so") for order in stored.unlike),
        *both_ways("checkout events", Counter({key.group: 1 for key in receipts.orders}), stored.told),
    ]


def _file(baskets: Sequence[Basket], stored: StoredSales) -> Iterable[Difference]:
    """Units and cents of each day, added up from the file's rows and from the system's orders."""
    logged: dict[date, Counter[str]] = defaultdict(Counter)
    ordered: dict[date, Counter[str]] = defaultdict(Counter)
    for basket in baskets:
        for row in basket.rows:
            logged[basket.day].update(units=row.quantity, cents=row.amount_cents)
    for order in stored.orders.values():
        ordered[order.day].update(units=order.units, cents=order.total_cents)
    for day in sorted(logged.keys() | ordered.keys()):
        for what in ("units", "cents"):
            if logged[day][what] != ordered[day][what]:
                yield Difference(f"{what} in the file = ordered", str(day), logged[day][what], ordered[day][what], day)


@dataclass(slots=True)
class SalesLine:
    """What was bought on one day, or on all."""

    purchases: int = 0
    carts: int = 0
    orders: int = 0
    units: int = 0
    ordered_cents: int = 0
    credited_orders: int = 0
    credited_cents: int = 0

    def __add__(self, other: SalesLine) -> SalesLine:
        return SalesLine(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


def sales_lines(receipts: Receipts, stored: StoredSales) -> dict[date, SalesLine]:
    """A line a day: rows and carts by our books, orders and money by the system's."""
    table: dict[date, SalesLine] = defaultdict(SalesLine)
    for basket in receipts.bought:
        table[basket.day] += SalesLine(purchases=len(basket.rows), carts=1)
    for order in stored.orders.values():
        by_ad = order.ad_event is not None
        table[order.day] += SalesLine(
            orders=1,
            units=order.units,
            ordered_cents=order.total_cents,
            credited_orders=by_ad,
            credited_cents=order.total_cents * by_ad,
        )
    return dict(sorted(table.items()))
