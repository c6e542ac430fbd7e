"""The operators' console: one page, its script and its style; all that it shows comes from the admin routes."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fastapi import APIRouter, Response

import api

FILES: Final = Path(api.__file__).parent / "console"
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
KINDS: Final = {"index.html": "text/html", "console.js": "text/javascript", "console.css": "text/css"}

router = APIRouter(prefix="/console", include_in_schema=False)


def _file(name: str) -> Response:
    headers = {"content-security-policy": POLICY, "cache-control": "no-cache"}
    return Response((FILES / name).read_bytes(), media_type=f"{KINDS[name]}; charset=utf-8", headers=headers)


@router.get("")
def page() -> Response:
    return _file("index.html")


@router.get("/console.js")
def script() -> Response:
    return _file("console.js")


@router.get("/console.css")
def style() -> Response:
    return _file("console.css")
