"""Stock: what a vendor sets, and what orders reserve, give back and take."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.exc import DBAPIError

from models.catalog import reads, writes
from models.database import new_id
from models.tenancy import Tenant
from schemas.records import InventoryChanged, ProductChanged
from tests.api_driver import Api, Person, fields, ok, problem
from tests.catalogue import INVENTORY, audited, listing, product, published, rows, stock


def key(value: str | None = None) -> dict[str, str]:
    return {"Idempotency-Key": value or str(new_id())}


async def test_stock_is_what_the_vendor_sets_and_setting_it_again_changes_nothing(api: Api) -> None:
    vendor = await api.register("vendor")
    made = await product(api, vendor)
    said = {"product_id": made["id"], "on_hand": 7, "reserved": 0, "available": 7}
    assert await stock(api, vendor, made["id"], 7) == said
    assert await stock(api, vendor, made["id"], 7) == said
    [entry] = [one for one in await audited(api, made["id"]) if one[1] != "product.created"]
    assert entry == (f"user:{vendor.user['id']}", "inventory.set", {"on_hand": [0, 7]})
    created, changed = await published(api, made["id"])
    assert isinstance(created, ProductChanged)
    assert isinstance(changed, InventoryChanged)
    assert (changed.on_hand_before, changed.on_hand, changed.reserved) == (0, 7, 0)
    assert (str(changed.product_id), str(changed.store_id)) == (made["id"], vendor.store["id"])


async def test_key_is_required_and_a_repeat_gets_the_stored_answer(api: Api) -> None:
    vendor = await api.register("vendor")
    path = f"{INVENTORY}/{(await product(api, vendor))['id']}"
    client = api.as_(vendor)
    problem(await client.put(path, json={"on_hand": 1}), 400, "idempotency_key_missing")
    first = await client.put(path, json={"on_hand": 1}, headers=key("a"))
    ok(await client.put(path, json={"on_hand": 2}, headers=key("b")))
    again = await client.put(path, json={"on_hand": 1}, headers=key("a"))
    assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
    assert [one["on_hand"] for one in await listing(api, vendor, INVENTORY)] == [2]
    problem(await client.put(path, json={"on_hand": 3}, headers=key("a")), 422, "idempotency_key_reused")


async def test_bad_stock_is_refused(api: Api) -> None:
    vendor = await api.register("vendor")
    path = f"{INVENTORY}/{(await product(api, vendor))['id']}"
    for value in (-1, 1_000_000_001, 10**30, "5", 1.5, True, None):
        answer = await api.as_(vendor).put(path, json={"on_hand": value}, headers=key())
        assert fields(problem(answer, 422, "validation_failed")) == {"on_hand"}, value
    for body, field in (({}, "on_hand"), ({"on_hand": 1, "reserved": 0}, "reserved")):
        answer = await api.as_(vendor).put(path, json=body, headers=key())
        assert fields(problem(answer, 422, "validation_failed")) == {field}


async def test_stock_is_the_vendors_own(api: Api) -> None:
    vendor, other, buyer = await api.register("vendor"), await api.register("vendor"), await api.register("buyer")
    path = f"{INVENTORY}/{(await product(api, vendor))['id']}"
    problem(await api.as_(other).put(path, json={"on_hand": 1}, headers=key()), 404, "not_found")
    problem(await api.as_(vendor).put(f"{INVENTORY}/{new_id()}", json={"on_hand": 1}, headers=key()), 404, "not_found")
    for headers in ({}, key()):
        problem(await api.as_(buyer).put(path, json={"on_hand": 1}, headers=headers), 403, "forbidden")
    problem(await api.as_(buyer).get(INVENTORY), 403, "forbidden")
    problem(await api.http.get(INVENTORY), 401, "unauthenticated")
    assert await listing(api, other, INVENTORY) == []


async def test_list_has_every_product_with_its_summary_page_by_page(api: Api) -> None:
    vendor = await api.register("vendor")
    made = [await product(api, vendor, title=f"No. {n}", active=n > 1) for n in range(5)]
    await stock(api, vendor, made[3]["id"], 9)
    listed = await listing(api, vendor, INVENTORY, limit=2)
    assert [line["product_id"] for line in listed] == [one["id"] for one in reversed(made)]
    line = listed[1]
    assert line == {
        "product_id": made[3]["id"],
        "on_hand": 9,
        "reserved": 0,
        "available": 9,
        "product": {
            name: made[3][name] for name in ("id", "sku", "title", "category", "unit", "price_cents", "active")
        },
        "updated_at": line["updated_at"],
    }


# -- what orders do ---------------------------------------------------------------------------------------------------


class Desk:
    """Orders of a buyer's store: each command in a transaction that Postgres holds to that store."""

    def __init__(self, api: Api, buyer: Person) -> None:
        self._api = api
        self._tenant = Tenant(UUID(buyer.store["id"]), UUID(buyer.user["id"]))

    def transaction(self) -> Any:
        return self._api.services.transaction_for(lambda: self._tenant)

    async def reserve(self, demand: dict[str, int]) -> set[str]:
        async with self.transaction() as tx:
            return {str(one) for one in await writes.reserve(tx, _by_id(demand))}

    async def release(self, demand: dict[str, int]) -> set[str]:
        async with self.transaction() as tx:
            return {str(one) for one in await writes.release(tx, _by_id(demand))}

    async def take(self, demand: dict[str, int]) -> set[str]:
        async with self.transaction() as tx:
            return {str(one) for one in await writes.take(tx, _by_id(demand))}

    async def available(self, *product_ids: str) -> list[int]:
        async with self.transaction() as tx:
            found = await reads.available(tx, [UUID(one) for one in product_ids])
            return [found[UUID(one)] for one in product_ids]


