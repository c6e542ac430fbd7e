"""What happens to the demo's orders, through the public routes: vendors decide, agents deliver, an admin pays out."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any, Final

from ops.demo.client import Api, UnexpectedAnswer
from ops.demo.courses import DELIVERED, Course, Errand, OrderBook, errand_of
from ops.demo.opening import Account, each
from ops.demo.progress import Progress

AGENTS: Final = 4
DECIDED_AFTER: Final = timedelta(minutes=2)
PACKED_AFTER: Final = timedelta(minutes=5)
DELIVERED_AFTER: Final = timedelta(minutes=45)
PAGE: Final = 100


class Trade:
    """Vendors by their store, agents, and the book of all orders."""

    def __init__(self, vendors: Mapping[str, Account], *, first_day: date) -> None:
        self.book = OrderBook()
        self._vendors = vendors
        self._first_day = first_day
        self._agents: list[str] = []
        self._on_the_way: dict[str, Errand] = {}

    async def appoint_agents(self, api: Api) -> None:
        """Delivery agents, who sign in without a store."""
        for number in range(AGENTS):
            person = {"first_name": "Agent", "last_name": str(number)}
            account = {"email": f"agent-{number}@demo.test", "password": secrets.token_urlsafe(24)}
            await api.as_admin("POST", "/api/admin/agents", 201, json=account | person)
            self._agents.append(await api.sign_in(**account))

    async def take(self, api: Api, buyer: Account, orders: list[dict[str, Any]], placed_at: datetime) -> None:
        """A checkout has made orders: their vendors say what they say, and pack what is to be delivered."""
        for order in orders:
            errand = errand_of(order, placed_at, first_day=self._first_day)
            self.book.errands.append(errand)
            vendor = self._vendors[order["vendor_store_id"]]
            try:
                await self._decide(api, buyer, vendor, errand)
            except UnexpectedAnswer as exc:
                self.book.failures.append(f"{errand.id}: {exc}")

    async def _decide(self, api: Api, buyer: Account, vendor: Account, errand: Errand) -> None:
        if errand.course is Course.IGNORED:
            return
        path, now = f"/api/v1/vendor/orders/{errand.id}", errand.placed_at + DECIDED_AFTER
        refused = errand.refused_line
        if refused is not None:
            ruling = {"line_item_id": refused.id, "decision": "reject", "reason": "sold out in the shop"}
            await api.act(vendor.token, f"{path}/line-items/decision", now, {"decisions": [ruling]})
        decision = "reject" if errand.course is Course.REJECTED else "accept"
        await api.act(vendor.token, f"{path}/decision", now, {"decision": decision})
        if errand.course is Course.CANCELED:
            await api.act(buyer.token, f"/api/v1/orders/{errand.id}/cancel", now, {"reason": "ordered twice"})
        if errand.course in DELIVERED:
            await api.act(vendor.token, f"{path}/fulfill", errand.placed_at + PACKED_AFTER, None)
            self._on_the_way[errand.id] = errand

    async def deliver(self, api: Api, progress: Progress) -> None:
        """Each agent brings what was assigned to them and collects; bank transfers are settled by the administrator."""
        with progress.stage(f"delivering {len(self._on_the_way)} orders, collecting", len(self._on_the_way)) as advance:
            routes = await asyncio.gather(*(self._assigned(api, agent) for agent in self._agents))
            legs = [(agent, id_) for agent, ids in zip(self._agents, routes, strict=True) for id_ in ids]

            async def bring(leg: tuple[str, str]) -> None:
                agent, order_id = leg
                try:
                    await self._bring(api, agent, self._on_the_way.pop(order_id))
                except (UnexpectedAnswer, KeyError) as exc:
                    self.book.failures.append(f"{order_id}: {exc!r}")

            await each(legs, bring, advance)
        self.book.failures += [f"{order_id}: no agent has it" for order_id in self._on_the_way]

    async def _assigned(self, api: Api, agent: str) -> list[str]:
        rows = await api.pages(agent, f"/api/v1/agent/assignments?status=assigned&limit={PAGE}")
        return [row["order_id"] for row in rows]

    async def _bring(self, api: Api, agent: str, errand: Errand) -> None:
        path, now = f"/api/v1/agent/orders/{errand.id}", errand.placed_at + DELIVERED_AFTER
        await api.act(agent, f"{path}/pickup", now, None)
        order = await api.act(agent, f"{path}/deliver", now, None)
        amount = order["total_cents"]
        if errand.method == "cash":
            await api.act(agent, f"{path}/cash-collected", now, {"amount_cents": amount})
        else:
            await api.as_admin("POST", f"/api/admin/orders/{errand.id}/ach-settled", 200, now=now)
        self.book.till.collected[errand.method] += amount

    async def pay_out(self, api: Api, progress: Progress) -> None:
        """Everything in the administrator's queue, but for what is to stay due."""
        rows = await api.pages(None, f"/api/admin/payouts?limit={PAGE}")
        stay = {errand.id for errand in self.book.errands if errand.course is Course.DUE}
        due = [row["order_id"] for row in rows if row["order_id"] not in stay]

        async def confirm(order_id: str) -> None:
            done = await api.as_admin("POST", f"/api/admin/payouts/{order_id}/confirm", 200)
            self.book.till.paid_out += done["payout_cents"]
            self.book.till.fees += done["platform_fee_cents"]
            self.book.till.orders_paid += 1

        with progress.stage(f"paying out {len(due)} orders", len(due)) as advance:
            await each(due, confirm, advance)
