"""Health, metrics, and the pages that describe the API."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

from alembic.script import ScriptDirectory
from fastapi import APIRouter, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

import models
from api.dependencies import Process
from api.envelope import Envelope
from api.services import Services
from models.errors import FieldError, Unavailable
from schemas.http.ops import Health

router = APIRouter(tags=["health"])

OK: Final = b'{"data":{"status":"ok"}}'
MIGRATIONS: Final = Path(models.__file__).resolve().parents[1] / "migrations"
DOCS_POLICY: Final = (
    "default-src 'none'; connect-src 'self'; img-src 'self' data: https://fastapi.tiangolo.com; "
    "script-src 'unsafe-inline' https://cdn.jsdelivr.net; style-src 'unsafe-inline' https://cdn.jsdelivr.net; "
    "frame-ancestors 'none'"
)


@router.get("/healthz", response_model=Envelope[Health])
async def process_is_up() -> Response:
    """The process is up. It asks nobody."""
    return Response(OK, media_type="application/json")


@router.get("/readyz", response_model=Envelope[Health])
async def ready(services: Process) -> Response:
    """Postgres and Redis answer and the schema is the newest; else 503 names what is not so."""
    faults = [*([_fault("process", "draining")] if services.draining else [])]
    faults += await _database_faults(services)
    try:
        await services.redis.execute("PING")
    except Unavailable:
        faults.append(_fault("redis", "unreachable"))
    if faults:
        problem = Unavailable("not ready: " + ", ".join(f"{fault.field} {fault.code}" for fault in faults))
        problem.errors = tuple(faults)
        raise problem
    return Response(OK, media_type="application/json")


@router.get("/metrics", response_class=Response)
async def metrics(services: Process) -> Response:
    """Prometheus, text format."""
    return Response(generate_latest(REGISTRY) + generate_latest(services.metrics), media_type=CONTENT_TYPE_LATEST)


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> Response:
    """Swagger's page over /openapi.json."""
    page = get_swagger_ui_html(openapi_url="/openapi.json", title=request.app.title)
    page.headers["content-security-policy"] = DOCS_POLICY
    return page


async def _database_faults(services: Services) -> list[FieldError]:
    try:
        async with services.transaction() as tx:
            found = await tx.scalar(text("SELECT version_num FROM alembic_version"))
    except (SQLAlchemyError, OSError) as exc:
        missing = getattr(getattr(exc, "orig", None), "sqlstate", None) == "42P01"
        return [_fault("migrations", "not_at_head") if missing else _fault("postgres", "unreachable")]
    return [] if suits(found, newest_revision()) else [_fault("migrations", "not_at_head")]


def suits(found: str | None, newest: str | None) -> bool:
    """Whether the schema is the one this code knows, or one of a release that follows.

    A migration suits the code that already runs, so processes stay ready while the next release rolls out.
    """
    if found is None or newest is None or not found.isdecimal():
        return False
    return int(found) >= int(newest)


@cache
def newest_revision() -> str | None:
    """The revision that this code was written for."""
    return ScriptDirectory(str(MIGRATIONS)).get_current_head()


def _fault(part: str, code: str) -> FieldError:
    return FieldError(part, code, f"{part}: {code.replace('_', ' ')}")
