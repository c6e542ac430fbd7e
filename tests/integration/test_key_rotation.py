"""Keys rotate: a new first key signs from now on, what older keys signed is good until they are taken away."""

from __future__ import annotations

from typing import Any

import httpx
import jwt

from ops.settings import Settings, parse_keys
from tests import cart_shop
from tests.ads_driver import NOON, active_ad, at, impression, open_gates, register_vendor, serve, status_of
from tests.api_driver import PASSWORD, Api, Person, created, new_email, ok, problem, running
from tests.catalogue import product

NEW = parse_keys("new:" + "A" * 44)
ME = "/api/v1/stores/me"
REFRESH = "/api/v1/auth/refresh"
ACCEPT = "/api/v1/auth/accept-invite"


def with_keys(settings: Settings, name: str, *, older: bool) -> Settings:
    """The settings after the new key was put first; without `older`, after the others were taken away."""
    return settings.model_copy(update={name: NEW | (getattr(settings, name) if older else {})})


def kid_of(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])


async def me(api: Api, token: str) -> httpx.Response:
    return await api.http.get(ME, headers={"authorization": f"Bearer {token}"})


async def first_page(api: Api, vendor: Person) -> str:
    """The cursor of the second page of two products."""
    for _ in range(2):
        await product(api, vendor)
    page = await api.as_(vendor).get("/api/v1/vendor/products", params={"limit": 1})
    return str(page.json()["meta"]["next_cursor"])


async def invites(api: Api, host: Person) -> list[str]:
    bodies: list[Any] = [{"email": new_email(), "first_name": "A", "last_name": "B", "role": "staff"} for _ in range(2)]
    answers = [await api.as_(host).post("/api/v1/stores/me/users/invite", json=body) for body in bodies]
    return [created(answer)["invite_token"] for answer in answers]


async def test_nobody_is_signed_out_by_a_new_key_until_the_older_one_goes(alone_settings: Settings) -> None:
    async with running(alone_settings) as api:
        person = await api.register("vendor")
        cursor = await first_page(api, person)
        first, second = await invites(api, person)
    older = kid_of(person.access_token)
    async with running(with_keys(alone_settings, "jwt_keys", older=True)) as api:
        ok(await me(api, person.access_token))
        tokens = ok(await api.http.post(REFRESH, json={"refresh_token": person.refresh_token}))["tokens"]
        assert kid_of(tokens["access_token"]) == "new" != older
        ok(await me(api, person.access_token))
        assert len(ok(await api.as_(person).get("/api/v1/vendor/products", params={"cursor": cursor}))) == 1
        ok(await api.http.post(ACCEPT, json={"token": first, "password": PASSWORD}))
    async with running(with_keys(alone_settings, "jwt_keys", older=False)) as api:
        problem(await me(api, person.access_token), 401, "unauthenticated")
        ok(await me(api, tokens["access_token"]))
        ok(await api.http.post(REFRESH, json={"refresh_token": tokens["refresh_token"]}))  # keys do not sign these
        ok(await api.http.post(ACCEPT, json={"token": second, "password": PASSWORD}))


async def test_ad_tokens_count_and_attribute_until_their_key_goes(alone_settings: Settings) -> None:
    async with running(alone_settings) as api:
        vendor, buyer = await register_vendor(api), await api.register("buyer")
        one = await cart_shop.stock(api, vendor)
        await active_ad(api, vendor)
        await open_gates(api)
        served = [await serve(api, buyer) for _ in range(2)]
    impressions = [answer["impression_token"] for answer in served]
    clicks = [answer["click_url"] for answer in served]
    async with running(with_keys(alone_settings, "ad_token_keys", older=True)) as api:
        assert status_of(await impression(api, impressions[0])) == "accepted"
        assert (await api.http.get(clicks[0], headers=at(NOON))).status_code == 302
        fresh = await serve(api, buyer)
        assert kid_of(fresh["impression_token"]) == "new" != kid_of(impressions[0])
        assert await attributed(api, buyer, one, impressions[0]) == [impressions[0]]
    async with running(with_keys(alone_settings, "ad_token_keys", older=False)) as api:
        problem(await impression(api, impressions[1]), 400, "invalid_token")
        problem(await api.http.get(clicks[1], headers=at(NOON)), 400, "invalid_token")
        assert await attributed(api, buyer, one, impressions[1]) == []
        assert status_of(await impression(api, fresh["impression_token"])) == "accepted"


async def attributed(api: Api, buyer: Person, product_id: str, token: str) -> list[str]:
    """The tokens that a cart keeps of this one."""
    cart = await cart_shop.quote(api, buyer, product_id, attribution_tokens=[token])
    return list(cart["attribution_tokens"])
