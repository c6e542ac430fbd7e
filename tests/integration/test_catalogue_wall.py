"""The catalogue behind Postgres' own wall: what the API's role sees and changes for a store, whatever is asked."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from models.tenancy import Tenant
from tests.api_driver import Api, Person, created
from tests.catalogue import PROMOS, in_state, product, promo, seller, stock

TABLES = ("products", "inventory", "promos")
DEFINERS = [
    "selling_vendors",
    "products_for_quote",
    "promos_by_code",
    "available_qty",
    "reserve_stock",
    "release_stock",
    "take_stock",
]


def scoped(api: Api, person: Person) -> AbstractAsyncContextManager[AsyncSession]:
    """A transaction in which Postgres holds to the person's store."""
    tenant = Tenant(UUID(person.store["id"]), UUID(person.user["id"]))
    return api.services.transaction_for(lambda: tenant)


@pytest.fixture
async def vendor(api: Api) -> Person:
    """A vendor who may sell, with a product that is shown, one that is not, stock and a promo."""
    person = await seller(api, "NM")
    await stock(api, person, (await product(api, person))["id"], 5)
    await product(api, person, active=False)
    created(await api.as_(person).post(PROMOS, json=promo()))
    return person


async def counts(tx: AsyncSession, store_id: str) -> list[int]:
    """Rows of the store in each of the tables, as far as they are shown."""
    query = "SELECT count(*) FROM {} WHERE store_id = :store"
    return [await tx.scalar(text(query.format(table)), {"store": UUID(store_id)}) or 0 for table in TABLES]


async def test_a_store_is_shown_its_own_rows_and_of_others_only_products_on_sale_to_it(
    api: Api, vendor: Person
) -> None:
    near, far = await in_state(api, "buyer", "NM"), await in_state(api, "buyer", "TX")
    rival = await seller(api, "NM")
    for person, shown in ((vendor, [2, 2, 1]), (near, [1, 0, 0]), (rival, [1, 0, 0]), (far, [0, 0, 0])):
        async with scoped(api, person) as tx:
            assert await counts(tx, vendor.store["id"]) == shown
    async with api.services.transaction_for(lambda: None) as tx:
        assert await counts(tx, vendor.store["id"]) == [2, 2, 1]  # the service role


async def test_a_transaction_for_nobody_is_shown_nothing(api: Api, vendor: Person) -> None:
    async with api.services.sessions() as session:
        await session.execute(text("RESET ROLE"))
        assert await counts(session, vendor.store["id"]) == [0, 0, 0]


@pytest.mark.parametrize("table", TABLES)
async def test_no_store_changes_anothers_rows_or_makes_rows_for_it(api: Api, vendor: Person, table: str) -> None:
    near = await in_state(api, "buyer", "NM")
    values = {"theirs": UUID(vendor.store["id"]), "mine": UUID(near.store["id"])}
    async with scoped(api, near) as tx:
        changed = await tx.execute(text(f"UPDATE {table} SET store_id = :mine WHERE store_id = :theirs"), values)
        assert changed.rowcount == 0  # type: ignore[attr-defined]
    rival = await seller(api, "NM")
    await stock(api, rival, (await product(api, rival))["id"], 1)
    created(await api.as_(rival).post(PROMOS, json=promo()))
    values["mine"] = UUID(rival.store["id"])
    with pytest.raises(DBAPIError, match="row-level security"):
        async with scoped(api, rival) as tx:
            await tx.execute(text(f"UPDATE {table} SET store_id = :theirs WHERE store_id = :mine"), values)
    with pytest.raises(DBAPIError, match="permission denied"):
        async with scoped(api, rival) as tx:
            await tx.execute(text(f"DELETE FROM {table} WHERE store_id = :mine"), values)


async def test_functions_that_look_beyond_a_store_are_for_the_two_roles_alone_on_a_path_of_their_own(api: Api) -> None:
    query = """
        SELECT proname, array_to_string(proconfig, ',') LIKE 'search_path=public, pg_temp' AS pinned,
               proacl IS NULL OR EXISTS (SELECT FROM aclexplode(proacl) WHERE grantee = 0) AS open_to_all
        FROM pg_proc WHERE prosecdef AND proname = ANY (:names)
    """
    async with scoped(api, await api.register("buyer")) as tx:
        found = {
            row.proname: (row.pinned, row.open_to_all) for row in await tx.execute(text(query), {"names": DEFINERS})
        }
        assert found == dict.fromkeys(DEFINERS, (True, False))
