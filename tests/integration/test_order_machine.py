"""Orders from checkout to payout in whatever order is legal, with retries, crashes, and attempts at what is not.

After every step orders, intents, lines, stock, deliveries, the ledger and the outbox are what the model says, and at
the end of every run `ledger check` finds the books whole.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

import httpx
import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as profile
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from models.database import make_engine, make_sessions, new_id
from models.ledger import checking, sealing
from models.ledger.rules import fee_of
from models.orders import expiring
from ops.settings import Settings
from schemas.codec import decode
from tests.ads_driver import at
from tests.api_driver import Api, Person, created, ok, running
from tests.cart_shop import NOON, open_shop, quote, stock
from tests.checkout_driver import SHIPPING
from tests.checkout_driver import post as check_out
from tests.crashes import steps
from tests.delivery_driver import appoint
from tests.order_model import Action, Life

T = TypeVar("T")

ON_HAND = 1_000_000
FEE_BP = 137
LINES = ("accept line", "reject line")
OF_BUYER = ("cancel", "nudge")
OF_VENDOR = ("accept", "reject", *LINES, "fulfill", "confirm-paid")
OF_AGENT = ("assign", "pickup", "deliver", "cash-collected")
OF_ADMIN = ("ach-settled", "confirm")
HOW = ("once", "once", "twice", "replayed", "crash")
VERBS = (*OF_BUYER, *OF_VENDOR, *OF_AGENT, *OF_ADMIN)

ORDERS = """
SELECT o.id::text, o.status, o.total_cents, i.status AS intent, i.amount_cents, i.method,
  o.vendor_confirmed_paid_at IS NOT NULL AS confirmed,
  (SELECT array_agg(l.status ORDER BY l.position) FROM order_line_items l WHERE l.order_id = o.id) AS lines,
  (SELECT d.agent_id::text FROM delivery_assignments d WHERE d.order_id = o.id AND d.status <> 'canceled') AS agent,
  (SELECT array_agg(e.type ORDER BY e.sequence) FROM ledger_events e WHERE e.order_id = o.id) AS booked
