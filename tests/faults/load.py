"""People who sell, buy and look: a market on the public HTTP routes, a bounded load, and what the answers said."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import httpx

from models.database import make_engine, make_sessions
from models.stores import writes as stores
from models.stores.rules import KycStatus
from tests.faults.system import System, until

PASSWORD: Final = "correct horse battery"
ADDRESS: Final = {"line1": "1 Main St", "city": "Portland", "state": "OR", "postal_code": "97201", "country": "US"}
PLACEMENTS: Final = ("home", "category", "search")
VENDORS: Final = 3
BUYERS: Final = 4
SMALL: Final = (20_000, 300)  #: bid and budget in cents: 15 impressions a day
ODD: Final = (333, 177)  #: a budget that its price does not divide
LARGE: Final = (125, 10_000_000)
VISITORS: Final = 6  #: who look at pages at the same time
PAUSE_S: Final = 0.02  #: of a visitor between two pages
TRIES_S: Final = 20.0  #: how long a visitor insists on an answer
LOAD_S: Final = 90.0  #: the longest that a test waits for its load
LOOK_BACK_S: Final = 1_200  #: pages are asked for as of up to so long ago: many minutes are open at once

# httpx gives each of these another name; all mean that the answer is lost, and what it was about perhaps not.
LOST: Final = (httpx.TransportError,)


@dataclass(frozen=True)
class Event:
    """An impression or click whose token was sent."""

    jti: bytes
    ad_id: UUID
    kind: str
    cost_micros: int
    day: date


def event_of(token: str) -> Event:
    """What a token says, unverified: the server verifies it."""
    body = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    day = datetime.fromtimestamp(claims["iat"], UTC).date()
    return Event(UUID(claims["jti"]).bytes, UUID(claims["ad_id"]), claims["kind"], claims["cost_micros"], day)


@dataclass
class Tally:
    """What the answers said. An event that was sent and not accepted may be counted or not, but once at most."""

    sent: dict[bytes, Event] = field(default_factory=dict)
    accepted: set[bytes] = field(default_factory=set)
    serves: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)

    @property
    def unknown(self) -> set[bytes]:
        return self.sent.keys() - self.accepted


@dataclass
class Person:
    email: str
    store_id: UUID | None
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"}


class Market:
    """Vendors with ads of very different budgets, buyers, and an administrator who moves the clock."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.vendors: list[Person] = []
        self.buyers: list[Person] = []
        self.admin = Person("", None, "")
        self.budgets_micros: dict[UUID, int] = {}
        self.stores: dict[UUID, UUID] = {}  #: ad → store

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        limits = httpx.Limits(max_connections=4 * VISITORS, max_keepalive_connections=4 * VISITORS)
        async with httpx.AsyncClient(base_url=self.system.api, timeout=15.0, limits=limits) as http:
            yield http

    async def open(self) -> None:
        """Register everyone and make the ads."""
        async with self.client() as http:
            self.admin = await self._register_admin(http)
            self.vendors = [await self._register(http, "vendor", n) for n in range(VENDORS)]
            self.buyers = [await self._register(http, "buyer", n) for n in range(BUYERS)]
            await self._let_sell()
            for vendor in self.vendors:
                for placement in PLACEMENTS:
                    for bid, budget in (SMALL, ODD, LARGE, LARGE):
                        await self._make_ad(http, vendor, placement, bid, budget)

    async def _register_admin(self, http: httpx.AsyncClient) -> Person:
        body = {"email": "admin@example.test", "password": PASSWORD}
        data = _data(await http.post("/api/admin/auth/register", json=body), 201)
        return Person(body["email"], None, data["tokens"]["access_token"])

    async def _register(self, http: httpx.AsyncClient, kind: str, number: int) -> Person:
        body = {
            "email": f"{kind}{number}@example.test",
            "password": PASSWORD,
            "first_name": "Ada",
            "last_name": "Lovelace",
            "store": {"name": f"{kind} {number}", "type": kind, "address": ADDRESS},
        }
        data = _data(await http.post("/api/v1/auth/register", json=body), 201)
        return Person(f"{kind}{number}@example.test", UUID(data["store"]["id"]), data["tokens"]["access_token"])

    async def _let_sell(self) -> None:
        engine = make_engine(self.system.settings.sqlalchemy_url, pool_size=1, application="test")
        try:
            async with make_sessions(engine).begin() as tx:
                for vendor in self.vendors:
                    assert vendor.store_id is not None
                    now = datetime.now(UTC)
                    await stores.set_kyc(tx, vendor.store_id, KycStatus.VERIFIED, actor="test", now=now)
                    await stores.set_subscription(tx, vendor.store_id, True, actor="test", now=now)
        finally:
            await engine.dispose()

    async def _make_ad(
        self, http: httpx.AsyncClient, vendor: Person, placement: str, bid_cents: int, budget_cents: int
    ) -> None:
        body = {
            "name": "ad",
            "placement": placement,
            "target_type": "store",
            "bid_cpm_cents": bid_cents,
            "daily_budget_cents": budget_cents,
            "starts_at": "2020-01-01T00:00:00Z",
            "headline": "look",
        }
        ad = _data(await http.post("/api/v1/vendor/ads", json=body, headers=vendor.headers), 201)
        path = f"/api/v1/vendor/ads/{ad['id']}"
        _data(await http.patch(path, json={"status": "active"}, headers=vendor.headers), 200)
        assert vendor.store_id is not None
        self.budgets_micros[UUID(ad["id"])] = budget_cents * 10_000
        self.stores[UUID(ad["id"])] = vendor.store_id

    async def sign_in_again(self) -> None:
        """Sessions live in Redis: after a loss everyone has to sign in."""
        async with self.client() as http:
            body = {"email": self.admin.email, "password": PASSWORD}
            self.admin.token = _data(await http.post("/api/admin/auth/login", json=body))["tokens"]["access_token"]
            for person in (*self.vendors, *self.buyers):
                body = {"email": person.email, "password": PASSWORD}
                person.token = _data(await http.post("/api/v1/auth/login", json=body))["tokens"]["access_token"]

    async def move_clock(self, to: datetime) -> None:
        """Move business time; the watermarks follow (`System.watermarks_passed`)."""
        async with self.client() as http:
            body = {"now": to.isoformat().replace("+00:00", "Z")}
            _data(await http.post("/api/admin/ops/clock", json=body, headers=self.admin.headers), 200)

    async def next_morning(self) -> date:
        """Go to six o'clock of the next day that nothing was counted on; the day."""
        morning = (await self.system.now()).replace(hour=6, minute=0, second=0, microsecond=0) + timedelta(days=1)
        await self.move_clock(morning)
        await self.system.watermarks_passed(morning)
        await self.system.all_gates_open()
        return morning.date()

    async def live(self, http: httpx.AsyncClient, ad_id: UUID) -> dict[str, Any]:
        """An ad's live counters, as its vendor sees them."""
        vendor = next(v for v in self.vendors if v.store_id == self.stores[ad_id])
        found: dict[str, Any] = _data(await http.get(f"/api/v1/vendor/ads/{ad_id}/live", headers=vendor.headers), 200)
        return found


