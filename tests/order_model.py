"""What an order should be: a model of its life, of what may be done to it next, and of what that leads to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from tests.api_driver import Person

HOLDING = {"pending", "accepted", "partially_accepted", "ready_for_dispatch"}
GONE = {"in_transit", "delivered", "closed"}
HOUR = timedelta(hours=1)


class Action(NamedTuple):
    """`line` is the place of the line that is decided."""

    verb: str
    line: int | None = None


@dataclass
class Line:
    id: str
    product: str
    quantity: int
    cents: int
    status: str = "pending"


@dataclass
class Life:
    """One order. `assigns`: what is ready is given to an agent at once."""

    id: str
    group: str
    buyer: Person
    vendor: Person
    lines: list[Line]
    method: str
    shipping_cents: int
    assigns: bool
    expires_at: datetime
    status: str = "pending"
    intent: str = "unpaid"
    agent: Person | None = None
    nudged_at: datetime | None = None
    confirmed: bool = False
    events: list[str] = field(default_factory=list)
    booked: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, order: dict[str, Any], buyer: Person, vendor: Person, *, assigns: bool) -> Life:
        """An order fresh from checkout."""
        names = ("id", "product_id", "quantity", "line_total_cents")
        lines = [Line(*(line[name] for name in names)) for line in order["line_items"]]
        return cls(
            id=order["id"],
            group=order["checkout_group_id"],
            buyer=buyer,
            vendor=vendor,
            lines=lines,
            method=order["payment_method"],
            shipping_cents=order["shipping_cents"],
            assigns=assigns,
            expires_at=datetime.fromisoformat(order["expires_at"]),
        )

    @property
    def total_cents(self) -> int:
        return self.shipping_cents + sum(line.cents for line in self.kept)

    @property
    def kept(self) -> list[Line]:
        return [line for line in self.lines if line.status != "rejected"]

    @property
    def reserved(self) -> Counter[str]:
        """What is held for it, by product."""
        return Counter({line.product: line.quantity for line in self.kept if self.status in HOLDING})

    @property
    def taken(self) -> Counter[str]:
        """What has left the shelf for it."""
        return Counter({line.product: line.quantity for line in self.kept if self.status in GONE})

    def possible(self, now: datetime) -> list[Action]:
        """What may be done to it, and changes it."""
        found: list[Action] = []
        if self.status == "pending":
            found += [Action("accept"), Action("reject")]
            undecided = [place for place, line in enumerate(self.lines) if line.status == "pending"]
            found += [Action(f"{verb} line", place) for verb in ("accept", "reject") for place in undecided]
            if self.nudged_at is None or now >= self.nudged_at + HOUR:
                found.append(Action("nudge"))
        if self.status in HOLDING:
            found.append(Action("cancel"))
        found += [Action(verb) for verb in self._onward()]
        if self.status in ("delivered", "closed") and not self.confirmed:
            found.append(Action("confirm-paid"))
        return found

    def onward(self, now: datetime) -> list[Action]:
        """Of what is possible that which leads to the payout."""
        verbs = self._onward() or ["accept"]
        return [action for action in self.possible(now) if action.verb in verbs]

    def _onward(self) -> list[str]:
        match self.status, self.intent:
            case ("accepted" | "partially_accepted", _):
                return ["fulfill"]
            case ("ready_for_dispatch", _):
                return ["pickup"] if self.agent else ["assign"]
            case ("in_transit", _):
                return ["deliver"]
            case ("delivered", "unpaid"):
                return ["cash-collected" if self.method == "cash" else "ach-settled"]
            case ("delivered", "settled"):
                return ["confirm"]
        return []

    def do(self, action: Action, *, agent: Person | None, now: datetime) -> None:
        """Become what a possible action makes of it; `agent` is who assigns themselves, or was assigned."""
        match action.verb:
            case "accept" | "reject" | "accept line" | "reject line":
                self._decide(action)
            case "nudge":
                self.nudged_at = now
                self.events.append("order_nudged")
            case "cancel":
                self.status, self.intent, self.agent = "canceled", "canceled", None
                self.events.append("order_canceled")
            case "fulfill":
                self.status, self.agent = "ready_for_dispatch", agent
                self.events += ["order_ready_for_dispatch", *(["order_assigned"] if agent else [])]
            case "assign":
                self.agent = agent
                self.events.append("order_assigned")
            case "pickup":
                self.status = "in_transit"
                self.events.append("order_in_transit")
            case "deliver":
                self.status = "delivered"
                self.events.append("order_delivered")
            case "cash-collected" | "ach-settled":
                self.intent = "settled"
                self._book(action.verb.replace("-", "_"))
            case "confirm":
                self.status, self.intent = "closed", "paid"
                self._book("vendor_payout", told="order_paid")
            case "confirm-paid":
                self.confirmed = True

    def expire(self, now: datetime) -> None:
        """What the clock does to it: expired, if nobody has decided it in time."""
        if self.status == "pending" and now >= self.expires_at:
            self.status, self.intent = "expired", "canceled"
            self.events.append("order_expired")

    def _book(self, kind: str, *, told: str | None = None) -> None:
        self.booked.append(kind)
        self.events.append(told or kind)

    def _decide(self, action: Action) -> None:
        verdict = f"{action.verb.split()[0]}ed"
        for place, line in enumerate(self.lines):
            if action.line == place or (action.line is None and (verdict == "rejected" or line.status == "pending")):
                line.status = verdict
        self.events.append("order_decided")
        states = {line.status for line in self.lines}
        if "pending" in states:
            return
        if states == {"rejected"}:
            self.status, self.intent = "rejected", "canceled"
        else:
            self.status = "accepted" if states == {"accepted"} else "partially_accepted"
