"""Ads of products: the store's own, and served while the product is on sale."""

from __future__ import annotations

from datetime import timedelta

from tests.ads_driver import NOON, active_ad, create_ad, draft, open_gates, register_vendor, serve
from tests.api_driver import Api, Person, ok, problem
from tests.catalogue import PRODUCTS, product

ADS = "/api/v1/vendor/ads"


def of(product_id: str) -> dict[str, str]:
    return {"target_type": "product", "target_product_id": product_id}


async def test_ad_of_the_stores_own_product_is_made_and_one_of_any_other_is_not_found(api: Api) -> None:
    vendor, other = await api.register("vendor"), await api.register("vendor")
    own, foreign, gone = await product(api, vendor), await product(api, other), await product(api, vendor)
    assert (await api.as_(vendor).delete(f"{PRODUCTS}/{gone['id']}")).status_code == 204
    ad = await create_ad(api, vendor, **of(own["id"]))
    assert (ad["target_type"], ad["target_product_id"]) == ("product", own["id"])
    plain = await create_ad(api, vendor)
    for product_id in (foreign["id"], gone["id"]):
        problem(await api.as_(vendor).post(ADS, json=draft(**of(product_id))), 404, "not_found")
        problem(await api.as_(vendor).patch(f"{ADS}/{plain['id']}", json=of(product_id)), 404, "not_found")
    changed = ok(await api.as_(vendor).patch(f"{ADS}/{plain['id']}", json=of(own["id"])))
    assert changed["target_product_id"] == own["id"]


async def test_ad_is_served_while_its_product_is_on_sale(alone: Api) -> None:
    await open_gates(alone)
    vendor, buyer = await register_vendor(alone), await alone.register("buyer")
    made = await product(alone, vendor)
    ad = await active_ad(alone, vendor, **of(made["id"]))
    client, path = alone.as_(vendor), f"{PRODUCTS}/{made['id']}"
    shown = (await serve(alone, buyer))["ad"]
    assert (shown["ad_id"], shown["target_type"], shown["target_id"]) == (ad["id"], "product", made["id"])
    for active in (False, True, False, True):
        ok(await client.patch(path, json={"active": active}))
        assert await winner(alone, buyer) == (ad["id"] if active else None)
    assert (await client.delete(path)).status_code == 204
    assert await winner(alone, buyer) is None


async def test_product_that_is_not_on_sale_gives_its_place_to_the_next_bid(alone: Api) -> None:
    await open_gates(alone)
    vendor, buyer = await register_vendor(alone), await alone.register("buyer")
    made = await product(alone, vendor, active=False)
    await active_ad(alone, vendor, bid_cpm_cents=900, **of(made["id"]))
    lower = await active_ad(alone, vendor, bid_cpm_cents=100)
    assert await winner(alone, buyer) == lower["id"]


async def winner(api: Api, buyer: Person) -> str | None:
    ad = (await serve(api, buyer, now=NOON + timedelta(seconds=1)))["ad"]
    return None if ad is None else ad["ad_id"]
