"""Whatever is sent to whatever route: an answer of API.md, never a fault of ours."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from models.database import new_id
from tests.api_driver import Api
from tests.contracts.bad_input import (
    BAD_BODIES,
    BAD_IDS,
    BAD_KEYS,
    BAD_QUERIES,
    BAD_TIMES,
    Document,
    Schema,
)
from tests.contracts.cast import Cast
from tests.contracts.route_matrix import ROUTES, Rule
from tests.contracts.test_route_matrix import LOGOUT, named

LOOP = pytest.mark.asyncio(loop_scope="module")
CODES = {
    400: {"idempotency_key_missing", "invalid_token", "invalid_signature"},
    401: {"unauthenticated", "token_expired", "session_revoked", "invalid_credentials"},
    403: {"forbidden", "active_store_required", "vendor_not_eligible"},
    404: {"not_found"},
    405: {"method_not_allowed"},
    409: {
        "state_conflict",
        "already_exists",
        "idempotency_in_progress",
        "media_protected",
        "license_not_expired",
        "cart_not_active",
        "no_orderable_items",
    },
    413: {"payload_too_large"},
    415: {"unsupported_media_type"},
    422: {"validation_failed", "idempotency_key_reused"},
    429: {"rate_limited"},
    503: {"unavailable"},
}
KEPT = {"POST /api/admin/ops/clock": {"now": None}}  #: bodies that must not be right: time would move for all tests
WEBHOOK = {"POST /webhooks/gcs": {"token": "dev-gcs-webhook-token"}}
_addresses = itertools.count(1)


@dataclass(frozen=True)
class Target:
    """A route, by whom it is called, and what it takes."""

    name: str
    path: str
    rule: Rule
    operation: Schema
    token: str | None

    @property
    def method(self) -> str:
        return self.name.partition(" ")[0]

    def parameters(self, place: str) -> list[str]:
        return [one["name"] for one in self.operation.get("parameters", ()) if one["in"] == place]


def targets(api: Api, cast: Cast) -> Iterator[Target]:
    """Every route, called by someone whom it lets in, about something of theirs."""
    for path, operations in api.app.openapi()["paths"].items():
        for method, operation in operations.items():
            name = named(method, path)
            rule = ROUTES[name]
            if name == LOGOUT:
                continue
            thing = cast.others.ids.get(rule.object or "", str(new_id()))
            filled = "/".join(thing if part.startswith("{") else part for part in path.split("/"))
            yield Target(name, filled, rule, operation, token_for(rule, cast))


def token_for(rule: Rule, cast: Cast) -> str | None:
    if not rule.by_login:
        return None
    for caller, person in (("vendor_owner", cast.others.vendor), ("buyer_owner", cast.others.buyer)):
        if caller in rule.let_in:
            return person.access_token
    return cast.tokens[rule.let_in[0]]


async def send(
    api: Api,
    target: Target,
    *,
    body: Any = None,
    raw: bytes | None = None,
    path: str | None = None,
    query: Mapping[str, str] | None = None,
    **headers: Any,
) -> httpx.Response:
    """A request; to sign in, each from an address of its own, so that failures do not add up."""
    if raw is None and target.method != "GET" and body is not None:
        raw = json.dumps(body).encode()
    named_headers: dict[str, Any] = {"content-type": "application/json"} if raw is not None else {}
    if target.token is not None:
        named_headers["authorization"] = f"Bearer {target.token}"
    if target.parameters("header") and target.method in ("POST", "PUT"):
        named_headers["idempotency-key"] = str(new_id())
    url = path or target.path
    pairs = WEBHOOK.get(target.name, {}) | dict(query or {})
    url += "?" + "&".join(f"{quote(name)}={quote(value)}" for name, value in pairs.items()) if pairs else ""
    if "/auth/" not in url:
        return await api.http.request(target.method, url, content=raw, headers=named_headers | headers)
    number = next(_addresses)
    async with api.client(address=f"10.0.{number >> 8}.{number & 255}") as client:
        return await client.request(target.method, url, content=raw, headers=named_headers | headers)


def fault(answer: httpx.Response, *expected: int) -> str | None:
    """What is wrong with an answer; with `expected`, only these statuses are right."""
    status = answer.status_code
    if expected and status not in expected:
        return f"{status}, not {expected}: {answer.text[:150]}"
    if status < 400:
        return None
    if answer.headers.get("content-type") != "application/problem+json":
        return f"{status} that is no problem: {answer.text[:150]}"
    problem = answer.json()
    if problem["code"] not in CODES.get(status, ()):
        return f"{status} {problem['code']}"
    return None


class Faults(list[str]):
    """What went wrong, each with what was sent."""

    def note(self, target: Target, sent: object, wrong: str | None) -> None:
        if wrong is not None:
            self.append(f"{target.name} {str(sent)[:120]!r}: {wrong}")

    def none(self) -> None:
        assert not self, f"{len(self)} faults\n" + "\n".join(self[:40])


@LOOP
async def test_a_body_with_anything_in_any_property(stage: Api, cast: Cast) -> None:
    document, faults, count = Document(stage.app.openapi()), Faults(), 0
    for target in targets(stage, cast):
        schema = document.body_of(target.operation)
        if schema is None:
            continue
        base = KEPT.get(target.name, document.example(schema))
        for body in document.spoilt(schema, base):
            count += 1
            faults.note(target, body, fault(await send(stage, target, body=body)))
    faults.none()
    assert count > 1_000


@LOOP
async def test_a_body_that_is_none(stage: Api, cast: Cast) -> None:
    document, faults = Document(stage.app.openapi()), Faults()
    for target in targets(stage, cast):
        schema = document.body_of(target.operation)
        if schema is None or target.rule.answer == (400, "invalid_signature"):
            continue
        optional = () if target.operation["requestBody"].get("required") else (b"", b"null")
        for raw in set(BAD_BODIES) - set(optional):
            faults.note(target, raw, fault(await send(stage, target, raw=raw), 422))
        if not target.path.startswith("/webhooks/"):
            unknown = KEPT.get(target.name, document.example(schema)) | {"surely_unknown": 1}
            faults.note(target, unknown, fault(await send(stage, target, body=unknown), 422))
            answer = await send(stage, target, raw=b"a=1", **{"content-type": "application/x-www-form-urlencoded"})
            faults.note(target, "a form", fault(answer, 415))
        faults.note(target, "2 MiB", fault(await send(stage, target, raw=b'"' + b"x" * (2 << 20) + b'"'), 413))
    faults.none()


@LOOP
async def test_any_query(stage: Api, cast: Cast) -> None:
    faults = Faults()
    for target in targets(stage, cast):
        for name in target.parameters("query"):
            for value in BAD_QUERIES:
                expected = (422,) if name in ("limit", "cursor") else ()
                answer = await send(stage, target, query={name: value})
                faults.note(target, f"{name}={value}", fault(answer, *expected))
    faults.none()


@LOOP
async def test_an_id_that_is_none_names_nothing(stage: Api, cast: Cast) -> None:
    document, faults = Document(stage.app.openapi()), Faults()
    for target in targets(stage, cast):
        if target.rule.object is None:
            continue
        thing = cast.others.ids.get(target.rule.object) or target.path.split("/")[-1]
        schema = document.body_of(target.operation)
        body = None if schema is None else document.example(schema)
        for wrong in BAD_IDS:
            path = "/".join(wrong if part == thing or is_id(part) else part for part in target.path.split("/"))
            faults.note(target, path, fault(await send(stage, target, path=path, body=body), 404))
    faults.none()


def is_id(part: str) -> bool:
    return len(part) == 36 and part.count("-") == 4


@LOOP
async def test_headers_that_nobody_can_read(stage: Api, cast: Cast) -> None:
    faults = Faults()
    for target in targets(stage, cast):
        for text in BAD_TIMES:
            faults.note(target, text, fault(await send(stage, target, **{"x-now": text.encode()}), 422))
        if target.method in ("POST", "PUT") and target.path.startswith("/api/"):
            for key in BAD_KEYS:
                answer = await send(stage, target, **{"idempotency-key": key.encode()})
                faults.note(target, key, fault(answer, 422))
    faults.none()
