"""A vendor's promo codes, and what a cart gets for one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from models.catalog import reads
from models.database import new_id
from models.tenancy import Tenant
from tests.api_driver import Api, Person, created, fields, problem
from tests.catalogue import PROMOS, audited, ids, listing, promo

NOON = datetime(2027, 3, 1, 12, tzinfo=UTC)


async def made(api: Api, vendor: Person, **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = created(await api.as_(vendor).post(PROMOS, json=promo(**changes)))
    return found


async def test_new_promo_is_listed_until_it_is_deleted_and_both_are_audited(api: Api) -> None:
    vendor = await api.register("vendor")
    body = promo(code=" Spring10 ", starts_at="2027-03-01T02:00:00+02:00", ends_at="2027-04-01T00:00:00Z")
    one = created(await api.as_(vendor).post(PROMOS, json=body))
    assert one == body | {
        "id": one["id"],
        "code": "Spring10",
        "starts_at": "2027-03-01T00:00:00Z",
        "created_at": one["created_at"],
    }
    assert await listing(api, vendor, PROMOS) == [one]
    two = await made(api, vendor, code="FIVER", type="amount", value=500)
    assert (two["starts_at"], two["ends_at"]) == (None, None)
    assert await ids(api, vendor, PROMOS, limit=1) == [two["id"], one["id"]]
    assert (await api.as_(vendor).delete(f"{PROMOS}/{one['id']}")).status_code == 204
    problem(await api.as_(vendor).delete(f"{PROMOS}/{one['id']}"), 404, "not_found")
    assert await ids(api, vendor, PROMOS) == [two["id"]]
    actor = f"user:{vendor.user['id']}"
    assert [entry[:2] for entry in await audited(api, one["id"])] == [
        (actor, "promo.created"),
        (actor, "promo.deleted"),
    ]


async def test_bad_promo_is_refused_by_field(api: Api) -> None:
    vendor = await api.register("vendor")
    for changes, field in (
        ({"code": "  "}, "code"),
        ({"code": "x" * 65}, "code"),
        ({"code": None}, "code"),
        ({"type": "gift"}, "type"),
        ({"value": 0}, "value"),
        ({"value": -5}, "value"),
        ({"value": 10_001}, "body"),
        ({"type": "amount", "value": 1_000_000_001}, "value"),
        ({"value": 10**30}, "value"),
        ({"value": "5"}, "value"),
        ({"starts_at": "2027-01-01T00:00:00"}, "starts_at"),
        ({"ends_at": "soon"}, "ends_at"),
        ({"starts_at": "2027-01-02T00:00:00Z", "ends_at": "2027-01-02T00:00:00Z"}, "body"),
        ({"uses": 3}, "uses"),
    ):
        answer = await api.as_(vendor).post(PROMOS, json=promo(**changes))
        assert fields(problem(answer, 422, "validation_failed")) == {field}, changes
    assert await listing(api, vendor, PROMOS) == []


async def test_a_store_has_a_code_once_in_whatever_case_and_again_after_deletion(api: Api) -> None:
    vendor, other = await api.register("vendor"), await api.register("vendor")
    first = await made(api, vendor, code="Spring10")
    problem(await api.as_(vendor).post(PROMOS, json=promo(code="sPRING10")), 409, "already_exists")
    await made(api, other, code="Spring10")
    assert (await api.as_(vendor).delete(f"{PROMOS}/{first['id']}")).status_code == 204
    await made(api, vendor, code="SPRING10")


async def test_promos_are_the_vendors_own(api: Api) -> None:
    vendor, other, buyer = await api.register("vendor"), await api.register("vendor"), await api.register("buyer")
    path = f"{PROMOS}/{(await made(api, vendor))['id']}"
    problem(await api.as_(other).delete(path), 404, "not_found")
    problem(await api.as_(vendor).delete(f"{PROMOS}/{new_id()}"), 404, "not_found")
    for method, url, body in (("DELETE", path, None), ("GET", PROMOS, None), ("POST", PROMOS, promo())):
        problem(await api.as_(buyer).request(method, url, json=body), 403, "forbidden")
        problem(await api.http.request(method, url, json=body), 401, "unauthenticated")
    assert await listing(api, other, PROMOS) == []


async def test_a_cart_gets_the_promos_of_the_named_vendors_that_are_in_force(api: Api) -> None:
    vendor, other, buyer = await api.register("vendor"), await api.register("vendor"), await api.register("buyer")
    now = await made(api, vendor, code="Now", type="amount", value=300)
    starts = await made(api, vendor, code="Starts", starts_at="2027-03-01T12:00:00Z")
    await made(api, vendor, code="Later", starts_at="2027-03-01T12:00:01Z")
    await made(api, vendor, code="Over", ends_at="2027-03-01T12:00:00Z")
    gone = await made(api, vendor, code="Gone")
    await made(api, other, code="Theirs")
    assert (await api.as_(vendor).delete(f"{PROMOS}/{gone['id']}")).status_code == 204
    store, foreign = UUID(vendor.store["id"]), UUID(other.store["id"])
    asked = [(store, code) for code in ("now", " STARTS", "later", "over", "gone", "theirs", "none")]
    tenant = Tenant(UUID(buyer.store["id"]), UUID(buyer.user["id"]))
    async with api.services.transaction_for(lambda: tenant) as tx:
        found = await reads.promos_for(tx, [*asked, (foreign, "now")], now=NOON)
        assert await reads.promos_for(tx, [], now=NOON) == {}
    assert {key: (str(one.id), one.code, one.type, one.value) for key, one in found.items()} == {
        (store, "now"): (now["id"], "Now", "amount", 300),
        (store, " STARTS"): (starts["id"], "Starts", "percent", 1000),
    }
