"""The fake Stripe within a test: it listens on a port of its own and sends its webhooks to the test's API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from aiohttp import web
from stripe import WebhookSignature

from models.database import new_id
from ops.settings import Settings
from ops.stack.servers.stripe import FakeStripe
from ops.stack.servers.stripe_memory import Memory
from ops.stack.servers.stripe_news import News
from tests.api_driver import Api, Person, running

SUBSCRIPTION = "/api/v1/vendor/subscription"
CHARGES = "/api/v1/vendor/billing/charges"
WEBHOOK = "/webhooks/stripe"
SECRET = "whsec_dev"


@dataclass
class Account:
    """The fake and its address. `api`: where webhooks go; None: nowhere, they wait."""

    fake: FakeStripe
    base: str
    api: Api | None = None

    def all(self, kind: str) -> list[dict[str, Any]]:
        """Stripe's objects of a kind, newest first."""
        return self.fake.account.memory.all(kind)

    def fail(self, asked: str, kind: str, times: int = 1) -> None:
        self.fake.faults.plan(asked, kind, times)

    def forget_keys(self) -> None:
        with self.fake.account.memory.transaction():
            self.fake.account.memory.forget_answers()

    async def settle(self) -> None:
        """Until the API has taken all news, what comes of the first payments too."""
        await self.fake.settle()


@asynccontextmanager
async def fake_stripe(directory: Path) -> AsyncIterator[Account]:
    """A fake with nothing in it."""
    memory = Memory(directory / f"{new_id()}.sqlite")
    account: Account | None = None

    async def push(payload: bytes, signature: str) -> str | None:
        if account is None or account.api is None:
            return "nobody listens"
        answer = await account.api.http.post(WEBHOOK, content=payload, headers=signed_with(signature))
        return None if answer.is_success else answer.text

    async def now() -> datetime:
        return datetime.now(UTC) if account is None or account.api is None else account.api.services.clock.now()

    fake = FakeStripe(memory, now, News(memory, push, SECRET, now), activation_s=0.02)
    runner = web.AppRunner(fake.app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    account = Account(fake, f"http://127.0.0.1:{runner.addresses[0][1]}")
    try:
        yield account
    finally:
        await runner.cleanup()
        memory.close()


@asynccontextmanager
async def running_with(settings: Settings, account: Account) -> AsyncIterator[Api]:
    """An API that asks the fake, and hears of it."""
    async with running(settings.model_copy(update={"stripe_api_base": account.base})) as api:
        account.api = api
        try:
            yield api
        finally:
            await account.settle()
            account.api = None


def signed_with(signature: str) -> dict[str, str]:
    return {"stripe-signature": signature, "content-type": "application/json"}


def event(kind: str, about: dict[str, Any], *, created: datetime, event_id: str | None = None) -> dict[str, Any]:
    """An event as Stripe words it."""
    return {
        "id": event_id or f"evt_{new_id().hex}",
        "object": "event",
        "type": kind,
        "created": int(created.timestamp()),
        "data": {"object": about},
    }


def state(store_id: str | None, status: str, *, stripe_id: str, created: datetime, **more: Any) -> dict[str, Any]:
    """A subscription as Stripe words it."""
    metadata = {} if store_id is None else {"store_id": store_id}
    fields = {"id": stripe_id, "object": "subscription", "customer": f"cus_of_{stripe_id}", "status": status}
    return fields | {"created": int(created.timestamp()), "metadata": metadata} | more


async def tell(
    api: Api, body: dict[str, Any] | bytes, *, at: datetime | None = None, secret: str = SECRET
) -> httpx.Response:
    """Send an event, signed at a time (now)."""
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    signed_s = int((at or datetime.now(UTC)).timestamp())
    signature = WebhookSignature.generate_signature_header(payload.decode("latin-1"), secret, signed_s)
    return await api.http.post(WEBHOOK, content=payload, headers=signed_with(signature))


async def subscribe(
    api: Api, vendor: Person, *, key: str | None = None, method: str = "pm_card_visa", **headers: str
) -> httpx.Response:
    headers = {"Idempotency-Key": key or str(new_id()), **headers}
    return await api.as_(vendor).post(SUBSCRIPTION, json={"payment_method_id": method}, headers=headers)


async def cancel(api: Api, vendor: Person, *, key: str | None = None) -> httpx.Response:
    return await api.as_(vendor).post(f"{SUBSCRIPTION}/cancel", headers={"Idempotency-Key": key or str(new_id())})


async def is_active(api: Api, vendor: Person) -> bool:
    """Whether the vendor's store has an active subscription."""
    store = (await api.as_(vendor).get("/api/v1/stores/me")).json()["data"]
    return bool(store["subscription_active"])
