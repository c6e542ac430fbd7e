"""Subscriptions in the whole system: active by the local Stripe's signed news, whatever the clock, whatever dies."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from models.database import new_id
from tests.api_driver import ADDRESS, PASSWORD, new_email
from tests.catalogue import draft
from tests.faults.system import REPOSITORY, System, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

SUBSCRIPTION = "/api/v1/vendor/subscription"


@pytest.fixture(scope="module")
def billed() -> Iterator[System]:
    with System(parts="postgres,kafka,redis,stripe") as system:
        yield system


async def post(http: httpx.AsyncClient, path: str, body: Any = None, token: str = "") -> Any:
    """The data of an answer that is good, once the API is there."""
    headers = {"Idempotency-Key": str(new_id())} | ({"Authorization": f"Bearer {token}"} if token else {})

    async def sent() -> httpx.Response | None:
        try:
            answer = await http.post(path, json=body, headers=headers)
        except httpx.HTTPError:
            return None
        return None if answer.status_code == 503 else answer

    answer: httpx.Response = await until(f"POST {path} is answered", sent, timeout_s=90)
    assert answer.is_success, answer.text
    return answer.json()["data"]


async def registered(http: httpx.AsyncClient, kind: str) -> tuple[str, str]:
    """A store and its owner's token."""
    person = {"email": new_email(), "password": PASSWORD, "first_name": "Ada", "last_name": "L"}
    store = {"name": f"A {kind}", "type": kind, "address": ADDRESS}
    made = await post(http, "/api/v1/auth/register", {**person, "store": store})
    return made["store"]["id"], made["tokens"]["access_token"]


async def test_a_vendor_sells_while_stripe_says_so_in_another_month_and_over_kills(billed: System) -> None:
    async with httpx.AsyncClient(base_url=billed.api, timeout=20) as http:
        store_id, vendor = await registered(http, "vendor")
        _, buyer = await registered(http, "buyer")
        packstream(billed, "admin", "store", store_id, "--kyc", "verified")
        product = await post(http, "/api/v1/vendor/products", draft(), vendor)
        admin = await post(http, "/api/admin/auth/register", {"email": new_email(), "password": PASSWORD})
        later = datetime.now(UTC) + timedelta(days=400)
        clock = {"now": later.isoformat()}
        await post(http, "/api/admin/ops/clock", clock, admin["tokens"]["access_token"])

        def shown(wanted: bool) -> Any:
            async def seen() -> bool:
                try:
                    answer = await http.get("/api/v1/products", headers={"Authorization": f"Bearer {buyer}"})
                except httpx.HTTPError:
                    return False
                return answer.is_success and (product["id"] in [one["id"] for one in answer.json()["data"]]) == wanted

            return until(f"the product is {'seen' if wanted else 'hidden'}", seen, timeout_s=60)

        await shown(False)
        began = time.monotonic()
        made = await post(http, SUBSCRIPTION, {"payment_method_id": "pm_card_visa"}, vendor)
        await shown(True)
        print(f"a new subscription lets the vendor sell after {time.monotonic() - began:.2f} s")
        assert abs(datetime.fromisoformat(made["created_at"]) - later) < timedelta(hours=1)

        old = await billed.kill("stripe")
        await billed.back("stripe", old)
        await billed.kill("api")
        await change(billed, made["stripe_subscription_id"], "past_due")
        await shown(False)
        await change(billed, made["stripe_subscription_id"], "active")
        await shown(True)
        ended = await post(http, f"{SUBSCRIPTION}/cancel", None, vendor)
        assert ended["status"] == "canceled"
        await shown(False)
        refused = await http.get("/api/v1/stores/me", headers={"Authorization": f"Bearer {vendor}"})
        assert refused.json()["data"]["subscription_active"] is False
        again = await post(http, SUBSCRIPTION, {"payment_method_id": "pm_card_visa"}, vendor)
        assert again["id"] != made["id"]
        await shown(True)
    checked = json.loads(packstream(billed, "billing", "check", "--json"))
    assert (checked["ok"], checked["subscriptions"]) == (True, 2)


async def change(system: System, subscription_id: str, status: str) -> None:
    """As when a payment fails, or comes in after all."""

    async def changed() -> bool:
        base = system.data.read_env()["STRIPE_API_BASE"]
        try:
            async with httpx.AsyncClient(timeout=5) as http:
                answer = await http.post(f"{base}/_fake/subscriptions/{subscription_id}", json={"status": status})
        except httpx.HTTPError:
            return False
        return answer.status_code == 204

    await until(f"Stripe has it {status}", changed, timeout_s=60)


def packstream(system: System, *arguments: str) -> str:
    """What a command prints, when all is well."""
    done = subprocess.run(
        [sys.executable, "-m", "ops.cli", *arguments, "--data", str(system.data.root)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout
