"""Ad tokens in quotes, over HTTP: those that a serve gave out are kept, bad ones never hinder, and none is logged."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog

from api.ad_services import AdServices
from models.ads.rules import EventKind, Placement, TargetType
from models.ads.tokens import AdClaims, TokenKeys
from models.database import new_id
from ops.settings import Settings
from tests.ads_driver import NOON, active_ad, claims_of, execute, open_gates, register_vendor, serve
from tests.api_driver import Api, Person, ok, running
from tests.cart_shop import look, post, quote, wants

IAT = int(NOON.timestamp())
ANYTHING = str(new_id())


def claims(buyer: Person, **changes: Any) -> AdClaims:
    fields: dict[str, Any] = {
        "typ": "ad",
        "v": 1,
        "jti": new_id(),
        "request_id": new_id(),
        "kind": EventKind.CLICK,
        "ad_id": new_id(),
        "store_id": new_id(),
        "target_type": TargetType.STORE,
        "target_id": new_id(),
        "buyer_store_id": UUID(buyer.store["id"]),
        "placement": Placement.HOME,
        "cost_micros": 0,
        "iat": IAT,
        "exp": IAT + 1800,
    }
    return AdClaims(**(fields | changes))


def token(api: Api, buyer: Person, **changes: Any) -> str:
    """A token that the API itself could have signed."""
    return api.services.get(AdServices).keys.sign(claims(buyer, **changes))


async def kept(api: Api, buyer: Person, *tokens: str, **at: Any) -> list[str]:
    """The tokens of the cart after a quote with these."""
    cart = await quote(api, buyer, ANYTHING, attribution_tokens=list(tokens), **({"now": NOON} | at))
    answer: list[str] = cart["attribution_tokens"]
    assert ok(await look(api, buyer))["attribution_tokens"] == answer
    return answer


async def test_tokens_that_a_serve_gave_out_are_kept_with_what_they_say(alone: Api) -> None:
    vendor, buyer, stranger = await register_vendor(alone), *[await alone.register("buyer") for _ in range(2)]
    await active_ad(alone, vendor)
    await open_gates(alone)
    served = await serve(alone, buyer)
    given = [served["impression_token"], served["click_url"].partition("token=")[2]]
    later = NOON + timedelta(days=29)
    assert await kept(alone, buyer, *given, now=later) == given
    (row,) = await execute(
        alone, "SELECT attribution_claims FROM cart_records WHERE buyer_store_id = :s", s=UUID(buyer.store["id"])
    )
    assert row.attribution_claims == [claims_of(one) for one in given]
    assert await kept(alone, stranger, *given, now=later) == []
    assert await kept(alone, buyer, *given, now=NOON + timedelta(days=30, seconds=1)) == []


async def test_bad_tokens_are_dropped_and_the_quote_is_made(api: Api, buyer: Person) -> None:
    good = token(api, buyer)
    forged = TokenKeys({"dev": b"f" * 32}).sign(claims(buyer))
    bad = ["", "x", "\0", "é", "x" * 5_000, forged, buyer.access_token, good[:-2], token(api, buyer, iat=IAT + 60)]
    assert await kept(api, buyer, *bad, good) == [good]
    assert await kept(api, buyer, *bad) == []


async def test_of_each_target_and_kind_the_most_recent_is_kept(api: Api, buyer: Person) -> None:
    target = new_id()
    old, new = (token(api, buyer, target_id=target, iat=IAT - age) for age in (60, 30))
    seen = token(api, buyer, target_id=target, kind=EventKind.IMPRESSION)
    other = token(api, buyer)
    assert await kept(api, buyer, old, other, new, seen, new) == [other, new, seen]
    small, large = sorted(new_id() for _ in range(2))
    twins = [token(api, buyer, target_id=target, jti=jti) for jti in (large, small)]
    assert await kept(api, buyer, *twins) == [twins[1]]


async def test_twenty_tokens_are_taken_and_the_next_quote_forgets_them(api: Api, buyer: Person) -> None:
    tokens = [token(api, buyer) for _ in range(20)]
    assert await kept(api, buyer, *tokens) == tokens
    assert await kept(api, buyer) == []


async def test_the_life_for_attribution_is_a_setting(api_settings: Settings) -> None:
    async with running(api_settings.model_copy(update={"ad_attribution_ttl_s": 60})) as api:
        buyer = await api.register("buyer")
        one = token(api, buyer)
        assert await kept(api, buyer, one, now=NOON.replace(microsecond=0) + timedelta(seconds=60)) == [one]
        assert await kept(api, buyer, one, now=NOON + timedelta(seconds=61)) == []


async def test_dropped_tokens_are_logged_by_reason_and_no_token_is(api_settings: Settings) -> None:
    async with running(api_settings.model_copy(update={"log_level": "info"})) as api:
        buyer = await api.register("buyer")
        good, forged = token(api, buyer), TokenKeys({"dev": b"f" * 32}).sign(claims(buyer))
        body = {"items": wants(ANYTHING), "attribution_tokens": [good, forged]}
        with structlog.testing.capture_logs() as logs:
            cart = ok(await post(api, buyer, body, now=NOON))
    (line,) = [entry for entry in logs if entry["event"] == "cart_quoted"]
    assert line["tokens"] == {"kept": 1, "invalid": 1}
    assert (line["cart_id"], line["lines"], line["warnings"]) == (
        cart["id"],
        {"invalid": 1},
        {"product_unavailable": 1},
    )
    assert line["duration_ms"] > 0
    for secret in (good, forged, *good.split("."), *forged.split(".")):
        assert secret not in str(logs)
