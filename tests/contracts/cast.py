"""The cast of the route matrix: every kind of caller by their token, and two stores whose belongings are not theirs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select

from models.ads.rules import EventKind, Placement, TargetType
from models.ads.tokens import AdClaims, TokenKeys
from models.database import new_id
from models.identity import writes as identity
from models.identity.rules import StoreRole
from models.notifications import writes as notifications
from models.notifications.tables import Notification
from tests import cart_shop, checkout_driver, licences
from tests.ads_driver import create_ad
from tests.agent_site import notice
from tests.api_driver import ADDRESS, PASSWORD, Api, Person, created, forged, new_email, ok
from tests.catalogue import PROMOS, in_state, promo
from tests.media_bucket import announce, as_owner, uploaded

LOGIN: Final = "/api/v1/auth/login"


@dataclass(frozen=True)
class Belongings:
    """One object of each kind, of a vendor and of a buyer who ordered there; ids that no caller's store may see."""

    vendor: Person
    buyer: Person
    user: str
    media: str
    license: str
    product: str
    promo: str
    cart: str
    order: str
    ad: str
    draft: str
    notification: str

    @property
    def ids(self) -> Mapping[str, str]:
        """The objects' ids, by their kind."""
        return {kind: one for kind, one in asdict(self).items() if isinstance(one, str)}

    @property
    def secrets(self) -> frozenset[str]:
        """What no answer to another store may have in it."""
        stores = {person.store["id"] for person in (self.vendor, self.buyer)}
        return frozenset({*self.ids.values(), *stores, self.vendor.email, self.buyer.email})


@dataclass(frozen=True)
class Cast:
    """`tokens`: the bearer token of each caller, None for nobody."""

    tokens: Mapping[str, str | None]
    others: Belongings


async def gather(api: Api) -> Cast:
    """Everybody, signed in; the callers' stores are in Washington, the others' in Oregon."""
    admin = await api.register_admin()
    vendor, buyer = await in_state(api, "vendor", "WA"), await in_state(api, "buyer", "WA")
    tokens: dict[str, str | None] = {
        "nobody": None,
        "forged": forged(api, buyer, key=b"x" * 32),
        "expired": forged(api, buyer, exp=int(time.time()) - 1),
        "refresh_token": buyer.refresh_token,
        "ad_token": TokenKeys(api.services.settings.ad_token_keys).sign(fresh_claims()),
        "revoked": await _revoked(api),
        "removed": await _removed(api, vendor),
        "storeless": await _storeless(api, buyer),
        "agent": await _agent(api, admin),
        "admin": admin.access_token,
    }
    for kind, owner in (("buyer", buyer), ("vendor", vendor)):
        tokens[f"{kind}_owner"] = owner.access_token
        for role in ("manager", "staff"):
            tokens[f"{kind}_{role}"] = (await joined(api, owner, role)).access_token
    return Cast(tokens, await _belongings(api, admin))


async def joined(api: Api, host: Person, role: str) -> Person:
    """Someone who accepted an invite to the host's store."""
    email = new_email()
    body = {"email": email, "first_name": "Mary", "last_name": "S", "role": role}
    invited = created(await api.as_(host).post("/api/v1/stores/me/users/invite", json=body))
    use = {"token": invited["invite_token"], "password": PASSWORD}
    accepted = ok(await api.http.post("/api/v1/auth/accept-invite", json=use))
    return Person(email, accepted["user"], host.store, accepted["tokens"])


async def _revoked(api: Api) -> str:
    person = await api.register()
    assert (await api.as_(person).post("/api/v1/auth/logout")).status_code == 204
    return person.access_token


async def _removed(api: Api, host: Person) -> str:
    person = await joined(api, host, "staff")
    gone = await api.as_(host).delete(f"/api/v1/stores/me/users/{person.user['id']}")
    assert gone.status_code == 204
    return person.access_token


async def _storeless(api: Api, host: Person) -> str:
    person = await api.register()
    async with as_owner(api) as tx:
        store, user = UUID(host.store["id"]), UUID(person.user["id"])
        await identity.add_member(tx, store, user, StoreRole.STAFF, now=datetime.now(UTC))
    signed_in = ok(await api.http.post(LOGIN, json={"email": person.email, "password": PASSWORD}))
    assert signed_in["active_store_id"] is None
    return str(signed_in["tokens"]["access_token"])


async def _agent(api: Api, admin: Person) -> str:
    body = {"email": new_email(), "password": PASSWORD, "first_name": "Di", "last_name": "Spatch"}
    created(await api.as_(admin).post("/api/admin/agents", json=body))
    return str(
        ok(await api.http.post(LOGIN, json={n: body[n] for n in ("email", "password")}))["tokens"]["access_token"]
    )


def fresh_claims(kind: EventKind = EventKind.CLICK) -> AdClaims:
    """Those of an ad token that was served just now, of an ad that nobody has."""
    now, one = int(time.time()), new_id()
    return AdClaims(
        typ="ad",
        v=1,
        jti=new_id(),
        request_id=new_id(),
        kind=kind,
        ad_id=one,
        store_id=one,
        target_type=TargetType.STORE,
        target_id=one,
        buyer_store_id=new_id(),
        placement=Placement.HOME,
        cost_micros=0,
        iat=now,
        exp=now + 1800,
    )


async def _belongings(api: Api, admin: Person) -> Belongings:
    vendor, buyer = await cart_shop.open_shop(api), await api.register("buyer")
    product = await cart_shop.stock(api, vendor)
    cart = await cart_shop.quote(api, buyer, product)
    done = await checkout_driver.check_out(api, buyer, cart, shipping_address=ADDRESS)
    return Belongings(
        vendor=vendor,
        buyer=buyer,
        user=(await joined(api, vendor, "staff")).user["id"],
        media=(await announce(api, vendor))["media"]["id"],
        license=(await licences.approved(api, vendor, admin))["id"],
        product=product,
        promo=created(await api.as_(vendor).post(PROMOS, json=promo()))["id"],
        cart=cart["id"],
        order=done["vendor_orders"][0]["id"],
        ad=(await create_ad(api, vendor))["id"],
        draft=await _draft(api, vendor),
        notification=await _notification(api, vendor),
    )


async def _draft(api: Api, vendor: Person) -> str:
    media_id = (await uploaded(api, vendor, "coa"))["id"]
    answer = await api.as_(vendor).post("/api/v1/vendor/product-drafts", json={"coa_media_id": media_id})
    assert answer.status_code == 202
    return str(answer.json()["data"]["id"])


async def _notification(api: Api, vendor: Person) -> str:
    event = notice(UUID(vendor.store["id"]), number="1", order_id="1")
    async with as_owner(api) as tx:
        await notifications.tell(tx, event, now=datetime.now(UTC))
        found: Any = await tx.scalar(select(Notification.id).where(Notification.event_id == event.event_id))
        return str(found)
