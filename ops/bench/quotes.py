"""Quotes over HTTP against their own SQL, sent by the driver with no framework around it, in the same run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from models import idempotency
from models.cart import writes
from models.cart.writes import QuoteTerms
from models.database import Driver, new_id, savepoint
from models.idempotency import Answer, Use
from models.tenancy import Tenant
from ops.bench.http_client import post
from ops.bench.http_load import Load
from ops.bench.recorded_sql import Pace, Recorder, Transaction, recorder, replay
from ops.bench.results import Plan, Result, Rounds
from ops.bench.shop import QUANTITY, BenchShop, Buyer, shop
from ops.bench.shop_load import FULL, QUICK, Size, load, token_rules
from schemas.http.cart import NewQuote

NAME, BARE = "quotes", "quotes: bare SQL"
UNIT: Final = "quotes/s"
PATH: Final = "/api/v1/cart"
LINES: Final = 3
GROWING: Final = (1, 10, 30, 100)
ONE_BY_ONE: Final = 60
BUYERS: Final = 64
ANSWER_BYTES: Final = 2_500


async def run(plan: Plan) -> list[Result]:
    """Bare SQL and HTTP in turn, then HTTP at half of that; then one by one with more and more lines."""
    size, rounds = QUICK if plan.quick else FULL, Rounds()
    async with shop() as market, recorder(market.site) as tape:
        bench = Quotes(market, tape, size, await market.buyers(BUYERS))
        for n in range(size.rounds):
            bare = await bench.bare()
            full = await bench.http(LINES, None)
            half = await bench.http(LINES, full.requests_per_s / 2)
            rounds.add(BARE, bare.transactions_per_s, UNIT)
            rounds.add(NAME, full.requests_per_s, UNIT)
            rounds.add(f"{NAME}, full load: p99", full.p99_ms, "ms")
            for share, value in (("p50", half.p50_ms), ("p99", half.p99_ms)):
                rounds.add(f"{NAME}, half load: {share}", value, "ms")
            plan.say(
                f"quotes: round {n + 1} of {size.rounds}: {full.requests_per_s:,.0f} {UNIT}, bare SQL "
                f"{bare.transactions_per_s:,.0f}; p99 at full load {full.p99_ms:.1f} ms, at half {half.p99_ms:.1f} ms"
            )
        for lines in GROWING:
            took = await bench.one_by_one(lines)
            rounds.add(f"{NAME}: {lines} lines, one by one", took.p50_ms, "ms")
        await market.check()
    note = f"{LINES} lines of {LINES} vendors; synchronous_commit=on"
    found = [rounds.result(BARE), rounds.result(NAME, against=BARE, note=note)]
    under_load = ("full load: p99", "half load: p50", "half load: p99")
    found += [rounds.result(f"{NAME}, {what}") for what in under_load]
    return found + [rounds.result(f"{NAME}: {lines} lines, one by one") for lines in GROWING]


class Quotes:
    """Quotes of buyers in turn, each replacing the buyer's last."""

    def __init__(self, market: BenchShop, tape: Recorder, size: Size, buyers: Sequence[Buyer]) -> None:
        self._market, self._tape, self._size, self._buyers = market, tape, size, buyers
        settings = market.site.settings
        self._terms = QuoteTerms(settings.quote_ttl_s, token_rules(settings))

    async def http(self, lines: int, rate: float | None) -> Load:
        """Over HTTP, at saturation or at a rate."""
        size = self._size
        count = size.prepared if rate is None else int(rate * (size.warm_up_s + size.seconds)) + 1
        return await load(self._market, self._requests(lines, count), size, status=200, rate=rate)

    async def one_by_one(self, lines: int) -> Load:
        """Over one connection."""
        size = self._size._replace(connections=1, warm_up_s=0.1, seconds=20.0)
        return await load(self._market, self._requests(lines, ONE_BY_ONE), size, status=200, rate=None)

    async def bare(self) -> Pace:
        """What these quotes say to Postgres, without the rest."""
        size = self._size
        for buyer in self._buyers:  # the first quote makes the cart whose id the recorded ones have
            await self._tape.run(_tenant(buyer), self._quote(buyer))
        recorded = [await self._recorded(self._buyers[n % len(self._buyers)]) for n in range(size.prepared)]
        connections = self._market.site.settings.database_pool_size
        return await replay(
            self._market.site, recorded, connections=connections, warm_up_s=size.warm_up_s, seconds=size.seconds
        )

    async def _recorded(self, buyer: Buyer) -> Transaction:
        return await self._tape.record(_tenant(buyer), self._quote(buyer))

    def _quote(self, buyer: Buyer) -> Any:
        """As a request with an Idempotency-Key does it (api/idempotency.py)."""
        body = NewQuote.model_validate(self._body(LINES))

        async def command(db: Driver) -> None:
            now, use = datetime.now(UTC), Use(str(buyer.store_id), "POST", PATH, str(new_id()))
            await idempotency.begin(db, use, b"fingerprint", wall=now)
            async with savepoint(db):
                await writes.quote(db, body, self._terms, buyer_store_id=buyer.store_id, now=now)
            await idempotency.keep(db, use, Answer(200, "application/json", b"x" * ANSWER_BYTES))

        return command

    def _requests(self, lines: int, count: int) -> list[bytes]:
        body = self._body(lines)
        return [
            post(PATH, body, {"authorization": self._buyers[n % BUYERS].bearer, "idempotency-key": str(new_id())})
            for n in range(count)
        ]

    def _body(self, lines: int) -> dict[str, object]:
        items = [{"product_id": str(product), "quantity": QUANTITY} for product in self._market.products[:lines]]
        return {"items": items}


def _tenant(buyer: Buyer) -> Tenant:
    return Tenant(buyer.store_id, buyer.user_id)
