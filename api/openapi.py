"""The OpenAPI document: what FastAPI derives from the routes, plus the problems that each may answer with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel

from api.dependencies import GUARDS
from api.errors import MEDIA_TYPE
from api.plain_routes import BODIES, COMPONENT
from schemas.http.common import Problem

PROBLEM: Final = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
BEARER: Final = "HTTPBearer"
DESCRIPTIONS: Final = {
    400: "A token, a signature or a needed header is missing or wrong",
    401: "No valid access token, or its session has ended",
    403: "The caller's role or store does not allow this",
    404: "There is no such thing, or it is not the caller's",
    409: "The present state does not allow this",
    413: "The body is over 1 MiB",
    415: "The body is not JSON",
    422: "A field, parameter or header is not valid",
    429: "Too many requests",
    500: "A fault of the server",
    503: "A part that this request needs does not answer",
}


def describe(app: FastAPI) -> dict[str, Any]:
    """The whole document."""
    document = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    shapes: dict[str, type[BaseModel]] = {"Problem": Problem, **BODIES}
    for name, model in shapes.items():
        schema = model.model_json_schema(ref_template=COMPONENT)
        schemas |= schema.pop("$defs", {})
        schemas[name] = schema
    components["securitySchemes"] = {BEARER: {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}
    for route in app.routes:
        if isinstance(route, APIRoute) and route.include_in_schema:
            for method in route.methods or ():
                _complete(document["paths"][route.path_format][method.lower()], route, method)
    return document


def _complete(operation: dict[str, Any], route: APIRoute, method: str) -> None:
    """Add who may call it and what it answers when it cannot."""
    secured = needs_caller(route.dependant) or "security" in operation
    if secured:
        operation["security"] = [{BEARER: []}]
    responses = operation.setdefault("responses", {})
    responses.pop("422", None)
    for status in _statuses(operation, route, method, secured=secured):
        responses.setdefault(str(status), {"description": DESCRIPTIONS[status], "content": PROBLEM})


def _statuses(operation: dict[str, Any], route: APIRoute, method: str, *, secured: bool) -> Iterator[int]:
    if not route.path.startswith("/api/"):
        return
    yield from (422, 429, 500, 503)
    if secured:
        yield from (401, 403)
    if route.path_format.count("{") or "requestBody" in operation:
        yield 404
    if method in ("POST", "PUT", "PATCH", "DELETE"):
        yield from (409, 413, 415)


def needs_caller(dependant: Dependant) -> bool:
    """Whether a route's dependencies ask for a caller."""
    return dependant.call in GUARDS or any(needs_caller(child) for child in dependant.dependencies)
