"""Serve, impression and click: the routes that run for every page view.

They take the plain request and answer with bytes (`PlainRoute`): FastAPI documents them, and keeps out of their way.
"""

from __future__ import annotations

from time import time
from typing import Any, Final

import msgspec
from fastapi import APIRouter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Receive

from api import ad_metrics
from api.ad_services import AdServices
from api.dependencies import as_buyer, authenticate, request_now, services_of
from api.envelope import Envelope
from api.plain_routes import Json, PlainRoute, body_docs, body_of
from models.ads.rules import EventKind, Placement, TargetType
from models.ads.tokens import AdClaims, check_countable, check_kind, counts_until
from models.errors import FieldError, InvalidToken, Unavailable, ValidationFailed
from schemas.http.ads import ServeOut, TrackImpression, TrackOut

ACCEPTED: Final = msgspec.json.encode({"data": {"status": "accepted"}})
DUPLICATE: Final = msgspec.json.encode({"data": {"status": "duplicate"}})
PREFETCH_HEADERS: Final = frozenset((b"purpose", b"sec-purpose", b"x-purpose", b"x-moz"))
PREFETCHES: Final = (b"prefetch", b"prerender", b"preview")

_PLACEMENTS: Final = {f"placement={placement}".encode(): placement for placement in Placement}
_PAGES: Final = {TargetType.STORE: "/stores/", TargetType.PRODUCT: "/products/"}


router = APIRouter(prefix="/ads", tags=["ads"], route_class=PlainRoute)


@router.get(
    "/serve",
    response_model=Envelope[ServeOut],
    openapi_extra={
        "security": [{"HTTPBearer": []}],
        "parameters": [
            {
                "name": "placement",
                "in": "query",
                "required": True,
                "schema": {"type": "string", "enum": list(Placement)},
            }
        ],
    },
)
async def serve(request: Request) -> Response:
    """Choose an ad for a buyer's page view and hold its price in its budget until the token is used or expires."""
    buyer = as_buyer(await authenticate(request))
    answer = await _ads(request).server.serve(
        _placement(request), buyer_store_id=buyer.store_id, now=request_now(request)
    )
    return Json(msgspec.json.encode({"data": answer}))


@router.post(
    "/impression",
    status_code=202,
    response_model=Envelope[TrackOut],
    openapi_extra=body_docs(TrackImpression),
)
async def impression(request: Request) -> Response:
    """Count a view. The token is the credential; the answer comes when the event is durable."""
    ads = _tracking(request)
    token = body_of(TrackImpression, await _read(request.receive)).token
    now_s = request_now(request).timestamp()
    try:
        claims = ads.keys.read(token)
        check_countable(claims, EventKind.IMPRESSION, now_s=now_s, ttl_s=ads.token_ttl_s, skew_s=ads.skew_s)
        first = await _record(ads, claims)
    except InvalidToken:
        ad_metrics.tracked[EventKind.IMPRESSION, "invalid_token"] += 1
        raise
    return Json(ACCEPTED if first else DUPLICATE, 202)


_CLICK_DOCS: Final[dict[str, Any]] = {
    "status_code": 302,
    "response_class": RedirectResponse,
    "openapi_extra": {
        "parameters": [{"name": "token", "in": "query", "required": True, "schema": {"type": "string"}}],
    },
}


@router.get("/click", **_CLICK_DOCS)
async def click(request: Request) -> Response:
    """Count a click, once, and go to the target's page. An expired token and a prefetch go there uncounted."""
    ads = _tracking(request)
    claims = _click_claims(request)
    now_s = request_now(request).timestamp()
    if _prefetches(request):
        ad_metrics.tracked[EventKind.CLICK, "prefetch"] += 1
    elif counts_until(claims, ttl_s=ads.token_ttl_s) < now_s:
        ad_metrics.tracked[EventKind.CLICK, "expired"] += 1
    else:
        await _count_click(ads, claims)
    return _page(claims)


@router.head("/click", **_CLICK_DOCS, include_in_schema=False)
async def peek_click(request: Request) -> Response:
    """Where a click would go; nothing is counted."""
    return _page(_click_claims(request))


async def _count_click(ads: AdServices, claims: AdClaims) -> None:
    try:
        await _record(ads, claims)
    except InvalidToken:  # it expired on the way: the visitor goes on, the click does not count
        ad_metrics.tracked[EventKind.CLICK, "expired"] += 1


async def _record(ads: AdServices, claims: AdClaims) -> bool:
    try:
        first = await ads.tracker.record(claims)
    except Unavailable:
        ad_metrics.tracked[claims.kind, "unavailable"] += 1
        raise
    ad_metrics.tracked[claims.kind, "accepted" if first else "duplicate"] += 1
    return first


def _click_claims(request: Request) -> AdClaims:
    """The claims of the click token in the query. InvalidToken."""
    ads = _ads(request)
    try:
        claims = ads.keys.read(request.query_params.get("token", ""))
        check_kind(claims, EventKind.CLICK, now_s=request_now(request).timestamp(), skew_s=ads.skew_s)
    except InvalidToken:
        ad_metrics.tracked[EventKind.CLICK, "invalid_token"] += 1
        raise
    return claims


def _page(claims: AdClaims) -> Response:
    return Response(status_code=302, headers={"location": f"{_PAGES[claims.target_type]}{claims.target_id}"})


def _prefetches(request: Request) -> bool:
    return any(
        name in PREFETCH_HEADERS and any(word in value.lower() for word in PREFETCHES)
        for name, value in request.scope["headers"]
    )


def _placement(request: Request) -> Placement:
    placement = _PLACEMENTS.get(request.scope["query_string"])
    if placement is None:
        placement = _PLACEMENTS.get(f"placement={request.query_params.get('placement')}".encode())
    if placement is None:
        raise ValidationFailed(errors=[FieldError("placement", "enum", f"one of {', '.join(Placement)}")])
    return placement


async def _read(receive: Receive) -> bytes:
    """The whole body; it nearly always comes in one message, for which Starlette's stream is a detour."""
    body: bytes = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


def _tracking(request: Request) -> AdServices:
    """The services, for one more request of this client. RateLimited."""
    services = services_of(request)
    ads = services.get(AdServices)
    ads.track_limit.hit(services.proxies.client(request), now_s=time())
    return ads


def _ads(request: Request) -> AdServices:
    return services_of(request).get(AdServices)
