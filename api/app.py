"""The HTTP application: routes, edge, lifespan."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from api.ad_services import run_ads
from api.analytics_services import run_analytics
from api.billing_services import run_billing
from api.cart_metrics import count_quotes
from api.errors import handle
from api.media_services import run_media
from api.metrics import RequestMetrics
from api.middleware import Edge, EdgeRules
from api.openapi import describe
from api.plain_routes import Shortcut
from api.routes import (
    admin,
    ads,
    agent_orders,
    analytics,
    auth,
    billing,
    cart,
    checkout,
    console,
    dead_letters,
    emails,
    health,
    inventory,
    licenses,
    media,
    members,
    notifications,
    ops,
    orders,
    payouts,
    product_drafts,
    products,
    sendgrid,
    stores,
    unsubscribe,
    users,
    vendor_ads,
    vendor_orders,
    vendor_products,
    vendor_promos,
)
from api.services import Part, follow_clock, open_services
from models.errors import PackstreamError
from ops.settings import Settings

ROUTERS: Final[Sequence[APIRouter]] = (
    ads.router,
    health.router,
    auth.router,
    stores.router,
    members.router,
    members.public_router,
    users.router,
    media.router,
    media.webhook_router,
    licenses.router,
    licenses.admin_router,
    notifications.router,
    unsubscribe.router,
    sendgrid.router,
    vendor_ads.router,
    analytics.router,
    vendor_products.router,
    product_drafts.router,
    products.router,
    inventory.router,
    vendor_promos.router,
    billing.router,
    billing.webhook_router,
    cart.quotes,
    cart.router,
    checkout.router,
    orders.router,
    agent_orders.router,
    payouts.router,
    payouts.orders_router,
    vendor_orders.router,
    admin.router,
    ops.router,
    dead_letters.router,
    emails.router,
    console.router,
)
TEST_ROUTERS: Final[Sequence[APIRouter]] = (admin.test_router, ops.test_router)  #: not in production
PARTS: Final[Sequence[Part]] = (follow_clock, run_media, run_billing, run_ads, run_analytics, count_quotes)
HANDLED: Final[tuple[type[Exception], ...]] = (
    PackstreamError,
    RequestValidationError,
    HTTPException,
    DBAPIError,
    PoolTimeout,
    OSError,
)


class Dispatch:
    """Finds routes whose path has no parameters by one look-up; the router tries all the others in turn."""

    def __init__(self, router: APIRouter) -> None:
        self._router = router
        self._routes: dict[tuple[str, str], Route] = {}
        for route in router.routes:
            if isinstance(route, Route) and "{" not in route.path:
                for method in route.methods or ():
                    self._routes.setdefault((method, route.path), route)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if route is None:
            await self._router(scope, receive, send)
            return
        scope["route"], scope["endpoint"], scope["path_params"] = route, route.endpoint, {}
        scope.setdefault("router", self._router)
        await route.handle(scope, receive, send)


class Application(FastAPI):
    """FastAPI with our edge in place of its outer middleware."""

    def __init__(self, settings: Settings, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings = settings
        self.request_metrics = RequestMetrics()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await super().__call__(scope, receive, send)
            return
        scope["app"] = self
        if self.middleware_stack is None:
            self.middleware_stack = self.build_middleware_stack()
        await self.middleware_stack(scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        app: ASGIApp = AsyncExitStackMiddleware(Dispatch(self.router))
        app = ExceptionMiddleware(app, handlers=dict.fromkeys(HANDLED, handle))
        app = Shortcut(self.router, app, handled=HANDLED)
        origins = [origin.strip() for origin in self.settings.cors_origins.split(",") if origin.strip()]
        if origins:
            app = CORSMiddleware(
                app,
                allow_origins=origins,
                allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
                allow_headers=["authorization", "content-type", "idempotency-key", "x-request-id", "x-now"],
                expose_headers=["x-request-id", "retry-after", "idempotent-replayed"],
                max_age=600,
            )
        return Edge(app, edge_rules(self.settings), self.request_metrics)

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = describe(self)
        return self.openapi_schema


def edge_rules(settings: Settings) -> EdgeRules:
    return EdgeRules(
        body_bytes_max=settings.body_bytes_max,
        timeout_s=settings.request_timeout_s,
        test_clock=settings.test_clock,
        https_only=settings.packstream_env == "prod",
        log_requests=settings.log_level in ("debug", "info"),
    )


def create_app(settings: Settings) -> Application:
    """The application of one process. Its lifespan opens the services and the parts, and closes them."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        assert isinstance(app, Application)
        async with open_services(settings, PARTS, app.request_metrics) as services:
            app.state.services = services
            yield

    app = Application(
        settings,
        title="packstream",
        version="1",
        summary="A B2B marketplace with a streamed ads engine.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    for router in (*ROUTERS, *(TEST_ROUTERS if settings.test_clock else ())):
        # Flat, where include_router would nest: matching a nested route tries each candidate twice.
        app.router.routes.extend(router.routes)
    return app
