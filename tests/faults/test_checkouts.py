"""Checkouts while the API is killed and Redis loses everything: each happens once, wholly; and a race for the last."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any, Final

import pytest

from tests.faults.half_done import events_off, groups_of, half_done, stock_off
from tests.faults.shop import Person, Shop
from tests.faults.system import System, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CHECKOUTS: Final = 500
BUYERS: Final = 10
RETRIES: Final = 8
FAULTS: Final = 10  #: kills of the API and flushes of Redis, in turn
LOAD_S: Final = 500.0
RACERS: Final = 64
UNITS: Final = 100


class Checkouts:
    """Buyers who each fill carts and check each out by parallel retries; what the answers said, by cart."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self.told: dict[str, dict[str, Any]] = {}

    async def run(self, buyer: Person, count: int, seed: int) -> None:
        dice, products = random.Random(seed), list(self._shop.on_hand)
        for _ in range(count):
            items = [(product, dice.randint(1, 3)) for product in dice.sample(products, dice.randint(1, 4))]
            cart = await self._shop.quote(buyer, items)
            keys = [f"{cart['id']}-{n // 2}" for n in range(RETRIES)]  # each key has a twin
            answers = await asyncio.gather(*(self._shop.check_out(buyer, cart["id"], key=key) for key in keys))
            assert {answer.status_code for answer in answers} <= {200, 201}
            (done,) = {answer.text: answer.json()["data"] for answer in answers}.values()
            self.told[cart["id"]] = done


async def test_five_hundred_checkouts_by_eight_retries_each_happen_once_whatever_dies(system: System) -> None:
    shop = Shop(system, name="kills", vendors=3, buyers=BUYERS)
    async with shop.open(products=4, on_hand=100_000):
        checkouts = Checkouts(shop)
        load = asyncio.gather(
            *(checkouts.run(buyer, CHECKOUTS // BUYERS, seed) for seed, buyer in enumerate(shop.buyers))
        )
        harm = asyncio.create_task(do_harm(system, checkouts))
        await load
        faults = await harm
    buyers = [buyer.store_id for buyer in shop.buyers]
    groups = await groups_of(system, buyers)
    print(f"\n{faults}; {len(groups)} groups, {sum(map(len, groups.values()))} orders; {shop.answers}")
    assert len(checkouts.told) == len(groups) == CHECKOUTS
    for done in checkouts.told.values():
        assert groups[done["checkout_group_id"]] == {order["id"] for order in done["vendor_orders"]}
    assert await half_done(system, buyers) == {}
    assert await stock_off(system, shop.on_hand) == {}
    assert await events_off(system, groups) == {}
    assert shop.answers["lost"] > 0
    assert shop.answers["401 session_revoked"] > 0
    assert shop.answers["201 checkout replayed"] > 0


async def do_harm(system: System, checkouts: Checkouts) -> Counter[str]:
    """Faults spread over the load, each in the midst of it."""
    done = Counter[str]()
    for number in range(FAULTS):
        wanted = (number + 1) * CHECKOUTS // (FAULTS + 2)

        async def reached(wanted: int = wanted) -> bool:
            return len(checkouts.told) >= wanted

        await until(f"{wanted} checkouts", reached, timeout_s=LOAD_S)
        if number % 2:
            await system.redis("FLUSHALL")
            done["flushes"] += 1
        else:
            await system.back("api", await system.kill("api"))
            done["kills"] += 1
    return done


async def test_sixty_four_buyers_race_for_a_hundred_units_while_some_cancel(system: System) -> None:
    shop = Shop(system, name="race", vendors=2, buyers=RACERS)
    async with shop.open(products=1, on_hand=UNITS):
        a, b = shop.on_hand
        carts = await asyncio.gather(
            *(shop.quote(buyer, [(a, 3), (b, 2)] if n % 2 else [(b, 3), (a, 2)]) for n, buyer in enumerate(shop.buyers))
        )

        async def race(number: int) -> tuple[int, dict[str, Any] | None]:
            """Check out, and every third who got something cancels it at once."""
            buyer = shop.buyers[number]
            answer = await shop.check_out(buyer, carts[number]["id"])
            if answer.status_code == 409:
                assert answer.json()["code"] == "no_orderable_items"
                return number, None
            done: dict[str, Any] = answer.json()["data"]
            if number % 3 == 0:
                for order in done["vendor_orders"]:
                    gone = await shop.insist(buyer, "POST", f"/api/v1/orders/{order['id']}/cancel", {})
                    assert (gone.status_code, gone.json()["data"]["status"]) == (200, "canceled"), gone.text
            return number, done

        results = await asyncio.gather(*(race(number) for number in range(RACERS)))
    told = Counter[str]()
    for number, done in results:
        for order in done["vendor_orders"] if done else ():
            for line in order["line_items"]:
                assert line["status"] == "pending"  # a vendor's only line fails with its vendor
                told[line["product_id"]] += line["quantity"] * (number % 3 != 0)
    buyers = [buyer.store_id for buyer in shop.buyers]
    groups = await groups_of(system, buyers)
    print(f"\n{len(groups)} groups, left with {dict(told)} units; {shop.answers}")
    assert set(groups) == {done["checkout_group_id"] for _, done in results if done}
    assert await half_done(system, buyers) == {}
    assert await stock_off(system, shop.on_hand) == {}
    held = await system.rows("SELECT product_id::text, reserved FROM inventory WHERE reserved > 0 ORDER BY 1")
    assert {row[0]: row[1] for row in held if row[0] in shop.on_hand} == dict(told)
    assert max(told.values()) <= UNITS
    assert await events_off(system, groups) == {}
    assert any(done is None or done["rejected_vendors"] for _, done in results), "nobody came too late"
