"""Who may call which route, written down. A route that is not here fails test_route_matrix.py.

One line a route, ids in the path as ``{id}``: who is let in, and, where the path names an object, what kind of object
(`Rule.of`): an attribute of ``cast.Belongings``. `of` takes the body that the handler needs to get as far as that
object. An object that every store may see, or that no store owns, is `of(ANY)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

NO_CREDENTIALS: Final = ("nobody", "forged", "refresh_token", "ad_token")
NO_SESSION: Final = ("expired", "revoked", "removed")
STORELESS: Final = ("storeless",)  #: of two stores, none of them chosen
BUYERS: Final = ("buyer_owner", "buyer_manager", "buyer_staff")
VENDORS: Final = ("vendor_owner", "vendor_manager", "vendor_staff")
CALLERS: Final = (*NO_CREDENTIALS, *NO_SESSION, *STORELESS, *BUYERS, *VENDORS, "agent", "admin")

ANY: Final = "any"  #: an id that names nothing


@dataclass(frozen=True)
class Rule:
    """Who is let in. `by_login`: everybody else is refused by who they are; else the route asks nobody who they are.

    `answer` is what a route says to everybody who lacks the credential that is its own (a signature, an ad token).
    """

    let_in: tuple[str, ...]
    by_login: bool = True
    for_stores: bool = True
    object: str | None = None
    body: Mapping[str, Any] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    answer: tuple[int, str] | None = None
    lacking: int | None = None  #: what who is let in hears where a part that the stage has not is needed

    def of(self, kind: str, **body: Any) -> Rule:
        """The same for a route about an object of a kind."""
        return replace(self, object=kind, body=body)

    def refusal(self, caller: str) -> tuple[int, str] | None:
        """How a caller is refused; None for who is let in."""
        if not self.by_login or caller in self.let_in:
            return None
        if caller in NO_CREDENTIALS:
            return 401, "unauthenticated"
        known = {"expired": (401, "token_expired"), "revoked": (401, "session_revoked")}
        if caller in STORELESS and self.for_stores:
            return 403, "active_store_required"
        return known.get(caller, (403, "forbidden"))


def own_credential(status: int, code: str, *, query: Mapping[str, str] | None = None, **body: Any) -> Rule:
    """A route that lets a credential of its own in, no login. `body` and `query` lack it, or have a wrong one."""
    return Rule(CALLERS, by_login=False, answer=(status, code), body=body, query=query or {})


PUBLIC: Final = Rule(CALLERS, by_login=False)
SIGNED_IN: Final = Rule((*STORELESS, *BUYERS, *VENDORS, "agent", "admin"))
MEMBER: Final = Rule((*BUYERS, *VENDORS))
MANAGER: Final = Rule(tuple(one for one in (*BUYERS, *VENDORS) if not one.endswith("_staff")))
BUYER: Final = Rule(BUYERS)
VENDOR: Final = Rule(VENDORS)
DASHBOARD: Final = replace(VENDOR, lacking=503)
VENDOR_MANAGER: Final = Rule(VENDORS[:2])
AGENT: Final = Rule(("agent",), for_stores=False)
ADMIN: Final = Rule(("admin",), for_stores=False)
ACCEPT: Final = {"decision": "accept"}

ROUTES: Final[Mapping[str, Rule]] = {
    # Health
    "GET /healthz": PUBLIC,
    "GET /readyz": PUBLIC,
    "GET /metrics": PUBLIC,
    # Auth
    "POST /api/v1/auth/register": PUBLIC,
    "POST /api/v1/auth/login": PUBLIC,
    "POST /api/v1/auth/refresh": PUBLIC,
    "POST /api/v1/auth/accept-invite": PUBLIC,
    "POST /api/v1/auth/logout": SIGNED_IN,
    "POST /api/admin/auth/login": PUBLIC,
    "POST /api/admin/auth/register": PUBLIC,
    "POST /api/admin/agents": ADMIN,
    # Stores and users
    "GET /api/v1/stores/me": MEMBER,
    "PATCH /api/v1/stores/me": MANAGER,
    "GET /api/v1/stores/me/users": MEMBER,
    "POST /api/v1/stores/me/users/invite": MANAGER,
    "DELETE /api/v1/stores/me/users/{id}": MANAGER.of("user"),
    "GET /api/v1/users/me": SIGNED_IN,
    "PATCH /api/v1/users/me": SIGNED_IN,
    # Media
    "POST /api/v1/media": MEMBER,
    "GET /api/v1/media": MEMBER,
    "GET /api/v1/media/{id}": MEMBER.of("media"),
    "GET /api/v1/media/{id}/url": MEMBER.of("media"),
    "DELETE /api/v1/media/{id}": MEMBER.of("media"),
    # Licences
    "POST /api/v1/licenses": MANAGER,
    "GET /api/v1/licenses": MEMBER,
    "DELETE /api/v1/licenses/{id}": MANAGER.of("license"),
    "GET /api/admin/licenses": ADMIN,
    "POST /api/admin/licenses/{id}/decision": ADMIN.of(ANY, decision="approve"),
    # Catalogue
    "POST /api/v1/vendor/products": VENDOR,
    "GET /api/v1/vendor/products": VENDOR,
    "GET /api/v1/vendor/products/{id}": VENDOR.of("product"),
    "PATCH /api/v1/vendor/products/{id}": VENDOR.of("product"),
    "DELETE /api/v1/vendor/products/{id}": VENDOR.of("product"),
    "GET /api/v1/products": BUYER,
    "GET /api/v1/products/{id}": BUYER.of("product"),
    "GET /api/v1/inventory": VENDOR,
    "PUT /api/v1/inventory/{id}": VENDOR.of("product", on_hand=1),
    "POST /api/v1/vendor/promos": VENDOR,
    "GET /api/v1/vendor/promos": VENDOR,
    "DELETE /api/v1/vendor/promos/{id}": VENDOR.of("promo"),
    "POST /api/v1/vendor/product-drafts": VENDOR,
    "GET /api/v1/vendor/product-drafts": VENDOR,
    "GET /api/v1/vendor/product-drafts/{id}": VENDOR.of("draft"),
    "POST /api/v1/vendor/product-drafts/{id}/publish": VENDOR.of(
        "draft", sku="S-1", title="T", category="flower", unit="gram", price_cents=1
    ),
    # Cart, checkout, orders
    "POST /api/v1/cart": BUYER,
    "GET /api/v1/cart": BUYER,
    "POST /api/v1/checkout": BUYER,
    "GET /api/v1/orders": MEMBER,
    "GET /api/v1/orders/{id}": MEMBER.of("order"),
    "POST /api/v1/orders/{id}/cancel": BUYER.of("order"),
    "POST /api/v1/orders/{id}/nudge": BUYER.of("order"),
    "POST /api/v1/orders/{id}/retry": BUYER.of("order"),
    "POST /api/v1/vendor/orders/{id}/decision": VENDOR.of("order", **ACCEPT),
    "POST /api/v1/vendor/orders/{id}/line-items/decision": VENDOR.of(
        "order", decisions=[{"line_item_id": "01900000-0000-7000-8000-000000000000", **ACCEPT}]
    ),
    "POST /api/v1/vendor/orders/{id}/fulfill": VENDOR.of("order"),
    "POST /api/v1/vendor/orders/{id}/confirm-paid": VENDOR.of("order"),
    # Delivery and payouts
    "GET /api/v1/agent/orders": AGENT,
    "GET /api/v1/agent/assignments": AGENT,
    "POST /api/v1/agent/orders/{id}/assign": AGENT.of(ANY),
    "POST /api/v1/agent/orders/{id}/pickup": AGENT.of(ANY),
    "POST /api/v1/agent/orders/{id}/deliver": AGENT.of(ANY),
    "POST /api/v1/agent/orders/{id}/cash-collected": AGENT.of(ANY, amount_cents=1),
    "POST /api/admin/orders/{id}/ach-settled": ADMIN.of(ANY),
    "GET /api/admin/payouts": ADMIN,
    "GET /api/admin/payouts/{id}": ADMIN.of(ANY),
    "POST /api/admin/payouts/{id}/confirm": ADMIN.of(ANY),
    # Notifications
    "GET /api/v1/notifications": MEMBER,
    "POST /api/v1/notifications/read-all": MEMBER,
    "POST /api/v1/notifications/{id}/read": MEMBER.of("notification"),
    "GET /unsubscribe": own_credential(404, "not_found", query={"token": "made-up"}),
    "POST /unsubscribe": own_credential(404, "not_found", query={"token": "made-up"}),
    # Billing
    "POST /api/v1/vendor/subscription": VENDOR,
    "GET /api/v1/vendor/subscription": VENDOR,
    "POST /api/v1/vendor/subscription/cancel": VENDOR,
    "GET /api/v1/vendor/billing/charges": VENDOR,
    # Ads
    "POST /api/v1/vendor/ads": VENDOR,
    "GET /api/v1/vendor/ads": VENDOR,
    "GET /api/v1/vendor/ads/{id}": VENDOR.of("ad"),
    "PATCH /api/v1/vendor/ads/{id}": VENDOR.of("ad"),
    "GET /api/v1/vendor/ads/{id}/live": VENDOR.of("ad"),
    "GET /ads/serve": BUYER,
    "POST /ads/impression": own_credential(400, "invalid_token", token="made-up"),
    "GET /ads/click": own_credential(400, "invalid_token", query={"token": "made-up"}),
    # Analytics
    "GET /api/v1/vendor/analytics/marketplace": DASHBOARD,
    "GET /api/v1/vendor/analytics/ads": DASHBOARD,
    # Operations
    "GET /api/admin/ops/overview": ADMIN,
    "GET /api/admin/ops/ads/{id}/live": ADMIN.of(ANY),
    "GET /api/admin/ops/reconciliation": ADMIN,
    "GET /api/admin/ops/dead-letters": ADMIN,
    "GET /api/admin/ops/dead-letters/{id}": ADMIN.of(ANY),
    "POST /api/admin/ops/dead-letters/{id}/replay": ADMIN.of(ANY),
    "POST /api/admin/ops/dead-letters/{id}/discard": ADMIN.of(ANY, reason="no longer of use"),
    "GET /api/admin/ops/emails": ADMIN,
    "POST /api/admin/ops/clock": ADMIN,
    # Webhooks
    "POST /webhooks/gcs": own_credential(401, "unauthenticated"),
    "POST /webhooks/stripe": own_credential(400, "invalid_signature"),
    "POST /webhooks/sendgrid": own_credential(400, "invalid_signature"),
}
#: Bodies that name an object of another store's: route, who sends it, the field, the kind of object. One line a field.
NAMED_IN_BODIES: Final = (
    ("POST /api/v1/licenses", "vendor_owner", "media_id", "media"),
    ("PATCH /api/v1/stores/me", "buyer_owner", "logo_media_id", "media"),
    ("PATCH /api/v1/stores/me", "buyer_owner", "banner_media_id", "media"),
    ("PATCH /api/v1/users/me", "vendor_staff", "avatar_media_id", "media"),
    ("POST /api/v1/vendor/products", "vendor_owner", "gallery_media_ids", "media"),
    ("POST /api/v1/vendor/products", "vendor_owner", "coa_media_id", "media"),
    ("POST /api/v1/vendor/ads", "vendor_owner", "creative_media_id", "media"),
    ("POST /api/v1/vendor/ads", "vendor_owner", "target_product_id", "product"),
    ("POST /api/v1/checkout", "buyer_owner", "cart_id", "cart"),
)
#: Routes that the OpenAPI document leaves out.
UNDOCUMENTED: Final = (
    "GET /docs", "GET /openapi.json", "HEAD /openapi.json", "HEAD /ads/click",
    "GET /console", "GET /console/console.js", "GET /console/console.css",
)  # fmt: skip

HOW: Final = """
Not classified: {routes}
Add a line for each to ROUTES in tests/contracts/route_matrix.py, for example
    "POST /api/v1/vendor/things/{{id}}/close": VENDOR.of("thing", reason="because"),
and, where the path names an object of a kind that is new, make one in Belongings of tests/contracts/cast.py.
"""