FROM orders o JOIN payment_intents i ON i.order_id = o.id WHERE o.checkout_group_id = :group
"""
STOCK = "SELECT product_id::text, on_hand, reserved FROM inventory WHERE product_id = ANY (:products)"
TOLD = (
    "SELECT payload FROM outbox_events WHERE aggregatetype = 'orders' AND aggregateid = :group"
    " AND type <> 'checkout_converted' ORDER BY seq"
)


class World:
    """Two APIs on one database, of which one gives ready orders to agents; shops with products; people."""

    apis: dict[bool, Api]
    engine: AsyncEngine
    buyer: Person
    admin: Person
    vendors: list[Person]
    agents: list[Person]
    products: list[list[str]]

    def __init__(self, runner: asyncio.Runner) -> None:
        self.run_in = runner

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.run_in.run(coroutine)

    async def open(self, settings: Settings, stack: AsyncExitStack) -> None:
        self.apis = {
            assigns: await stack.enter_async_context(
                running(settings.model_copy(update={"auto_assign": assigns, "platform_fee_bp": FEE_BP}))
            )
            for assigns in (True, False)
        }
        api = self.apis[False]
        self.engine = make_engine(settings.sqlalchemy_url, pool_size=1, application="test")
        stack.push_async_callback(self.engine.dispose)
        self.buyer, self.admin = await api.register("buyer"), await api.register_admin()
        self.vendors = [await open_shop(api) for _ in range(2)]
        self.agents = [await appoint(api) for _ in range(2)]
        self.products = [
            [await stock(api, vendor, on_hand=ON_HAND, price_cents=cents) for cents in (1_000, 333)]
            for vendor in self.vendors
        ]

    async def rows(self, sql: str, **values: Any) -> list[Any]:
        async with self.engine.connect() as connection:
            return list(await connection.execute(text(sql), values))

    def agent(self, user_id: str | None) -> Person | None:
        return next((agent for agent in self.agents if agent.user["id"] == user_id), None)


@contextmanager
def world_of(settings: Settings) -> Iterator[World]:
    """A world with an event loop of its own: Hypothesis calls from outside of any."""
    with asyncio.Runner() as runner:
        world, stack = World(runner), AsyncExitStack()
        try:
            runner.run(world.open(settings, stack))
            yield world
        finally:
            runner.run(stack.aclose())


def request_of(world: World, life: Life, action: Action, agent: Person, cents: int) -> tuple[Person, str, Any]:
    """Who asks for an action, where, and with what body."""
    if action.verb in LINES:
        decision = {"line_item_id": life.lines[action.line or 0].id, "decision": action.verb.split()[0]}
        return life.vendor, f"/api/v1/vendor/orders/{life.id}/line-items/decision", {"decisions": [decision]}
    if action.verb in ("accept", "reject"):
        return life.vendor, f"/api/v1/vendor/orders/{life.id}/decision", {"decision": action.verb}
    if action.verb in OF_VENDOR:
        return life.vendor, f"/api/v1/vendor/orders/{life.id}/{action.verb}", None
    if action.verb in OF_BUYER:
        return life.buyer, f"/api/v1/orders/{life.id}/{action.verb}", None
    if action.verb in OF_AGENT:
        body = {"amount_cents": cents} if action.verb == "cash-collected" else None
        return agent, f"/api/v1/agent/orders/{life.id}/{action.verb}", body
    place = "orders" if action.verb == "ach-settled" else "payouts"
    return world.admin, f"/api/admin/{place}/{life.id}/{action.verb}", None


class Lives(RuleBasedStateMachine):
    """The orders of one checkout. Each step is a request, and perhaps its repetition."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.now = NOON
        self.lives: list[Life] = []
        self.products: list[str] = []

    # -- rules --------------------------------------------------------------------------------------------------------

    @initialize(
        quantities=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=2), min_size=1, max_size=2),
        method=st.sampled_from(["cash", "ach"]),
        shipping=st.sampled_from([None, SHIPPING]),
        assigns=st.booleans(),
        crash_at=st.none() | st.integers(0, 40),
    )
    def check_out(
        self, quantities: list[list[int]], method: str, shipping: Any, assigns: bool, crash_at: int | None
    ) -> None:
        pairs = [
            (product, quantity)
            for products, wanted in zip(self.world.products, quantities, strict=False)
            for product, quantity in zip(products, wanted, strict=False)
        ]
        self.products = [product for product, _ in pairs]
        self.before = self.world.run(self._stock())
        done = self.world.run(self._check_out(pairs, method, shipping, crash_at))
        vendors = {vendor.store["id"]: vendor for vendor in self.world.vendors}
        self.lives = [
            Life.of(order, self.world.buyer, vendors[order["vendor_store_id"]], assigns=assigns)
            for order in done["vendor_orders"]
        ]
        self._agree()

    async def _check_out(self, pairs: Any, method: str, shipping: Any, crash_at: int | None) -> Any:
        api, key = self.world.apis[False], str(new_id())
        cart = await quote(api, self.world.buyer, *pairs, now=self.now)
        more = {"payment_method": method, "shipping_line": shipping, "key": key, "now": self.now}
        if crash_at is not None:
            with steps([], crash_at=crash_at):
                await check_out(api, self.world.buyer, cart["id"], **more)
        return created(await check_out(api, self.world.buyer, cart["id"], **more))

    @rule(
        data=st.data(),
        what=st.sampled_from(["go on", "go on", "go on", "attempt", "wait"]),
        how=st.sampled_from(HOW),
        crash_at=st.integers(0, 30),
    )
    def step(self, data: st.DataObject, what: str, how: str, crash_at: int) -> None:
        """One rule for all: of several, Hypothesis leaves some out of most runs."""
        lives = [life for life in self.lives if life.possible(self.now)]
        if what == "go on" and lives:
            self._go_on(data, data.draw(st.sampled_from(lives)), how, crash_at)
        elif what == "wait":
            self._wait(data.draw(st.sampled_from([0.5, 1, 13, None])))
        else:
            self._attempt(data, data.draw(st.sampled_from(VERBS)), twice=how == "twice")

    def _go_on(self, data: st.DataObject, life: Life, how: str, crash_at: int) -> None:
        possible, onward = life.possible(self.now), life.onward(self.now)
        action = data.draw(st.sampled_from(onward if onward and data.draw(st.integers(0, 3)) else possible))
        agent = life.agent or data.draw(st.sampled_from(self.world.agents))
        if action.verb == "fulfill":
            agent = self._fulfil(life, how, crash_at)
        else:
            self._ask(life, action, agent, how, crash_at)
        takes = action.verb in ("assign", "fulfill")
        life.do(action, agent=agent if takes else None, now=self.now)
        self._agree()

    def _fulfil(self, life: Life, how: str, crash_at: int) -> Any:
        """Who has the order then, if anybody."""
        self._ask(life, Action("fulfill"), self.world.agents[0], how, crash_at)
        (row,) = self.world.run(self._rows_of(life))
        agent = self.world.agent(row.agent)
        assert (agent is not None) == life.assigns
        return agent

    def _attempt(self, data: st.DataObject, verb: str, *, twice: bool) -> None:
        """Something that is not possible: refused, or answered as before, and nothing changes."""
        life = data.draw(st.sampled_from(self.lives))
        action = Action(verb, data.draw(st.integers(0, len(life.lines) - 1)) if verb in LINES else None)
        agent, cents = data.draw(st.sampled_from(self.world.agents)), data.draw(st.sampled_from([-1, 0, 1]))
        if action in life.possible(self.now):
            wrong = (verb in ("pickup", "deliver") and agent is not life.agent) or (
                verb == "cash-collected" and (agent is not life.agent or cents)
            )
            if not wrong:
                return
        for _ in range(1 + twice):
            answer = self.world.run(self._send(life, action, agent, cents=life.total_cents + cents))
            assert answer.status_code in (200, 404, 409, 422, 429), answer.text
            if answer.status_code == 200:
                assert answer.json()["data"]["status"] == life.status
            elif answer.status_code == 409:
                assert life.status in answer.json()["detail"]
        self._agree()

    def _wait(self, hours: float | None) -> None:
        """Some hours; None: until midnight, when housekeeping seals the day. Overdue orders expire, asked for twice."""
        if hours is not None:
            self.now += timedelta(hours=hours)
        else:
            self.now = (self.now + timedelta(days=1)).replace(hour=0, minute=1)
            self.world.run(self._in_transaction(sealing.seal_days, limit=366, now=self.now, skew_s=5))
        for _ in range(2):
            ids = [UUID(life.id) for life in self.lives]
            self.world.run(self._in_transaction(expiring.expire, ids, actor="order_ttl", now=self.now))
        for life in self.lives:
            life.expire(self.now)
        self._agree()

    def teardown(self) -> None:
        if self.lives:
            self.world.run(self._check_books())

    # -- requests -----------------------------------------------------------------------------------------------------

    def _ask(self, life: Life, action: Action, agent: Person, how: str, crash_at: int) -> None:
        """What is possible succeeds, and asked for again gives the same answer."""
        self.world.run(self._asked(life, action, agent, how, crash_at))

    async def _asked(self, life: Life, action: Action, agent: Person, how: str, crash_at: int) -> None:
        key, seen = str(new_id()), list[str]()
        if how == "crash":
            with steps(seen, crash_at=crash_at):
                answer = await self._send(life, action, agent, key=key)
            if seen[-1] == "crash":
                assert answer.status_code == 500, answer.text
                answer = await self._send(life, action, agent, key=key)
        else:
            answer = await self._send(life, action, agent, key=key)
        order = ok(answer)
        if how == "replayed":
            again = await self._send(life, action, agent, key=key)
            assert (again.content, again.headers.get("idempotent-replayed")) == (answer.content, "true")
        if how == "twice" and action.verb != "nudge":
            assert ok(await self._send(life, action, agent)) == order

    async def _send(
        self, life: Life, action: Action, agent: Person, *, key: str | None = None, cents: int | None = None
    ) -> httpx.Response:
        amount = life.total_cents if cents is None else max(0, cents)
        person, path, body = request_of(self.world, life, action, agent, amount)
        headers = at(self.now) | {"idempotency-key": key or str(new_id())}
        async with self.world.apis[life.assigns].as_(person) as client:
            return await client.post(path, json=body, headers=headers)

    async def _in_transaction(self, command: Any, *args: Any, **more: Any) -> None:
        async with make_sessions(self.world.engine).begin() as tx:
            await command(tx, *args, **more)

    # -- what should be -----------------------------------------------------------------------------------------------

    def _agree(self) -> None:
        """Everything is as the model says."""
        self.world.run(self._agreed())

    async def _agreed(self) -> None:
        rows = {row.id: row for life in self.lives[:1] for row in await self._rows_of(life, whole_group=True)}
        told = await self._told()
        for life in self.lives:
            row = rows[life.id]
            assert (row.status, row.intent, row.method) == (life.status, life.intent, life.method)
            assert (row.total_cents, row.amount_cents) == (life.total_cents, life.total_cents)
            assert row.lines == [line.status for line in life.lines]
            assert row.agent == (life.agent.user["id"] if life.agent else None)
            assert (row.booked or []) == life.booked
            assert row.confirmed == life.confirmed
            assert told[life.id] == life.events
        reserved = sum((life.reserved for life in self.lives), Counter())
        taken = sum((life.taken for life in self.lives), Counter())
        after = await self._stock()
        for product, (on_hand, held) in self.before.items():
            assert after[product] == (on_hand - taken[product], held + reserved[product])

    async def _rows_of(self, life: Life, *, whole_group: bool = False) -> list[Any]:
        rows = await self.world.rows(ORDERS, group=UUID(life.group))
        return rows if whole_group else [row for row in rows if row.id == life.id]

    async def _told(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for row in await self.world.rows(TOLD, group=self.lives[0].group):
            event: Any = decode(row.payload)
            found[str(event.order.order_id)].append(event.event_type)
        return found

    async def _stock(self) -> dict[str, tuple[int, int]]:
        products = [UUID(product) for product in self.products]
        rows = await self.world.rows(STOCK, products=products)
        return {row.product_id: (row.on_hand, row.reserved) for row in rows}

    async def _check_books(self) -> None:
        """The ledger is whole, and what came in is what went out, or is still due."""
        async with make_sessions(self.world.engine).begin() as tx:
            await checking.one_moment(tx)
            found = await checking.check(tx)
        assert found.faults == []
        due, paid = await self.world.rows(
            "SELECT coalesce(sum(amount_cents) FILTER (WHERE status = s), 0) AS cents,"
            " array_agg(amount_cents) FILTER (WHERE status = s) AS each"
            " FROM payment_intents, unnest(ARRAY['settled', 'paid']) WITH ORDINALITY AS t(s, n) GROUP BY n ORDER BY n"
        )
        fees = sum(fee_of(cents, FEE_BP) for cents in paid.each or [])
        balances = found.balances
        assert (balances["vendor_payable"], balances["platform_fees"]) == (-due.cents, -fees)
        assert balances["cash"] + balances["bank"] == due.cents + fees


def drive(settings: Settings, *, runs: int, steps_a_run: int) -> None:
    """Run the machine."""
    with world_of(settings.model_copy(update={"rate_limit_scale": 1_000.0})) as world:
        machine = type("Machine", (Lives,), {"world": world})
        run_state_machine_as_test(
            machine,
            settings=profile(
                max_examples=runs,
                stateful_step_count=steps_a_run,
                deadline=None,
                phases=[
                    Phase.explicit,
                    Phase.generate,
                ],  # a failure is printed step by step; to shrink it takes minutes
                suppress_health_check=list(HealthCheck),
                print_blob=True,
            ),
        )


def test_orders_live_by_the_model(alone_settings: Settings) -> None:
    drive(alone_settings, runs=10, steps_a_run=25)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_orders_live_by_the_model_for_longer(alone_settings: Settings) -> None:
    drive(alone_settings, runs=40, steps_a_run=40)
