"""Vendors, products and buyers on the public HTTP routes, and buyers who insist on an answer whatever is killed."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid4

import httpx

from models.database import make_engine, make_sessions
from models.stores import writes as stores
from models.stores.rules import KycStatus
from tests.api_driver import ADDRESS, PASSWORD, registration
from tests.catalogue import INVENTORY, PRODUCTS, draft
from tests.faults.system import System

INSISTS_S: Final = 90.0  #: how long a buyer tries to get an answer
PAUSE_S: Final = 0.2
CONNECTIONS: Final = 128
LOST: Final = (httpx.TransportError,)
AT_ONCE: Final = 4  #: sign-ups: each costs a hash


@dataclass
class Person:
    """Someone with a store, who signs in again when their session is lost."""

    email: str
    store_id: str
    token: str
    signing_in: asyncio.Lock = field(default_factory=asyncio.Lock)


class Shop:
    """`answers` counts what came back, finally or on the way there."""

    def __init__(self, system: System, *, name: str, vendors: int, buyers: int) -> None:
        self._system, self._name = system, name
        self._sizes = vendors, buyers
        self.vendors: list[Person] = []
        self.buyers: list[Person] = []
        self.on_hand: dict[str, int] = {}  #: by product
        self.answers: Counter[str] = Counter()

    @asynccontextmanager
    async def open(self, *, products: int, on_hand: int) -> AsyncIterator[Shop]:
        """Everyone is there, each vendor with so many products, of each of which there is so much."""
        limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
        async with httpx.AsyncClient(base_url=self._system.api, timeout=15.0, limits=limits) as self._http:
            vendors, buyers = self._sizes
            room = asyncio.Semaphore(AT_ONCE)
            self.vendors = await asyncio.gather(*(self._register(room, "vendor", n) for n in range(vendors)))
            self.buyers = await asyncio.gather(*(self._register(room, "buyer", n) for n in range(buyers)))
            await self._let_sell()
            for vendor in self.vendors:
                for n in range(products):
                    await self._stock(vendor, price_cents=1_000 + 37 * n, on_hand=on_hand)
            yield self

    async def _register(self, room: asyncio.Semaphore, kind: str, number: int) -> Person:
        email = f"{self._name}-{kind}-{number}@example.test"
        async with room:
            answer = await self._http.post("/api/v1/auth/register", json=registration(kind) | {"email": email})
        data = answer.raise_for_status().json()["data"]
        return Person(email, data["store"]["id"], data["tokens"]["access_token"])

    async def _let_sell(self) -> None:
        engine, now = (
            make_engine(self._system.settings.sqlalchemy_url, pool_size=1, application="test"),
            datetime.now(UTC),
        )
        try:
            async with make_sessions(engine).begin() as tx:
                for vendor in self.vendors:
                    await stores.set_kyc(tx, UUID(vendor.store_id), KycStatus.VERIFIED, actor="test", now=now)
                    await stores.set_subscription(tx, UUID(vendor.store_id), True, actor="test", now=now)
        finally:
            await engine.dispose()

    async def _stock(self, vendor: Person, *, price_cents: int, on_hand: int) -> None:
        product = (await self.insist(vendor, "POST", PRODUCTS, draft(price_cents=price_cents))).json()["data"]["id"]
        answer = await self.insist(vendor, "PUT", f"{INVENTORY}/{product}", {"on_hand": on_hand})
        assert answer.status_code == 200, answer.text
        self.on_hand[product] = on_hand

    async def quote(self, buyer: Person, items: Sequence[tuple[str, int]]) -> dict[str, Any]:
        """The cart that a quote makes."""
        wanted = [{"product_id": product, "quantity": quantity} for product, quantity in items]
        answer = await self.insist(buyer, "POST", "/api/v1/cart", {"items": wanted})
        assert answer.status_code == 200, answer.text
        cart: dict[str, Any] = answer.json()["data"]
        return cart

    async def check_out(self, buyer: Person, cart_id: str, *, key: str | None = None) -> httpx.Response:
        body = {"cart_id": cart_id, "shipping_address": ADDRESS, "payment_method": "cash"}
        return await self.insist(buyer, "POST", "/api/v1/checkout", body, key=key)

    async def insist(
        self, person: Person, method: str, path: str, body: Any, *, key: str | None = None
    ) -> httpx.Response:
        """The final answer: neither a lost one, nor a 5xx, nor a session that was lost, nor a twin under way."""
        deadline, key = time.monotonic() + INSISTS_S, key or str(uuid4())
        while True:
            token, answer = person.token, None
            headers = {"authorization": f"Bearer {token}", "idempotency-key": key}
            try:
                answer = await self._http.request(method, path, json=body, headers=headers)
            except LOST:
                self.answers["lost"] += 1
            else:
                replayed = " replayed" if "idempotent-replayed" in answer.headers else ""
                code = answer.json().get("code", "") if answer.status_code >= 400 else path.split("/")[3]
                self.answers[f"{answer.status_code} {code}{replayed}"] += 1
                if answer.status_code == 401:
                    await self._sign_in(person, token)
                elif answer.status_code < 500 and code != "idempotency_in_progress":
                    return answer
            assert time.monotonic() < deadline, f"{method} {path}: {answer and answer.text}"
            await asyncio.sleep(PAUSE_S)

    async def _sign_in(self, person: Person, lost: str) -> None:
        """Once for all of the person's requests that have lost this token."""
        async with person.signing_in:
            if person.token != lost:
                return
            try:
                answer = await self._http.post("/api/v1/auth/login", json={"email": person.email, "password": PASSWORD})
            except LOST:
                return
            if answer.status_code == 200:
                person.token = answer.json()["data"]["tokens"]["access_token"]
