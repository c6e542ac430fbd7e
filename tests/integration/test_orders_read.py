"""Orders as both sides read them: lists by perspective, status and time, page by page; nobody else's."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from models.database import new_id
from tests.api_driver import Api, Person, fields, ok, problem
from tests.cart_shop import NOON, open_shop, quote, stock
from tests.checkout_driver import check_out, look


async def orders(api: Api, buyer: Person, product: str, *after: timedelta) -> list[str]:
    """Orders placed so long after NOON, oldest first."""
    found = []
    for late in after:
        cart = await quote(api, buyer, product, now=NOON + late)
        found.append((await check_out(api, buyer, cart, now=NOON + late))["vendor_orders"][0]["id"])
    return found


def ids(answer: Any) -> list[str]:
    return [order["id"] for order in ok(answer)]


async def test_both_sides_list_their_orders_newest_first_page_by_page(api: Api) -> None:
    vendor, buyer = await open_shop(api), await api.register("buyer")
    placed = await orders(api, buyer, await stock(api, vendor), *[timedelta(0)] * 3, timedelta(hours=1))
    newest_first = placed[::-1]
    for person, perspective in ((buyer, "buyer"), (vendor, "vendor")):
        assert ids(await look(api, person)) == ids(await look(api, person, perspective=perspective)) == newest_first
        seen: list[str] = []
        cursor: dict[str, str] = {}
        while True:
            page = await look(api, person, limit="1", **cursor)
            seen += ids(page)
            if page.json()["meta"]["next_cursor"] is None:
                break
            cursor = {"cursor": page.json()["meta"]["next_cursor"]}
        assert seen == newest_first
    refused = problem(await look(api, vendor, status="pending", **cursor), 422, "validation_failed")
    assert fields(refused) == {"cursor"}


async def test_a_list_holds_what_its_filters_say(api: Api) -> None:
    vendor, buyer = await open_shop(api), await api.register("buyer")
    placed = await orders(api, buyer, await stock(api, vendor), timedelta(0), timedelta(days=1), timedelta(days=2))
    for params, expected in (
        ({"from": "2027-03-02"}, placed[1:]),
        ({"to": "2027-03-02"}, placed[:2]),
        ({"from": "2027-03-02", "to": "2027-03-02"}, placed[1:2]),
        ({"from": "2027-03-02T12:00:00Z", "to": "2027-03-03T12:00:00Z"}, placed[1:]),
        ({"from": "2027-03-02T12:00:01Z", "to": "2027-03-03T11:59:59Z"}, []),
        ({"to": "9999-12-31"}, placed),
        ({"status": "pending"}, placed),
        ({"status": "closed"}, []),
    ):
        assert ids(await look(api, buyer, **params)) == expected[::-1], params
    for params in ({"from": "yesterday"}, {"to": "2027-02-30"}, {"status": "lost"}, {"perspective": "admin"}):
        assert fields(problem(await look(api, buyer, **params), 422, "validation_failed")) == set(params)


async def test_an_order_is_there_for_its_two_stores_alone(api: Api) -> None:
    vendor, buyer = await open_shop(api), await api.register("buyer")
    (order,) = await orders(api, buyer, await stock(api, vendor), timedelta(0))
    for stranger in (await open_shop(api), await api.register("buyer")):
        problem(await look(api, stranger, f"/{order}"), 404, "not_found")
        assert ids(await look(api, stranger)) == []
    problem(await look(api, buyer, f"/{new_id()}"), 404, "not_found")
    problem(await look(api, buyer, perspective="vendor"), 403, "forbidden")
    problem(await look(api, vendor, perspective="buyer"), 403, "forbidden")
