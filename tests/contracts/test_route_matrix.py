"""Every route with every kind of caller: who may not call it hears why, and nobody hears of another store's things."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from starlette.routing import Route

from api.idempotency import ONCE, IdempotentRoute
from models.database import new_id
from tests.api_driver import PASSWORD, Api, problem
from tests.contracts.bad_input import Document
from tests.contracts.cast import Belongings, Cast
from tests.contracts.route_matrix import ANY, CALLERS, HOW, NAMED_IN_BODIES, ROUTES, UNDOCUMENTED, Rule

LOOP = pytest.mark.asyncio(loop_scope="module")
LOGOUT = "POST /api/v1/auth/logout"  #: ends the caller's session: it has the last test


def named(method: str, path: str) -> str:
    """A route as the matrix has it."""
    return f"{method.upper()} {re.sub(r'{[^}]*}', '{id}', path)}"


def documented(api: Api) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, operations in api.app.openapi()["paths"].items():
        for method, operation in operations.items():
            yield named(method, path), operation


def served(api: Api) -> Iterator[tuple[str, Route]]:
    for route in api.app.router.routes:
        if isinstance(route, Route):
            for method in route.methods or ():
                yield named(method, route.path), route


def classified(api: Api) -> list[tuple[str, Rule]]:
    """The routes that exist."""
    return [(name, ROUTES[name]) for name, _ in documented(api) if name in ROUTES]


async def call(api: Api, token: str | None, name: str, rule: Rule, object_id: str, *, key: bool = False) -> Any:
    """A request to a route, about an object where its path names one."""
    method, _, path = name.partition(" ")
    path = path.replace("{id}", object_id) + (f"?{urlencode(rule.query)}" if rule.query else "")
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    if key and method in ("POST", "PUT"):
        headers["idempotency-key"] = str(new_id())
    body = None if method in ("GET", "DELETE") else dict(rule.body)
    return await api.http.request(method, path, json=body, headers=headers)


def code_of(answer: httpx.Response) -> str | None:
    """A problem's code; None for any other answer."""
    is_problem = answer.headers.get("content-type") == "application/problem+json"
    return str(answer.json()["code"]) if is_problem else None


def test_every_route_is_classified(stage: Api) -> None:
    missing = sorted({name for name, _ in documented(stage)} - ROUTES.keys())
    assert not missing, HOW.format(routes=", ".join(missing))


def test_every_route_is_in_the_document(stage: Api) -> None:
    assert {name for name, _ in served(stage)} - {name for name, _ in documented(stage)} == set(UNDOCUMENTED)


def test_the_document_says_which_routes_need_a_login(stage: Api) -> None:
    said = {name: "security" in operation for name, operation in documented(stage)}
    assert said == {name: rule.by_login for name, rule in classified(stage)}


def test_every_post_and_put_but_sign_in_honours_an_idempotency_key(stage: Api) -> None:
    """`route_class=IdempotentRoute` at the router, or `@once` at the endpoint of a plain route."""
    writes = {
        name: isinstance(route, IdempotentRoute) or route.endpoint in ONCE
        for name, route in served(stage)
        if name.startswith(("POST /api/", "PUT /api/")) and "/auth/" not in name
    }
    assert [name for name, honours in writes.items() if not honours] == []


@LOOP
async def test_who_may_not_call_a_route_hears_why(stage: Api, cast: Cast) -> None:
    wrong = []
    for name, rule in classified(stage):
        for caller in CALLERS:
            expected = rule.refusal(caller)
            if expected is None:
                continue
            answer = await call(stage, cast.tokens[caller], name, rule, str(new_id()))
            if (answer.status_code, code_of(answer)) != expected:
                wrong.append(f"{name} by {caller}: {answer.status_code} {code_of(answer)}, not {expected}")
    assert not wrong, "\n".join(wrong)


@LOOP
async def test_a_route_with_a_credential_of_its_own_takes_no_login_for_it(stage: Api, cast: Cast) -> None:
    wrong = []
    for name, rule in classified(stage):
        for caller in CALLERS if rule.answer else ():
            answer = await call(stage, cast.tokens[caller], name, rule, str(new_id()))
            if (answer.status_code, code_of(answer)) != rule.answer:
                wrong.append(f"{name} by {caller}: {answer.status_code} {code_of(answer)}, not {rule.answer}")
    assert not wrong, "\n".join(wrong)


