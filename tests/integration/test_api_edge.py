"""The frame of every request and answer: problems, limits, headers, the time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import structlog
from fastapi import APIRouter

from api.app import create_app
from api.dependencies import Now, Tx
from ops.settings import Settings
from tests.api_driver import PASSWORD, Api, fields, ok, problem, registration, running

LOGIN = "/api/v1/auth/login"
REGISTER = "/api/v1/auth/register"


async def post_raw(api: Api, path: str, body: Any, **headers: str) -> httpx.Response:
    return await api.http.post(path, content=body, headers={"content-type": "application/json"} | headers)


async def test_unknown_path_is_a_problem(api: Api) -> None:
    problem(await api.http.get("/api/v1/nothing"), 404, "not_found")
    problem(await api.http.get("/healthz/"), 404, "not_found")


async def test_other_method_names_the_allowed(api: Api) -> None:
    response = await api.http.delete(LOGIN)
    problem(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


async def test_request_id_is_taken_when_it_is_a_plain_token(api: Api) -> None:
    taken = await api.http.get("/healthz", headers={"x-request-id": "order-7.a_b~c"})
    assert taken.headers["x-request-id"] == "order-7.a_b~c"
    for other in ("two words", "x" * 129, "", 'a"b', "é".encode()):
        answer = await api.http.get("/healthz", headers={"x-request-id": other})
        assert answer.headers["x-request-id"] not in (other, "")


async def test_request_ids_differ(api: Api) -> None:
    ids = {(await api.http.get("/healthz")).headers["x-request-id"] for _ in range(20)}
    assert len(ids) == 20


@pytest.mark.parametrize(
    "body",
    [b"{", b"", b"[1,2", b'{"email": "\xff"}', b'{"a":' * 100_000, b"[" * 200_000, b"null", b'"text"', b"NaN"],
)
async def test_malformed_json_is_refused(api: Api, body: bytes) -> None:
    problem(await post_raw(api, LOGIN, body), 422, "validation_failed")


async def test_unknown_field_is_refused_by_name(api: Api) -> None:
    body = registration()
    body["store"]["address"]["planet"] = "Mars"
    assert fields(problem(await api.http.post(REGISTER, json=body), 422, "validation_failed")) == {
        "store.address.planet"
    }


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("first_name", 5),
        ("first_name", None),
        ("first_name", " "),
        ("store.name", True),
        ("store.type", "farm"),
        ("store.address.lat", "45.5"),
        ("store.address.lat", True),
        ("store.address.lat", 91),
        ("store.address.state", "Oregon"),
        ("store.address.country", "CA"),
        ("email", "nobody"),
        ("email", "a@b@c.test"),
        ("password", "short"),
        ("password", "x" * 129),
    ],
)
async def test_wrong_value_is_refused_by_name(api: Api, path: str, value: Any) -> None:
    body = registration()
    *parents, last = path.split(".")
    place: Any = body
    for parent in parents:
        place = place[parent]
    place[last] = value
    assert fields(problem(await api.http.post(REGISTER, json=body), 422, "validation_failed")) == {path}


@pytest.mark.parametrize("text", ["nul \0 byte", "lone \ud800 surrogate"])
async def test_text_that_cannot_be_stored_is_refused(api: Api, text: str) -> None:
    for body in (
        registration() | {"first_name": text},
        registration() | {text: 1},
        registration() | {"password": text},
    ):
        problem(await post_raw(api, REGISTER, json.dumps(body).encode()), 422, "validation_failed")


async def test_not_a_number_is_refused(api: Api) -> None:
    body = json.dumps(registration()).replace('"country"', '"lat": NaN, "country"')
    assert "store.address.lat" in fields(problem(await post_raw(api, REGISTER, body), 422, "validation_failed"))


async def test_body_over_the_limit_is_refused(api: Api) -> None:
    padding = b'{"email": "' + b"x" * (1 << 20) + b'"}'

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(padding), 65_536):
            yield padding[start : start + 65_536]

    problem(await post_raw(api, LOGIN, padding), 413, "payload_too_large")
    problem(await post_raw(api, LOGIN, chunks()), 413, "payload_too_large")


async def test_body_at_the_limit_is_read(api: Api) -> None:
    body = b'{"email": "a@b.test", "password": "' + b"x" * ((1 << 20) - 37) + b'"}'
    assert len(body) == 1 << 20
    problem(await post_raw(api, LOGIN, body), 422, "validation_failed")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_other_content_is_refused(api: Api, kind: str) -> None:
    problem(await post_raw(api, LOGIN, b"{}", **{"content-type": kind}), 415, "unsupported_media_type")


async def test_json_with_a_charset_is_read(api: Api) -> None:
    answer = await post_raw(api, LOGIN, b"{}", **{"content-type": "Application/JSON; charset=utf-8"})
    problem(answer, 422, "validation_failed")


@pytest.mark.parametrize("key", ["", "x" * 256, "two words", "tab\tkey", "é".encode()])
async def test_malformed_idempotency_key_is_refused(api: Api, key: str | bytes) -> None:
    answer = await api.http.post(LOGIN, json={}, headers={"idempotency-key": key})
    assert fields(problem(answer, 422, "validation_failed")) == {"Idempotency-Key"}


async def test_two_idempotency_keys_are_refused(api: Api) -> None:
    headers = [("idempotency-key", "a"), ("idempotency-key", "b")]
    answer = await api.http.post(LOGIN, json={}, headers=headers)
    assert fields(problem(answer, 422, "validation_failed")) == {"Idempotency-Key"}


async def test_answers_carry_security_headers(api: Api) -> None:
    for path in ("/healthz", "/nothing"):
        headers = (await api.http.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert headers["cache-control"] == "no-store"


async def test_cors_follows_the_setting(api_settings: Settings) -> None:
    settings = api_settings.model_copy(update={"cors_origins": "https://shop.example"})
    async with running(settings) as api:
        mine = await api.http.get("/healthz", headers={"origin": "https://shop.example"})
        other = await api.http.get("/healthz", headers={"origin": "https://evil.example"})
    assert mine.headers["access-control-allow-origin"] == "https://shop.example"
    assert "access-control-allow-origin" not in other.headers


async def test_no_cors_by_default(api: Api) -> None:
    answer = await api.http.get("/healthz", headers={"origin": "https://shop.example"})
    assert "access-control-allow-origin" not in answer.headers


async def test_fault_of_ours_tells_nothing_and_is_logged(api: Api) -> None:
    router = APIRouter()

    @router.get("/api/fault")
    async def fault() -> None:
        raise KeyError("secret detail")

    api.app.router.routes.extend(router.routes)
    with structlog.testing.capture_logs() as logs:
        body = problem(await api.http.get("/api/fault"), 500, "internal_error")
    assert "secret" not in json.dumps(body)
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["request_failed"]


async def test_slow_request_is_cut_off(api_settings: Settings) -> None:
    async with running(api_settings.model_copy(update={"request_timeout_s": 0.05})) as api:
        router = APIRouter()

        @router.get("/api/slow")
        async def slow() -> None:
            await asyncio.sleep(5)

        api.app.router.routes.extend(router.routes)
        response = await api.http.get("/api/slow")
    problem(response, 503, "unavailable")
    assert int(response.headers["retry-after"]) >= 1


async def test_failed_handler_leaves_nothing_behind(api: Api) -> None:
    router = APIRouter()

    @router.get("/api/half")
    async def half(tx: Tx) -> None:
        from_there = await tx.connection()
        await from_there.exec_driver_sql("UPDATE logical_clock SET offset_us = 1 WHERE id = 1")
        raise RuntimeError

    api.app.router.routes.extend(router.routes)
    problem(await api.http.get("/api/half"), 500, "internal_error")
    async with api.services.transaction() as tx:
        connection = await tx.connection()
        assert (await connection.exec_driver_sql("SELECT offset_us FROM logical_clock")).scalar() == 0


async def test_x_now_is_the_time_of_its_request_alone(api: Api) -> None:
    router = APIRouter()

    @router.get("/api/now")
    async def now(at: Now) -> str:
        return at.isoformat()

    api.app.router.routes.extend(router.routes)
    told = await api.http.get("/api/now", headers={"x-now": "2031-05-01T10:00:00.5+02:00"})
    assert told.json() == "2031-05-01T08:00:00.500000+00:00"
    assert (await api.http.get("/api/now")).json() < "2031"


@pytest.mark.parametrize("text", ["yesterday", "2031-05-01", "2031-05-01T10:00:00", "1777", "2031-13-01T10:00:00Z", ""])
async def test_malformed_x_now_is_refused(api: Api, text: str) -> None:
    answer = await api.http.get("/healthz", headers={"x-now": text})
    assert fields(problem(answer, 422, "validation_failed")) == {"X-Now"}


async def test_x_now_is_ignored_in_production(api_settings: Settings) -> None:
    async with running(in_production(api_settings)) as api:
        assert (await api.http.get("/healthz", headers={"x-now": "yesterday"})).status_code == 200


async def test_what_is_for_tests_is_not_there_in_production(api_settings: Settings) -> None:
    async with running(in_production(api_settings)) as api:
        for path in ("/api/admin/ops/clock", "/api/admin/auth/register"):
            problem(await api.http.post(path, json={}), 404, "not_found")
        assert "strict-transport-security" in (await api.http.get("/healthz")).headers


def in_production(settings: Settings) -> Settings:
    return settings.model_copy(update={"packstream_env": "prod"})


async def test_ready_when_all_parts_answer(api: Api) -> None:
    assert ok(await api.http.get("/readyz")) == {"status": "ok"}


async def test_ready_names_the_parts_that_do_not_answer(api_settings: Settings) -> None:
    nowhere = {"database_app_url": "postgresql://a:b@127.0.0.1:1/x", "redis_url": "redis://127.0.0.1:1/0"}
    async with running(api_settings.model_copy(update=nowhere)) as api:
        assert fields(problem(await api.http.get("/readyz"), 503, "unavailable")) == {"postgres", "redis"}
        assert (await api.http.get("/healthz")).status_code == 200


async def test_not_ready_before_the_newest_migration(alone: Api, alone_settings: Settings) -> None:
    async with running(alone_settings.model_copy(update={"database_app_url": None})) as owner:
        async with owner.services.transaction() as tx:
            await (await tx.connection()).exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
    assert fields(problem(await alone.http.get("/readyz"), 503, "unavailable")) == {"migrations"}


async def test_not_ready_while_it_stops(api: Api) -> None:
    api.services.draining = True
    assert fields(problem(await api.http.get("/readyz"), 503, "unavailable")) == {"process"}


async def test_database_away_is_unavailable(api_settings: Settings) -> None:
    away = {"database_app_url": "postgresql://a:b@127.0.0.1:1/x"}
    async with running(api_settings.model_copy(update=away)) as api:
        response = await api.http.post(LOGIN, json={"email": "a@b.test", "password": PASSWORD})
    problem(response, 503, "unavailable")
    assert int(response.headers["retry-after"]) >= 1


async def test_requests_are_counted_by_route(api: Api) -> None:
    await api.http.get("/healthz")
    await api.http.get("/no/such/path")
    text = (await api.http.get("/metrics")).text
    assert 'packstream_http_requests_total{method="GET",route="/healthz",status="200"} 1.0' in text
    assert 'packstream_http_requests_total{method="GET",route="unmatched",status="404"} 1.0' in text
    assert "/no/such/path" not in text


async def test_document_names_the_problems_of_every_route(api: Api) -> None:
    document = (await api.http.get("/openapi.json")).json()
    problems = {"$ref": "#/components/schemas/Problem"}
    assert "Problem" in document["components"]["schemas"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if path.startswith("/api/"):
                for status in ("422", "429", "503"):
                    content = operation["responses"][status]["content"]
                    assert content["application/problem+json"]["schema"] == problems, (path, method, status)


def test_production_document_lacks_what_is_for_tests(api_settings: Settings) -> None:
    paths = create_app(in_production(api_settings)).openapi()["paths"]
    assert "/api/admin/ops/clock" not in paths
    assert "/api/admin/auth/login" in paths


async def test_docs_page_may_load_its_scripts(api: Api) -> None:
    page = await api.http.get("/docs")
    assert page.status_code == 200
    assert "cdn.jsdelivr.net" in page.headers["content-security-policy"]
