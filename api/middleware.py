"""The edge: everything that every request passes, in one thin ASGI application.

It names the request, checks its frame (body size, content type, X-Now, Idempotency-Key), bounds its time, counts and
logs it, sets the security headers and answers what nobody expected with a 500 that tells nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from time import perf_counter
from typing import Final

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import MEDIA_TYPE, problem_body, problem_headers
from api.metrics import RequestMetrics
from models.errors import (
    FieldError,
    NotFound,
    PackstreamError,
    PayloadTooLarge,
    Unavailable,
    UnsupportedMediaType,
    ValidationFailed,
)
from ops.logs import request_id as logged_request_id
from schemas.http.common import parse_time

Headers = list[tuple[bytes, bytes]]

PLAIN_TOKEN: Final = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
IDEMPOTENCY_KEY: Final = re.compile(rb"[\x21-\x7e]{1,255}")
OTHER_BODIES: Final = ("/webhooks/", "/unsubscribe")  #: paths to which others than our clients post
JSON_TYPES: Final = (b"application/json", b"application/problem+json")
SECURITY_HEADERS: Final[Headers] = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-site"),
]
NOTHING_LOADS: Final = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
NOT_STORED: Final = (b"cache-control", b"no-store")
HTTPS_ONLY: Final = (b"strict-transport-security", b"max-age=31536000; includeSubDomains")
UNMATCHED: Final = "unmatched"  #: the route label of paths that nobody serves
ERROR: Final = PackstreamError()

log = structlog.get_logger()


@dataclass(frozen=True)
class EdgeRules:
    """What the edge enforces. `test_clock`: X-Now counts. `log_requests`: one line for each request."""

    body_bytes_max: int
    timeout_s: float
    test_clock: bool
    https_only: bool
    log_requests: bool


class Edge:
    """Wraps the application. Sets ``scope["request_id"]`` and, where X-Now counts, ``scope["now"]``."""

    def __init__(self, app: ASGIApp, rules: EdgeRules, metrics: RequestMetrics) -> None:
        self._app = app
        self._rules = rules
        self._metrics = metrics
        self._prefix = secrets.token_hex(6)
        self._numbers = itertools.count(1)
        self._headers = [*SECURITY_HEADERS, HTTPS_ONLY] if rules.https_only else SECURITY_HEADERS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        metrics = self._metrics
        metrics.in_flight += 1
        exchange = Exchange(self, scope, send)
        try:
            await self._answer(exchange, scope, receive)
        finally:
            metrics.in_flight -= 1
            seconds = perf_counter() - started
            route = getattr(scope.get("route"), "path", UNMATCHED)
            metrics.count(scope["method"], route, exchange.status, seconds)
            if self._rules.log_requests:
                self._log(scope, route, exchange, seconds)

    async def _answer(self, exchange: Exchange, scope: Scope, receive: Receive) -> None:
        try:
            receive = self._admit(exchange, scope, receive)
            async with asyncio.timeout(self._rules.timeout_s) as limit:
                await self._app(scope, receive, exchange.send)
        except PackstreamError as exc:
            await exchange.send_problem(exc)
        except TimeoutError:
            if not limit.expired():
                raise
            await exchange.send_problem(Unavailable("the request took too long"))
        except Exception:
            log.exception("request_failed", method=scope["method"], path=scope["path"])
            await exchange.send_problem(ERROR)

    def _admit(self, exchange: Exchange, scope: Scope, receive: Receive) -> Receive:
        """Read the headers that concern every route; raises what they deserve."""
        frame: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name in FRAME_HEADERS:
                frame[name] = value if name not in frame or name != b"idempotency-key" else b""
        request_id = frame.get(b"x-request-id", b"")
        if not PLAIN_TOKEN.fullmatch(request_id):
            request_id = b"%s-%x" % (self._prefix.encode(), next(self._numbers))
        exchange.request_id = request_id
        scope["request_id"] = request_id.decode()
        logged_request_id.set(scope["request_id"])
        if "\0" in scope["path"]:
            raise NotFound
        if self._rules.test_clock and b"x-now" in frame:
            scope["now"] = _read_now(frame[b"x-now"])
        if scope["method"] in ("GET", "HEAD"):
            return receive
        _check_idempotency_key(scope, frame)
        return self._check_body(scope, frame, receive)

    def _check_body(self, scope: Scope, frame: dict[bytes, bytes], receive: Receive) -> Receive:
        chunked = b"transfer-encoding" in frame
        length = int(frame.get(b"content-length", b"0"))
        if length > self._rules.body_bytes_max:
            raise PayloadTooLarge
        if (length or chunked) and not scope["path"].startswith(OTHER_BODIES):
            kind = frame.get(b"content-type", b"").partition(b";")[0].strip().lower()
            if kind not in JSON_TYPES:
                raise UnsupportedMediaType
        return bounded(receive, self._rules.body_bytes_max) if chunked else receive

    def _log(self, scope: Scope, route: str, exchange: Exchange, seconds: float) -> None:
        log.info(
            "request",
            method=scope["method"],
            route=route,
            path=scope["path"],
            status=exchange.status,
            ms=round(seconds * 1000, 2),
            request_id=scope.get("request_id"),
            client=(scope.get("client") or ("",))[0],
        )

    @property
    def headers(self) -> Headers:
        return self._headers


FRAME_HEADERS: Final = frozenset(
    (
        b"x-request-id",
        b"x-now",
        b"content-length",
        b"content-type",
        b"transfer-encoding",
        b"idempotency-key",
    )
)


class Exchange:
    """The answer to one request on its way out."""

    __slots__ = ("_edge", "_scope", "_send", "request_id", "status")

    def __init__(self, edge: Edge, scope: Scope, send: Send) -> None:
        self._edge = edge
        self._scope = scope
        self._send = send
        self.status = 0
        self.request_id = b"-"

    async def send(self, message: Message) -> None:
        """Pass a message on; the first one gets the headers that every answer has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers: Headers = list(message.get("headers", ()))
            names = {name for name, _ in headers}
            headers.append((b"x-request-id", self.request_id))
            headers += self._edge.headers
            if NOTHING_LOADS[0] not in names:
                headers.append(NOTHING_LOADS)
            if NOT_STORED[0] not in names:
                headers.append(NOT_STORED)
            message["headers"] = headers
        await self._send(message)

    async def send_problem(self, error: PackstreamError) -> None:
        """Answer with a problem, unless an answer has begun: then the connection is cut."""
        if self.status:
            raise error
        body = problem_body(error, self.request_id.decode())
        headers: Headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", b"%d" % len(body))]
        headers += ((name.encode(), value.encode()) for name, value in problem_headers(error).items())
        await self.send({"type": "http.response.start", "status": error.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


def bounded(receive: Receive, bytes_max: int) -> Receive:
    """A body of unknown length, cut off with PayloadTooLarge once it is too long."""
    total = 0

    async def receive_bounded() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > bytes_max:
            raise PayloadTooLarge
        return message

    return receive_bounded


def _read_now(value: bytes) -> datetime:
    try:
        return parse_time(value.decode("ascii", "replace"))
    except ValueError as exc:
        raise ValidationFailed(errors=[FieldError("X-Now", "time_invalid", str(exc))]) from None


def _check_idempotency_key(scope: Scope, frame: dict[bytes, bytes]) -> None:
    """On POST and PUT under /api a key is 1 to 255 visible ASCII characters, and there is one at most."""
    key = frame.get(b"idempotency-key")
    if key is None or scope["method"] not in ("POST", "PUT") or not scope["path"].startswith("/api/"):
        return
    if not IDEMPOTENCY_KEY.fullmatch(key):
        message = "1 to 255 visible ASCII characters"
        raise ValidationFailed(errors=[FieldError("Idempotency-Key", "key_invalid", message)])