def faults(answer: httpx.Response, rule: Rule, others: Belongings) -> Iterator[str]:
    """What is wrong with the answer to someone whom the route lets in."""
    if answer.status_code in (401, 403) or (answer.status_code >= 500 and answer.status_code != rule.lacking):
        yield f"{answer.status_code} {code_of(answer)}"
    if rule.object is not None and (answer.status_code, code_of(answer)) != (404, "not_found"):
        yield f"{answer.status_code} {code_of(answer)} for an object that is not theirs: {answer.text[:200]}"
    told = [secret for secret in others.secrets if rule.for_stores and secret in answer.text]
    if told:
        yield f"tells of {told}"


@LOOP
async def test_who_is_let_in_hears_nothing_of_another_store(stage: Api, cast: Cast) -> None:
    wrong = []
    ids = {**cast.others.ids, ANY: str(new_id())}
    for name, rule in classified(stage):
        if rule.answer is not None or name == LOGOUT:
            continue
        unknown = [] if rule.object in (None, *ids) else [rule.object]
        assert not unknown, f"{name}: make a {unknown} in Belongings of tests/contracts/cast.py"
        for caller in rule.let_in if rule.by_login else ("nobody",):
            answer = await call(stage, cast.tokens[caller], name, rule, ids[rule.object or ANY], key=True)
            wrong += [f"{name} by {caller}: {fault}" for fault in faults(answer, rule, cast.others)]
    assert not wrong, "\n".join(wrong)


@LOOP
async def test_an_id_of_another_store_is_answered_as_one_that_nobody_has(stage: Api, cast: Cast) -> None:
    for name, rule in classified(stage):
        if rule.object in cast.others.ids:
            token = cast.tokens[rule.let_in[0]]
            theirs = await call(stage, token, name, rule, cast.others.ids[str(rule.object)], key=True)
            nobodys = await call(stage, token, name, rule, str(new_id()), key=True)
            assert theirs.status_code == 404, f"{name}: {theirs.text}"
            assert theirs.json() | {"request_id": ""} == nobodys.json() | {"request_id": ""}, name
            assert theirs.headers.keys() == nobodys.headers.keys()


@LOOP
async def test_an_id_of_another_store_in_a_body_is_not_found(stage: Api, cast: Cast) -> None:
    document = Document(stage.app.openapi())
    operations = dict(documented(stage))
    for name, caller, field, kind in NAMED_IN_BODIES:
        schema = document.body_of(operations[name])
        assert schema is not None
        named_id: Any = cast.others.ids[kind]
        body = document.example(schema) | {field: [named_id] if field.endswith("_ids") else named_id}
        body |= {"target_type": "product"} if field == "target_product_id" else {}
        answer = await call(stage, cast.tokens[caller], name, replace(ROUTES[name], body=body), "", key=True)
        assert (answer.status_code, code_of(answer)) == (404, "not_found"), f"{name} {field}: {answer.text}"


@LOOP
async def test_a_store_of_others_cannot_be_chosen(stage: Api) -> None:
    person, other = await stage.register(), await stage.register("vendor")
    chosen = {"store_id": other.store["id"]}
    login = {"email": person.email, "password": PASSWORD}
    problem(await stage.http.post("/api/v1/auth/login", json=login | chosen), 404, "not_found")
    refresh = {"refresh_token": person.refresh_token}
    problem(await stage.http.post("/api/v1/auth/refresh", json=refresh | chosen), 404, "not_found")


@LOOP
async def test_the_others_themselves_find_their_things(stage: Api, cast: Cast) -> None:
    """Else a 404 would prove nothing."""
    for name, rule in classified(stage):
        if rule.object in cast.others.ids and name.startswith("GET ") and not name.endswith("/url"):
            person = cast.others.buyer if "vendor_owner" not in rule.let_in else cast.others.vendor
            answer = await call(stage, person.access_token, name, rule, cast.others.ids[str(rule.object)])
            assert answer.status_code == 200, f"{name}: {answer.text}"
    lists = {
        "/api/v1/stores/me/users": "user",
        "/api/v1/licenses": "license",
        "/api/v1/vendor/promos": "promo",
        "/api/v1/notifications": "notification",
    }
    for path, kind in lists.items():
        assert cast.others.ids[kind] in (await stage.as_(cast.others.vendor).get(path)).text, path


@LOOP
async def test_whoever_is_signed_in_may_sign_out(stage: Api, cast: Cast) -> None:
    rule = ROUTES[LOGOUT]
    for caller in rule.let_in:
        answers = [await call(stage, cast.tokens[caller], LOGOUT, rule, "") for _ in range(2)]
        assert [answer.status_code for answer in answers] == [204, 401], caller
