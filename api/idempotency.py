"""Idempotency-Key, for every POST and PUT under /api but sign-in: one answer for one key, however often it is sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Final

from fastapi import Depends, Header, Request, Response
from fastapi.routing import APIRoute
from sqlalchemy.ext.asyncio import AsyncSession

from api.dependencies import Member, authenticated, services_of, tenant_of
from api.errors import not_json, problem, translate
from models import idempotency
from models.database import Driver, savepoint
from models.errors import IdempotencyKeyMissing
from models.idempotency import Answer, Use
from models.identity.tokens import Caller

HEADER: Final = "idempotency-key"
REPLAYED: Final = {"idempotent-replayed": "true"}

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
Command = Callable[[Request, Member, Driver], Coroutine[Any, Any, Response]]


class IdempotentRoute(APIRoute):
    """A route whose POST and PUT honour Idempotency-Key.

    Its handler's `Tx` is the transaction that holds the key: effect and answer commit together. Kept are answers of 2xx
    and refusals that would be the same again; not 5xx and 429, after which the key is free.
    """

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()
        if not {"POST", "PUT"} & (self.methods or set()) or "/auth/" in self.path:
            return handle  # reads, and sign-in: no tokens at rest

        async def handler(request: Request) -> Response:
            key = request.headers.get(HEADER)
            if key is None:
                return await handle(request)
            payload = idempotency.fingerprint(await request.body())
            return await handle(request) if payload is None else await _once(request, handle, key, payload)

        return handler


async def _once(request: Request, handle: Handler, key: str, payload: bytes) -> Response:
    use = _use(await authenticated(request), request, key)
    async with services_of(request).transaction_for(partial(tenant_of, request)) as tx:
        request.scope["tx"] = tx
        return await _answered(tx, use, payload, partial(handle, request), request_id=request.scope["request_id"])


def once(guard: Callable[[Caller], Member]) -> Callable[[Command], Handler]:
    """For the endpoint of a plain route: it is called with whom `guard` lets in, and a transaction for their store that
    holds the key; as an IdempotentRoute that requires one does it."""

    def decorate(act: Command) -> Handler:
        async def endpoint(request: Request) -> Response:
            return await _once_over_the_driver(request, guard, act)

        # Not functools.wraps: FastAPI would find the other's parameters.
        endpoint.__name__, endpoint.__doc__ = act.__name__, act.__doc__
        ONCE.add(endpoint)
        return endpoint

    return decorate


ONCE: Final[set[Handler]] = set()
"""Endpoints of plain routes that honour an Idempotency-Key."""


async def _once_over_the_driver(request: Request, guard: Callable[[Caller], Member], act: Command) -> Response:
    caller = await authenticated(request)
    key = request.headers.get(HEADER)
    if key is None:
        guard(caller)
        raise IdempotencyKeyMissing
    payload = idempotency.fingerprint(await request.body())
    if payload is None:
        guard(caller)
        raise not_json()
    async with services_of(request).drivers.begin(tenant_of(request)) as db:

        async def effect() -> Response:
            return await act(request, guard(caller), db)

        use, request_id = _use(caller, request, key), request.scope["request_id"]
        return await _answered(db, use, payload, effect, request_id=request_id)


async def _answered(
    tx: AsyncSession | Driver, use: Use, payload: bytes, act: Callable[[], Awaitable[Response]], *, request_id: str
) -> Response:
    """The answer that is kept with the key, or that of `act`, kept from now on."""
    before = await idempotency.begin(tx, use, payload, wall=datetime.now(UTC))
    if before is not None:
        return _response(before, REPLAYED)
    try:
        async with savepoint(tx):
            response = await act()
    except Exception as exc:
        error = translate(exc)
        if error is None or error.status >= 500 or error.status == 429:
            raise
        response = problem(error, request_id)
    await idempotency.keep(tx, use, _answer(response))
    return response


def _use(caller: Caller, request: Request, key: str) -> Use:
    return Use(str(caller.store_id or caller.user_id), request.method, request.url.path, key)


def _answer(response: Response) -> Answer:
    return Answer(response.status_code, response.headers.get("content-type", ""), bytes(response.body))


def _response(answer: Answer, headers: dict[str, str]) -> Response:
    response = Response(answer.body, status_code=answer.status, headers=headers)
    if answer.media_type:
        response.headers["content-type"] = answer.media_type
    return response


async def _require_key(
    request: Request, idempotency_key: Annotated[str | None, Header(description="1 to 255 visible ASCII")] = None
) -> None:
    await authenticated(request)  # whoever is not signed in is told that first
    if idempotency_key is None:
        raise IdempotencyKeyMissing


KEY_DOCS: Final = {
    "security": [{"HTTPBearer": []}],
    "parameters": [
        {
            "name": HEADER,
            "in": "header",
            "required": True,
            "description": "1 to 255 visible ASCII",
            "schema": {"type": "string"},
        }
    ],
}
"""For a plain route's `openapi_extra`: `once` wants a caller and a key."""

KeyRequired = Depends(_require_key)
"""In a route's `dependencies`: it is refused without an Idempotency-Key."""

KeyGiven = Annotated[None, KeyRequired]
"""The same as a parameter: behind the guard of the caller's role, so that who may not call hears that first."""
