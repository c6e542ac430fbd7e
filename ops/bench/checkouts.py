"""Checkouts over HTTP against their own SQL, sent by the driver with no framework around it, in the same run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from models import idempotency
from models.cart import writes as carts
from models.cart.writes import QuoteTerms
from models.checkout import writes
from models.checkout.writes import CheckoutTerms
from models.database import Driver, savepoint
from models.idempotency import Answer, Use
from models.tenancy import Tenant
from ops.bench.http_client import post
from ops.bench.http_load import Load
from ops.bench.marketplace import ADDRESS
from ops.bench.recorded_sql import Pace, Recorder, recorder, replay
from ops.bench.results import Plan, Result, Rounds
from ops.bench.shop import QUANTITY, BenchShop, Buyer, shop
from ops.bench.shop_load import FULL, QUICK, Size, load, token_rules
from schemas.http.cart import NewQuote
from schemas.http.orders import NewCheckout

NAME, BARE = "checkouts", "checkouts: bare SQL"
APART, APART_BARE = "checkouts of different products", "checkouts of different products: bare SQL"
UNIT: Final = "checkouts/s"
PATH: Final = "/api/v1/checkout"
LINES: Final = 3  #: of different vendors: three orders a checkout
GROWING: Final = (1, 10, 30, 100)
ONE_BY_ONE: Final = 60  #: checkouts of each size, one after the other
ANSWER_BYTES: Final = 4_000  #: of three orders, kept with the key


async def run(plan: Plan) -> list[Result]:
    """Bare SQL and HTTP in turn, then HTTP at half of that; then one by one with more and more lines.

    All carts have the same products, whose stock each checkout holds until it commits: they wait for each other. Then
    the same with carts that have nothing in common.
    """
    size, rounds = QUICK if plan.quick else FULL, Rounds()
    async with shop() as market, recorder(market.site) as tape:
        bench = Checkouts(market, tape, size)
        for n in range(size.rounds):
            bare = await bench.bare()
            full = await bench.http(None)
            half = await bench.http(full.requests_per_s / 2)
            rounds.add(BARE, bare.transactions_per_s, UNIT)
            rounds.add(NAME, full.requests_per_s, UNIT)
            for share, value in (("p50", half.p50_ms), ("p99", half.p99_ms)):
                rounds.add(f"{NAME}, half load: {share}", value, "ms")
            apart_bare, apart = await bench.bare(apart=True), await bench.http(None, apart=True)
            rounds.add(APART_BARE, apart_bare.transactions_per_s, UNIT)
            rounds.add(APART, apart.requests_per_s, UNIT)
            plan.say(
                f"checkouts: round {n + 1} of {size.rounds}: {full.requests_per_s:,.0f} {UNIT}, bare SQL "
                f"{bare.transactions_per_s:,.0f}; at half load p99 {half.p99_ms:.1f} ms; of different products "
                f"{apart.requests_per_s:,.0f}, bare SQL {apart_bare.transactions_per_s:,.0f}"
            )
        for lines in GROWING:
            took = await bench.one_by_one(lines)
            rounds.add(f"{NAME}: {lines} lines, one by one", took.p50_ms, "ms")
            plan.say(f"checkouts: {lines} lines: {took.p50_ms:.1f} ms")
        await market.check()
    note = f"{LINES} lines of {LINES} vendors; synchronous_commit=on; all orders, stock and events add up"
    found = [rounds.result(BARE), rounds.result(NAME, against=BARE, note=note)]
    found += [rounds.result(f"{NAME}, half load: {share}") for share in ("p50", "p99")]
    found += [rounds.result(APART_BARE), rounds.result(APART, against=APART_BARE)]
    return found + [rounds.result(f"{NAME}: {lines} lines, one by one") for lines in GROWING]


class Checkouts:
    """Checkouts of carts that are made beforehand, each of a buyer of its own."""

    def __init__(self, market: BenchShop, tape: Recorder, size: Size) -> None:
        self._market, self._tape, self._size = market, tape, size
        self._templates: dict[int, list[UUID]] = {}
        settings = market.site.settings
        self._terms = CheckoutTerms(settings.order_ttl_s, settings.order_nudge_s, token_rules(settings))

    async def http(self, rate: float | None, *, apart: bool = False) -> Load:
        """Over HTTP, at saturation or at a rate."""
        size = self._size
        count = size.prepared if rate is None else int(rate * (size.warm_up_s + size.seconds)) + 1
        requests = await self._requests(LINES, count, apart=apart)
        return await load(self._market, requests, size, status=201, rate=rate)

    async def one_by_one(self, lines: int) -> Load:
        """Over one connection."""
        requests = await self._requests(lines, ONE_BY_ONE)
        size = self._size._replace(connections=1, warm_up_s=0.1, seconds=20.0)
        return await load(self._market, requests, size, status=201, rate=None)

    async def bare(self, *, apart: bool = False) -> Pace:
        """What these checkouts say to Postgres, without the rest."""
        size = self._size
        buyers, made = await self._carts(LINES, size.prepared, apart=apart)
        recorded = []
        for buyer, cart_id in zip(buyers, made, strict=True):
            tenant = Tenant(buyer.store_id, buyer.user_id)
            recorded.append(await self._tape.record(tenant, self._command(tenant, cart_id)))
        connections = self._market.site.settings.database_pool_size
        return await replay(
            self._market.site, recorded, connections=connections, warm_up_s=size.warm_up_s, seconds=size.seconds
        )

    def _command(self, tenant: Tenant, cart_id: UUID) -> Callable[[Driver], Awaitable[None]]:
        """As a request with an Idempotency-Key does it (api/idempotency.py)."""
        body = NewCheckout.model_validate(_body(cart_id))

        async def command(db: Driver) -> None:
            now, use = datetime.now(UTC), Use(str(tenant.store_id), "POST", PATH, str(cart_id))
            await idempotency.begin(db, use, b"fingerprint", wall=now)
            async with savepoint(db):
                await writes.check_out(
                    db,
                    body,
                    self._terms,
                    buyer_store_id=tenant.store_id,
                    actor=f"user:{tenant.user_id}",
                    now=now,
                    render=id,
                )
            await idempotency.keep(db, use, Answer(201, "application/json", b"x" * ANSWER_BYTES))

        return command

    async def _requests(self, lines: int, count: int, *, apart: bool = False) -> list[bytes]:
        buyers, made = await self._carts(lines, count, apart=apart)
        return [
            post(PATH, _body(cart_id), {"authorization": buyer.bearer, "idempotency-key": str(cart_id)})
            for buyer, cart_id in zip(buyers, made, strict=True)
        ]

    async def _carts(self, lines: int, count: int, *, apart: bool = False) -> tuple[Sequence[Buyer], Sequence[UUID]]:
        if lines not in self._templates:
            every = self._market.products
            wanted = [every[n : n + lines] for n in range(0, len(every) - lines + 1, lines)]
            self._templates[lines] = [await self._template(products) for products in wanted]
        buyers = await self._market.buyers(count)
        templates = self._templates[lines]
        return buyers, await self._market.carts(templates if apart else templates[:1], buyers)

    async def _template(self, products: Sequence[UUID]) -> UUID:
        """A cart of these products, as a quote makes it."""
        (buyer,) = await self._market.buyers(1)
        items = [{"product_id": str(product), "quantity": QUANTITY} for product in products]
        body, terms = NewQuote.model_validate({"items": items}), QuoteTerms(900, self._terms.tokens)
        made: list[UUID] = []

        async def command(db: Driver) -> None:
            quoted = await carts.quote(db, body, terms, buyer_store_id=buyer.store_id, now=datetime.now(UTC))
            made.append(quoted.cart.id)

        await self._tape.run(Tenant(buyer.store_id, buyer.user_id), command)
        return made[0]


def _body(cart_id: UUID) -> dict[str, object]:
    return {"cart_id": str(cart_id), "shipping_address": ADDRESS, "payment_method": "cash"}