def _by_id(demand: dict[str, int]) -> dict[UUID, int]:
    return {UUID(product_id): quantity for product_id, quantity in demand.items()}


async def stocked(api: Api, vendor: Person, *on_hand: int) -> list[str]:
    """Products of which so many are there."""
    made = [(await product(api, vendor))["id"] for _ in on_hand]
    for product_id, count in zip(made, on_hand, strict=True):
        await stock(api, vendor, product_id, count)
    return made


async def counts(api: Api, product_id: str) -> tuple[int, int]:
    """On hand, reserved."""
    [row] = await rows(api, "SELECT on_hand, reserved FROM inventory WHERE product_id = :id", id=UUID(product_id))
    return row.on_hand, row.reserved


@pytest.fixture
async def vendor(api: Api) -> Person:
    return await api.register("vendor")


@pytest.fixture
async def desk(api: Api) -> Desk:
    return Desk(api, await api.register("buyer"))


async def test_reservation_takes_each_quantity_whole_or_not_at_all(api: Api, vendor: Person, desk: Desk) -> None:
    enough, short, none = await stocked(api, vendor, 5, 2, 0)
    unknown = str(new_id())
    assert await desk.reserve({enough: 5, short: 3, none: 1, unknown: 1}) == {short, none, unknown}
    assert [await counts(api, one) for one in (enough, short, none)] == [(5, 5), (2, 0), (0, 0)]
    assert await desk.available(enough, short, none) == [0, 2, 0]
    assert await desk.reserve({enough: 1, short: 2}) == {enough}
    assert await desk.reserve({}) == set()


async def test_release_gives_back_and_pickup_takes_both_down(api: Api, vendor: Person, desk: Desk) -> None:
    one, two = await stocked(api, vendor, 10, 10)
    await desk.reserve({one: 6, two: 4})
    assert await desk.release({one: 2, two: 5}) == {two}
    assert await desk.take({one: 3, two: 5}) == {two}
    assert [await counts(api, product_id) for product_id in (one, two)] == [(7, 1), (10, 4)]
    assert await desk.available(one, two) == [6, 6]
    assert await desk.release({str(new_id()): 1}) != set()


async def test_set_stock_cannot_fall_below_what_is_reserved(api: Api, vendor: Person, desk: Desk) -> None:
    [one] = await stocked(api, vendor, 10)
    await desk.reserve({one: 6})
    client, path = api.as_(vendor), f"{INVENTORY}/{one}"
    assert (
        "6 are reserved"
        in problem(await client.put(path, json={"on_hand": 5}, headers=key()), 409, "state_conflict")["detail"]
    )
    said = ok(await client.put(path, json={"on_hand": 6}, headers=key()))
    assert said == {"product_id": one, "on_hand": 6, "reserved": 6, "available": 0}


async def test_many_orders_at_once_never_reserve_more_than_is_there_and_do_not_deadlock(
    api: Api, vendor: Person, desk: Desk
) -> None:
    one, two, three = await stocked(api, vendor, 7, 7, 7)
    demands = [dict.fromkeys(order, 1) for order in ((one, two, three), (three, two, one), (two, three, one))] * 6
    failed = await asyncio.gather(*(desk.reserve(demand) for demand in demands))
    assert [await counts(api, product_id) for product_id in (one, two, three)] == [(7, 7)] * 3
    assert sum(len(products) for products in failed) == 3 * (len(demands) - 7)


@pytest.mark.parametrize("quantity", [0, -1])
async def test_a_quantity_that_is_none_is_an_error_of_ours(api: Api, vendor: Person, desk: Desk, quantity: int) -> None:
    [one] = await stocked(api, vendor, 5)
    for command in (desk.reserve, desk.release, desk.take):
        with pytest.raises(DBAPIError, match="needs one quantity above zero"):
            await command({one: quantity})
    assert await counts(api, one) == (5, 0)


@pytest.mark.parametrize(
    "change", ["reserved = on_hand + 1", "reserved = -1", "on_hand = -1", "on_hand = reserved - 1"]
)
async def test_the_table_itself_refuses_what_cannot_be(api: Api, vendor: Person, change: str) -> None:
    [one] = await stocked(api, vendor, 5)
    with pytest.raises(DBAPIError, match="ck_inventory_reserved"):
        await rows(api, f"UPDATE inventory SET {change} WHERE product_id = :id", id=UUID(one))
