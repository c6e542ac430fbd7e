"""Drives the HTTP API in tests: an application with its lifespan, and people who are signed in to it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import jwt

from api.app import Application, create_app
from api.services import Services
from ops.settings import Settings

PASSWORD = "correct horse battery"
ADDRESS = {"line1": "1 Main St", "city": "Portland", "state": "OR", "postal_code": "97201", "country": "US"}

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Api:
    """A running application and a client of it."""

    app: Application
    http: httpx.AsyncClient

    @property
    def services(self) -> Services:
        services = self.app.state.services
        assert isinstance(services, Services)
        return services

    def client(self, *, address: str = "127.0.0.1", **headers: str) -> httpx.AsyncClient:
        """Another client, at another address or with other headers."""
        transport = httpx.ASGITransport(self.app, client=(address, 1), raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers)

    def as_(self, person: Person) -> httpx.AsyncClient:
        """A client that is signed in as `person`."""
        return self.client(authorization=f"Bearer {person.access_token}")

    async def register(self, kind: str = "buyer", **changes: Any) -> Person:
        """Someone with a store of their own."""
        body = registration(kind) | changes
        data = created(await self.http.post("/api/v1/auth/register", json=body))
        return Person(body["email"], data["user"], data["store"], data["tokens"])

    async def register_admin(self) -> Person:
        body = {"email": new_email(), "password": PASSWORD}
        data = created(await self.http.post("/api/admin/auth/register", json=body))
        return Person(body["email"], data["user"], {}, data["tokens"])


@dataclass(frozen=True)
class Person:
    """Someone who is signed in; `store` is empty for admins and agents."""

    email: str
    user: dict[str, Any]
    store: dict[str, Any]
    tokens: dict[str, Any]

    @property
    def access_token(self) -> str:
        return str(self.tokens["access_token"])

    @property
    def refresh_token(self) -> str:
        return str(self.tokens["refresh_token"])


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Api]:
    """The application of `settings` with everything it starts, until the block ends."""
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, client=("127.0.0.1", 1), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
            yield Api(app, client)


def forged(api: Api, person: Person, *, key: bytes | None = None, algorithm: str = "HS256", **changes: Any) -> str:
    """An access token like the person's, with other claims or by another key; None takes a claim away."""
    claims = jwt.decode(person.access_token, options={"verify_signature": False}) | changes
    claims = {name: value for name, value in claims.items() if value is not None}
    kid, own = next(iter(api.services.settings.jwt_keys.items()))
    return jwt.encode(claims, "" if algorithm == "none" else key or own, algorithm=algorithm, headers={"kid": kid})


def new_email() -> str:
    return f"person-{next(_numbers)}@example.test"


def registration(kind: str = "buyer") -> dict[str, Any]:
    """A body that /auth/register accepts, of someone new."""
    return {
        "email": new_email(),
        "password": PASSWORD,
        "first_name": "Ada",
        "last_name": "Lovelace",
        "store": {"name": "Analytical Goods", "type": kind, "address": dict(ADDRESS)},
    }


def created(response: httpx.Response) -> Any:
    """The data of a 201."""
    assert response.status_code == 201, response.text
    return response.json()["data"]


def ok(response: httpx.Response) -> Any:
    """The data of a 200."""
    assert response.status_code == 200, response.text
    return response.json()["data"]


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem that a failure answers with, checked for the form that all of them have."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body.keys() == {"type", "title", "status", "code", "detail", "request_id", "errors"}
    assert (body["status"], body["code"]) == (status, code)
    assert body["request_id"] == response.headers["x-request-id"]
    assert all(entry.keys() == {"field", "code", "message"} for entry in body["errors"])
    return body


def fields(body: dict[str, Any]) -> set[str]:
    """The fields that a problem names."""
    return {entry["field"] for entry in body["errors"]}
