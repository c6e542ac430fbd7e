"""How failures become RFC 9457 problems: one mapping for all of them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final

import orjson
import structlog
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from models.errors import (
    FieldError,
    NotFound,
    PackstreamError,
    PayloadTooLarge,
    Unauthenticated,
    Unavailable,
    UnsupportedMediaType,
    ValidationFailed,
)

MEDIA_TYPE: Final = "application/problem+json"
ERRORS_MAX: Final = 100  #: a problem with a cart names each of its lines
# Postgres says: connection lost, out of resources, shutting down, serialization or deadlock, lock not available.
PASSING_SQLSTATES: Final = ("08", "53", "57", "40", "55P03")

log = structlog.get_logger()


class MethodNotAllowed(PackstreamError):
    status, code, title = 405, "method_not_allowed", "This route has no such method"


class OtherProblem(PackstreamError):
    """A status of the framework that API.md does not name."""

    title: ClassVar[str] = "The request cannot be answered"

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status  # type: ignore[misc]  # the class's own is only a default
        self.code = f"http_{status}"


def problem_body(error: PackstreamError, request_id: str) -> bytes:
    """The problem as JSON."""
    return orjson.dumps(
        {
            "type": f"urn:packstream:problem:{error.code}",
            "title": error.title,
            "status": error.status,
            "code": error.code,
            "detail": printable(error.detail),
            "request_id": request_id,
            "errors": [{k: printable(v) for k, v in entry._asdict().items()} for entry in error.errors[:ERRORS_MAX]],
        }
    )


def problem_headers(error: PackstreamError) -> dict[str, str]:
    """Headers that belong to the problem, besides its content type."""
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(error.retry_after_s)
    if isinstance(error, Unauthenticated):
        headers["www-authenticate"] = "Bearer"
    return headers


def problem(error: PackstreamError, request_id: str, headers: Mapping[str, str] | None = None) -> Response:
    """The answer that tells a client of `error`."""
    return Response(
        problem_body(error, request_id),
        status_code=error.status,
        media_type=MEDIA_TYPE,
        headers={**problem_headers(error), **(headers or {})},
    )


def printable(text: str) -> str:
    """Text as UTF-8 can carry it: a lone surrogate that a client sent becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


async def handle(request: Request, exc: Exception) -> Response:
    """Answer any expected exception; anything else is raised on, to be logged and answered with 500."""
    error = translate(exc)
    if error is None:
        raise exc
    headers = dict(exc.headers or {}) if isinstance(exc, HTTPException) else {}
    return problem(error, request.scope["request_id"], headers)


def translate(exc: BaseException) -> PackstreamError | None:
    """The problem that an exception stands for; None when it is a fault of ours."""
    match exc:
        case PackstreamError():
            return exc
        case RequestValidationError():
            return _of_validation(exc.errors())
        case HTTPException():
            return _of_framework(exc)
        case PoolTimeout() | ConnectionError() | socket.gaierror() | asyncio.TimeoutError():
            return _unreachable(exc)
        case DBAPIError() if _passing(exc):
            return _unreachable(exc)
    return None


def _passing(exc: DBAPIError) -> bool:
    state = str(getattr(exc.orig, "sqlstate", None) or "")
    lost = exc.connection_invalidated or (not state and isinstance(exc, (OperationalError, InterfaceError)))
    return lost or state.startswith(PASSING_SQLSTATES)


def _unreachable(exc: BaseException) -> Unavailable:
    log.warning("dependency_unavailable", error=f"{type(exc).__name__}: {exc}"[:500])
    return Unavailable("a part that this request needs does not answer")


def not_json() -> ValidationFailed:
    """The problem with a body that is no JSON."""
    return ValidationFailed("the body is not valid JSON", errors=[FieldError("body", "json_invalid", "not JSON")])


def _of_framework(exc: HTTPException) -> PackstreamError:
    match exc.status_code:
        case 404:
            return NotFound("there is no such route")
        case 405:
            return MethodNotAllowed()
        case 413:
            return PayloadTooLarge()
        case 415:
            return UnsupportedMediaType()
        case 400 if isinstance(exc.__cause__, PackstreamError):  # raised while the framework read the body
            return exc.__cause__
        case 400 | 422:
            return not_json()
    return OtherProblem(exc.status_code, exc.detail)


def _of_validation(errors: Iterable[Any]) -> PackstreamError:
    """A path that cannot name anything names nothing; the rest is a 422 with each field."""
    listed = list(errors)
    if any(error["loc"][:1] == ("path",) for error in listed):
        return NotFound()
    return ValidationFailed(errors=[_field_error(error) for error in listed])


def _field_error(error: Mapping[str, Any]) -> FieldError:
    place, *names = error["loc"]
    field = ".".join(map(str, names)) or str(place)
    if error["type"] == "json_invalid":
        field = str(place)
    return FieldError(field[:200], error["type"], str(error["msg"]).removeprefix("Value error, ")[:500])
