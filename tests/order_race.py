"""One order, and everybody who may do something to it, at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any
from uuid import UUID

import httpx

from models.database import SessionFactory
from models.orders import expiring
from tests.ads_driver import execute
from tests.api_driver import Api, Person
from tests.cart_shop import NOON, open_shop, quote, stock
from tests.checkout_driver import check_out
from tests.delivery_driver import appoint, carry
from tests.ledger_driver import confirm, entries
from tests.order_driver import Placed, ask, notices, read, told

ON_HAND = 1_000_000
FIRST, SECOND = 3, 2  #: what an order has of the two products
LATE = NOON + timedelta(days=2)  #: past the deadline, for the clock alone
FALLEN = ("rejected", "canceled", "expired")
CHAIN = ("accepted", "ready_for_dispatch", "in_transit", "delivered", "closed")
# The states in which an order's events may follow each other, nudges and the agent's assignment aside.
TOLD = {
    "order_decided": "accepted",
    "order_ready_for_dispatch": "ready_for_dispatch",
    "order_in_transit": "in_transit",
    "order_delivered": "delivered",
    "cash_collected": "delivered",
    "order_paid": "closed",
}


@dataclass
class Arena:
    """A shop with one agent, whose orders many want something of at once."""

    api: Api
    sessions: SessionFactory
    buyer: Person
    vendor: Person
    agent: Person
    admin: Person
    products: list[str]
    gone: int = 0  #: orders that were picked up
    ends: Counter[str] = field(default_factory=Counter)

    async def order(self, buyer: Person | None = None, *, turned: bool = False) -> Placed:
        """An order of both products; `turned`: the second one first."""
        buyer = buyer or self.buyer
        wanted = [(self.products[0], FIRST), (self.products[1], SECOND)]
        cart = await quote(self.api, buyer, *(wanted[::-1] if turned else wanted))
        order = (await check_out(self.api, buyer, cart))["vendor_orders"][0]
        return Placed(buyer, self.vendor, self.products, order)

    async def expire(self, *orders: Placed) -> int:
        """What the timer does when the deadlines have passed; how many of the orders it was in time for."""
        async with self.sessions.begin() as tx:
            ids = [UUID(one.id) for one in orders]
            return len((await expiring.expire(tx, ids, actor="clock", now=LATE)).done)


async def arena(api: Api, sessions: SessionFactory) -> Arena:
    vendor, buyer = await open_shop(api), await api.register("buyer")
    products = [await stock(api, vendor, on_hand=ON_HAND) for _ in range(2)]
    return Arena(api, sessions, buyer, vendor, await appoint(api), await api.register_admin(), products)


class Round:
    """All steps of one order's life by two hands each, and rivals who would end it, each at a moment of its own."""

    def __init__(self, ring: Arena, one: Placed, chance: Random) -> None:
        self.ring, self.one, self.chance = ring, one, chance
        self.answers: dict[str, list[httpx.Response]] = {}
        self.expired: list[int] = []

    async def run(self) -> None:
        last_s = self.chance.choice((0.0, 0.05, 0.4))
        rivals = [self.cancel, self.cancel, self.reject, self.expire, self.expire, self.nudge]
        self.chance.shuffle(rivals)
        tasks = [self.live(), self.live(), *(self.at_some_time(rival, last_s) for rival in rivals)]
        self.chance.shuffle(tasks)
        await asyncio.gather(*tasks)

    async def at_some_time(self, act: Callable[[], Awaitable[None]], last_s: float) -> None:
        await asyncio.sleep(self.chance.uniform(0, last_s))
        await act()

    async def live(self) -> None:
        """Accepted (as a whole or by lines), fulfilled, brought, paid: as far as it goes."""
        api, one, agent = self.ring.api, self.one, self.ring.agent
        if self.chance.random() < 0.5:
            self.keep("accept", await ask(api, one.vendor, one.id, "decision", {"decision": "accept"}))
        else:
            for line in one.lines:
                body = {"decisions": [{"line_item_id": line, "decision": "accept"}]}
                self.keep("accept", await ask(api, one.vendor, one.id, "line-items/decision", body))
        self.keep("fulfill", await ask(api, one.vendor, one.id, "fulfill"))
        for action in ("pickup", "deliver"):
            self.keep(action, await carry(api, agent, one.id, action))
        body = {"amount_cents": one.order["total_cents"]}
        self.keep("collect", await carry(api, agent, one.id, "cash-collected", body))
        self.keep("confirm", await confirm(api, self.ring.admin, one.id))

    async def cancel(self) -> None:
        self.keep("cancel", await ask(self.ring.api, self.one.buyer, self.one.id, "cancel"))

    async def reject(self) -> None:
        answer = await ask(self.ring.api, self.one.vendor, self.one.id, "decision", {"decision": "reject"})
        self.keep("reject", answer)

    async def nudge(self) -> None:
        self.keep("nudge", await ask(self.ring.api, self.one.buyer, self.one.id, "nudge"))

    async def expire(self) -> None:
        self.expired.append(await self.ring.expire(self.one))

    def keep(self, action: str, answer: httpx.Response) -> None:
        self.answers.setdefault(action, []).append(answer)

    # -- what must hold of it -----------------------------------------------------------------------------------------

    async def check(self) -> None:
        """One has won; nobody was told otherwise, and stock, money and events are those of the winner."""
        order = await read(self.ring.api, self.one.buyer, self.one.id)
        self.check_answers(order["status"])
        await self.check_story(order)
        await self.check_money(order)
        await self.check_stock(order)
        self.ring.ends[order["status"]] += 1

    def check_answers(self, status: str) -> None:
        for action, answers in self.answers.items():
            for answer in answers:
                refusal = None if answer.status_code == 200 else (answer.status_code, answer.json()["code"])
                # An agent's steps are about nothing before the order is theirs, nor behind a cancellation.
                assert refusal in (None, (409, "state_conflict"), (404, "not_found")), (action, answer.text)
                assert refusal != (404, "not_found") or action in ("pickup", "deliver", "collect", "confirm"), action
        won = {action for action, answers in self.answers.items() if any(one.status_code == 200 for one in answers)}
        assert ("cancel" in won) == (status == "canceled")
        assert ("reject" in won) == (status == "rejected")
        assert sum(self.expired) == (status == "expired")
        assert ("collect" in won) == ("confirm" in won) == (status == "closed")

    async def check_story(self, order: dict[str, Any]) -> None:
        """The events are one walk through the order's life, each step once, and end where the order is."""
        events = await told(self.ring.api, order)
        steps = [event for event in events if event.event_type not in ("order_nudged", "order_assigned")]
        walk = [event.order.status for event in steps if event.order.status != "pending"]
        kinds = Counter(event.event_type for event in steps if event.order.status != "pending")
        assert max(kinds.values(), default=0) == 1, kinds
        reached = [state for state in walk if state not in FALLEN]
        assert list(dict.fromkeys(reached)) == list(CHAIN[: len(set(reached))]), walk
        assert walk[-1] == order["status"], walk
        assert [state for state in walk[:-1] if state in FALLEN] == []
        for event in steps:
            assert event.order.status in (TOLD.get(event.event_type), "pending", *FALLEN), event.event_type
        heard = Counter(kind for _, kind in await notices(self.ring.api, order))
        assert heard["order_decided"] == (walk[0] in ("accepted", "rejected"))
        assert heard["order_canceled"] == (order["status"] == "canceled")
        assert heard["order_expired"] == 2 * (order["status"] == "expired")
        assert heard["payout_confirmed"] == heard["order_delivered"] == (order["status"] == "closed")

    async def check_money(self, order: dict[str, Any]) -> None:
        types = [entry[0] for entry in await entries(self.ring.api, order["id"])]
        paid = order["status"] == "closed"
        assert types == (["cash_collected", "vendor_payout"] if paid else [])
        assert order["payment_intent"]["status"] == ("paid" if paid else "canceled")

    async def check_stock(self, order: dict[str, Any]) -> None:
        self.ring.gone += order["status"] == "closed"
        rows = await execute(
            self.ring.api,
            "SELECT product_id, on_hand, reserved FROM inventory WHERE product_id = ANY (:ids)",
            ids=[UUID(product) for product in self.ring.products],
        )
        found = {str(row.product_id): (row.on_hand, row.reserved) for row in rows}
        for product, quantity in zip(self.ring.products, (FIRST, SECOND), strict=True):
            assert found[product] == (ON_HAND - self.ring.gone * quantity, 0)


async def run(ring: Arena, rounds: int, seed: int) -> None:
    """So many orders, one after the other; each race is checked before the next."""
    chance = Random(seed)
    for _ in range(rounds):
        race = Round(ring, await ring.order(), chance)
        await race.run()
        await race.check()
