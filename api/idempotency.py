"""Idempotency-Key, for every POST and PUT under /api but sign-in: one answer for one key, however often it is sent."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Final

from fastapi import Depends, Header, Request, Response
from fastapi.routing import APIRoute

from api.dependencies import Authenticated, authenticated, services_of, tenant_of
from api.errors import problem, translate
from models import idempotency
from models.errors import IdempotencyKeyMissing
from models.idempotency import Answer, Use

HEADER: Final = "idempotency-key"
REPLAYED: Final = {"idempotent-replayed": "true"}

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


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
    caller = await authenticated(request)
    use = Use(str(caller.store_id or caller.user_id), request.method, request.url.path, key)
    async with services_of(request).transaction_for(partial(tenant_of, request)) as tx:
        before = await idempotency.begin(tx, use, payload, wall=datetime.now(UTC))
        if before is not None:
            return _response(before, REPLAYED)
        request.scope["tx"] = tx
        try:
            async with tx.begin_nested():
                response = await handle(request)
        except Exception as exc:
            error = translate(exc)
            if error is None or error.status >= 500 or error.status == 429:
                raise
            response = problem(error, request.scope["request_id"])
        await idempotency.keep(tx, use, _answer(response))
    return response


def _answer(response: Response) -> Answer:
    return Answer(response.status_code, response.headers.get("content-type", ""), bytes(response.body))


def _response(answer: Answer, headers: dict[str, str]) -> Response:
    response = Response(answer.body, status_code=answer.status, headers=headers)
    if answer.media_type:
        response.headers["content-type"] = answer.media_type
    return response


async def _require_key(
    request: Request,
    _: Authenticated,  # whoever is not signed in is told that first
    idempotency_key: Annotated[str | None, Header(description="1 to 255 visible ASCII")] = None,
) -> None:
    if request.headers.get(HEADER) is None:
        raise IdempotencyKeyMissing


KeyRequired = Depends(_require_key)
"""In a route's `dependencies`: it is refused without an Idempotency-Key."""

KeyGiven = Annotated[None, KeyRequired]
"""The same as a parameter: behind the guard of the caller's role, so that who may not call hears that first."""