def _data(response: httpx.Response, status: int = 200) -> Any:
    assert response.status_code == status, response.text
    return response.json()["data"]


class Load:
    """Visitors who open pages, see ads and click on some; some tokens are sent twice, some answers insisted on."""

    def __init__(self, market: Market, tally: Tally, *, seed: int = 1) -> None:
        self._market, self.tally = market, tally
        self._random = random.Random(seed)
        self._stop = asyncio.Event()
        self._held: list[str] = []
        self.hold = 0.0  #: the share of impression tokens that are kept for `use_held`

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Load]:
        """Load until the block ends; all visitors have left then, each with what answer there was."""
        self._stop.clear()
        base = await self._market.system.now()
        async with self._market.client() as http:
            visitors = [asyncio.create_task(self._visit(http, base)) for _ in range(VISITORS)]
            try:
                yield self
            finally:
                self._stop.set()
                await asyncio.gather(*visitors)

    async def use_held(self, *, share: float = 1.0, gone: bool = False) -> None:
        """Send a share of the tokens that were kept back; `gone`: they have expired, and the answers say so."""
        count = round(share * len(self._held))
        used, self._held = self._held[:count], self._held[count:]
        async with self._market.client() as http:
            for token in used:
                if gone:
                    answer = await http.post("/ads/impression", json={"token": token})
                    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_token"), answer.text
                else:
                    await self._impression(http, token)

    @property
    def held(self) -> int:
        return len(self._held)

    async def goes_on(self, events: int = 60) -> None:
        """Wait until so many more events are durable, however slow the machine is."""
        wanted = len(self.tally.accepted) + events

        async def reached() -> bool:
            return len(self.tally.accepted) >= wanted

        await until(f"{events} more events", reached, timeout_s=LOAD_S)

    async def holds(self, tokens: int) -> None:
        """Wait until so many tokens are kept back."""

        async def reached() -> bool:
            return self.held >= tokens

        await until(f"{tokens} tokens kept back", reached, timeout_s=LOAD_S)

    async def serve(self, http: httpx.AsyncClient, *, as_of: datetime | None = None) -> dict[str, Any] | None:
        """One page: the answer's data, None when there is no answer; both are tallied."""
        buyer = self._random.choice(self._market.buyers)
        headers = dict(buyer.headers)
        if as_of is not None:
            headers["X-Now"] = as_of.isoformat().replace("+00:00", "Z")
        placement = self._random.choice(PLACEMENTS)
        try:
            answer = await http.get("/ads/serve", params={"placement": placement}, headers=headers)
        except LOST:
            self.tally.serves["lost"] += 1
            return None
        if answer.status_code != 200:
            self.tally.serves[str(answer.status_code)] += 1
            return None
        data: dict[str, Any] = answer.json()["data"]
        self.tally.serves["served" if data["ad"] else data["reason"]] += 1
        return data

    async def _visit(self, http: httpx.AsyncClient, base: datetime) -> None:
        while not self._stop.is_set():
            as_of = base - timedelta(seconds=self._random.randrange(LOOK_BACK_S))
            page = await self.serve(http, as_of=as_of)
            if page is None:
                await asyncio.sleep(0.1)
            elif page["ad"] is not None:
                await self._look(http, page)
            await asyncio.sleep(PAUSE_S)

    async def _look(self, http: httpx.AsyncClient, page: dict[str, Any]) -> None:
        chance = self._random.random()
        if chance < self.hold:
            self._held.append(page["impression_token"])
            return
        if chance < 0.9:
            await self._impression(http, page["impression_token"])
        else:  # twice at the same time
            await asyncio.gather(*(self._impression(http, page["impression_token"]) for _ in range(2)))
        if self._random.random() < 0.2:
            await self._click(http, page["click_url"])

    async def _impression(self, http: httpx.AsyncClient, token: str) -> None:
        event = event_of(token)
        await self._send(event, http.build_request("POST", "/ads/impression", json={"token": token}), http)

    async def _click(self, http: httpx.AsyncClient, url: str) -> None:
        event = event_of(httpx.URL(url).params["token"])
        await self._send(event, http.build_request("GET", url), http)

    async def _send(self, event: Event, request: httpx.Request, http: httpx.AsyncClient) -> None:
        """Half of the visitors insist on an answer, the others go away without one."""
        insists = self._random.random() < 0.5
        deadline = asyncio.get_running_loop().time() + TRIES_S
        self.tally.sent[event.jti] = event
        while True:
            outcome = await self._try(event, request, http)
            if outcome or not insists or asyncio.get_running_loop().time() > deadline:
                return
            await asyncio.sleep(0.2)

    async def _try(self, event: Event, request: httpx.Request, http: httpx.AsyncClient) -> bool:
        """Whether the answer says that the event is durable."""
        try:
            answer = await http.send(request)
        except LOST:
            self.tally.answers[f"{event.kind} lost"] += 1
            return False
        said = answer.json()["data"]["status"] if answer.status_code == 202 else str(answer.status_code)
        self.tally.answers[f"{event.kind} {said}"] += 1
        durable = answer.status_code == (202 if event.kind == "impression" else 302)
        if durable:
            self.tally.accepted.add(event.jti)
        else:
            assert answer.status_code >= 500, f"{event.kind}: {answer.status_code} {answer.text}"
        return durable
