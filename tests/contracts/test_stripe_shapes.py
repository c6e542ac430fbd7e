"""Every request of ours has a shape that Stripe's own description of its API takes (stripe-mock, where it is built)."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID

import httpx
import pytest

from models.billing.gateway import StripeApi, StripeRefused
from ops.stack.parts.stripe import binary


@pytest.fixture(scope="module")
def mock() -> Iterator[str]:
    """The address of a stripe-mock."""
    if not binary().exists():
        pytest.skip("stripe-mock is not built: install Go and run `make setup`")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    process = subprocess.Popen(
        [str(binary()), "-http-addr", address, "-https-addr", "127.0.0.1:0"], stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 20
    while True:
        try:
            httpx.get(f"http://{address}/v1/charges")
            break
        except httpx.HTTPError:
            assert time.monotonic() < deadline, "stripe-mock does not answer"
            time.sleep(0.05)
    yield f"http://{address}"
    process.kill()
    process.wait()


async def test_stripe_takes_every_request_of_ours(mock: str) -> None:
    api = StripeApi("sk_test_123", base=mock, price_id="price_1", timeout_s=10)
    store_id, charge_id = UUID(int=1), UUID(int=2)
    customer = await api.make_customer(store_id, key="customer")
    method = await api.attach(customer, "pm_card_visa", key="attach")
    made = await api.subscribe(customer, method.stripe_id, store_id=store_id, request="r", key="subscribe")
    assert made.stripe_id
    await api.live_subscription(customer)
    assert (await api.cancel(made.stripe_id)).stripe_id
    usage = await api.add_usage(customer, charge_id, amount_cents=1234, currency="USD", description="Advertising")
    assert usage.stripe_id
    await api.find_usage(customer, charge_id)
    assert [one async for one in api.all_usage(datetime.now(UTC))]
    assert [one async for one in api.all_subscriptions()]
    with pytest.raises(StripeRefused):
        await api.add_usage(customer, charge_id, amount_cents="much", currency="USD", description="x")  # type: ignore[arg-type]
    await api.close()
