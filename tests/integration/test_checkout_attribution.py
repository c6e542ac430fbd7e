"""The ad that led to an order is chosen at checkout, by rules, and stays written on the order and its lines."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from api.ad_services import AdServices
from models.ads.rules import EventKind, Placement, TargetType
from models.ads.tokens import AdClaims
from models.database import new_id
from tests.api_driver import Api, Person
from tests.cart_shop import NOON, open_shop, quote, stock
from tests.checkout_driver import check_out, look, published

DAY = 86_400


def claims(
    vendor: Person, buyer: Person, *, product: str | None = None, kind: str = "click", age_s: int = 60
) -> AdClaims:
    """Of an ad of the store, or of a product of it."""
    iat = int(NOON.timestamp()) - age_s
    return AdClaims(
        typ="ad", v=1, jti=new_id(), request_id=new_id(), kind=EventKind(kind), ad_id=new_id(),
        store_id=UUID(vendor.store["id"]), target_type=TargetType.PRODUCT if product else TargetType.STORE,
        target_id=UUID(product or vendor.store["id"]), buyer_store_id=UUID(buyer.store["id"]),
        placement=Placement.HOME, cost_micros=0, iat=iat, exp=iat + 1_800,
    )  # fmt: skip


def token(api: Api, made: AdClaims) -> str:
    return api.services.get(AdServices).keys.sign(made)


def frozen(made: AdClaims, issued_at: str, reason: str) -> dict[str, Any]:
    return {
        "ad_id": str(made.ad_id), "kind": made.kind.value, "jti": str(made.jti), "target_type": made.target_type.value,
        "target_id": str(made.target_id), "issued_at": issued_at, "reason": reason,
    }  # fmt: skip


async def test_a_store_ad_is_on_its_order_and_a_product_ad_on_its_line(api: Api, vendor: Person, buyer: Person) -> None:
    other = await open_shop(api)
    a, b, c = await stock(api, vendor), await stock(api, vendor), await stock(api, other)
    seen, clicked = claims(vendor, buyer, kind="impression"), claims(vendor, buyer, age_s=3_600)
    product = claims(vendor, buyer, product=b, kind="impression", age_s=120)
    stray = claims(vendor, buyer, product=await stock(api, vendor))
    tokens = [token(api, one) for one in (seen, clicked, product, stray)]
    cart = await quote(api, buyer, a, b, c, attribution_tokens=tokens)
    mine, theirs = (await check_out(api, buyer, cart))["vendor_orders"]
    assert mine["attribution"] == frozen(clicked, "2027-03-01T11:00:00Z", "click_before_impression")
    assert [line["attribution"] for line in mine["line_items"]] == [
        None,
        frozen(product, "2027-03-01T11:58:00Z", "only"),
    ]
    assert (theirs["attribution"], theirs["line_items"][0]["attribution"]) == (None, None)
    assert (await look(api, vendor, f"/{mine['id']}")).json()["data"] == mine
    told = (await published(api, cart))[0].orders[0]
    assert (told.attribution.jti, told.attribution.issued_at) == (clicked.jti, NOON - timedelta(hours=1))
    assert (told.lines[0].attribution, told.lines[1].attribution.ad_id) == (None, product.ad_id)


async def test_a_token_that_expires_between_quote_and_checkout_attributes_nothing(
    api: Api, vendor: Person, buyer: Person
) -> None:
    good, late = claims(vendor, buyer, age_s=30 * DAY - 60), claims(vendor, buyer, age_s=30 * DAY - 59)
    product = await stock(api, vendor)
    for made, attributed in ((good, None), (late, frozen(late, "2027-01-30T12:00:59Z", "only"))):
        cart = await quote(api, buyer, product, attribution_tokens=[token(api, made)])
        assert len(cart["attribution_tokens"]) == 1
        done = await check_out(api, buyer, cart, now=NOON + timedelta(seconds=61 if made is good else 59))
        assert done["vendor_orders"][0]["attribution"] == attributed
