"""Routes for which every microsecond counts: they take the plain request and answer with a response of their own.

FastAPI documents them as any other; the application asks them before it builds up what the other routes need.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

from fastapi import APIRouter
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import handle

COMPONENT: Final = "#/components/schemas/{model}"
BODIES: Final[dict[str, type[BaseModel]]] = {}  #: what plain routes take, by name

M = TypeVar("M", bound=BaseModel)


class Json(Response):
    """An answer that is JSON bytes already."""

    def __init__(self, body: bytes, status_code: int = 200) -> None:
        self.body = body
        self.status_code = status_code
        self.background = None
        self.raw_headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]


def body_of(model: type[M], data: bytes) -> M:
    """A request's body; RequestValidationError as FastAPI has it."""
    try:
        return model.model_validate_json(data)
    except ValidationError as exc:
        raise RequestValidationError([{**error, "loc": ("body", *error["loc"])} for error in exc.errors()]) from exc


def body_docs(model: type[BaseModel]) -> dict[str, Any]:
    """For `openapi_extra`: a body of this shape is required, which the document keeps under the model's name."""
    BODIES[model.__name__] = model
    schema = {"$ref": COMPONENT.format(model=model.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


class PlainRoute(APIRoute):
    """A route whose endpoint is given the request and gives the response, with nothing in between."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; another method than the route's own is refused as everywhere."""
        if scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)
            return
        response: Response = await self.endpoint(Request(scope, receive, send))
        await response(scope, receive, send)


class Shortcut:
    """Finds plain routes by one look-up; everything else goes to `others`.

    The errors `handled` become the same problems as everyone's; any other is the edge's.
    """

    def __init__(self, router: APIRouter, others: ASGIApp, *, handled: tuple[type[Exception], ...]) -> None:
        self._others = others
        self._handled = handled
        self._routes = {
            (method, route.path): route
            for route in router.routes
            if isinstance(route, PlainRoute) and "{" not in route.path
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if route is None:
            await self._others(scope, receive, send)
            return
        scope["route"], scope["endpoint"], scope["path_params"] = route, route.endpoint, {}
        request = Request(scope, receive, send)
        response: Response
        try:
            response = await route.endpoint(request)
        except self._handled as exc:
            response = await handle(request, exc)
        await response(scope, receive, send)
