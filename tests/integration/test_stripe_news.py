"""Stripe's webhooks: who sent them is checked, each counts once, and older news never undoes newer."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from stripe import WebhookSignature

from models.database import new_id
from tests.api_driver import Api, Person, ok, problem, running
from tests.catalogue import rows
from tests.licences import told
from tests.stripe_fake import CHARGES, SECRET, SUBSCRIPTION, WEBHOOK, event, is_active, signed_with, state, tell

UPDATED = "customer.subscription.updated"
DELETED = "customer.subscription.deleted"
SECOND = timedelta(seconds=1)


@pytest.fixture
async def vendor(api: Api) -> Person:
    return await api.register("vendor")


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def stripe_id() -> str:
    return f"sub_{new_id().hex}"


def about(vendor: Person, status: str, *, stripe_id: str, created: datetime, kind: str = UPDATED) -> dict[str, Any]:
    """News that the vendor's subscription had a status at a time."""
    return event(kind, state(vendor.store["id"], status, stripe_id=stripe_id, created=created), created=created)


async def taken(api: Api, body: dict[str, Any]) -> str:
    """What became of an event."""
    return str(ok(await tell(api, body))["outcome"])


async def test_a_store_is_found_by_our_mark_then_by_subscription_and_customer(
    api: Api, vendor: Person, now: datetime, stripe_id: str
) -> None:
    assert await taken(api, about(vendor, "active", stripe_id=stripe_id, created=now)) == "applied"
    assert await is_active(api, vendor)
    unmarked = state(None, "past_due", stripe_id=stripe_id, created=now)
    assert await taken(api, event(UPDATED, unmarked | {"customer": "cus_other"}, created=now + SECOND)) == "applied"
    assert not await is_active(api, vendor)
    other = state(None, "active", stripe_id=f"{stripe_id}2", created=now) | {"customer": f"cus_of_{stripe_id}"}
    assert await taken(api, event(UPDATED, other, created=now + 2 * SECOND)) == "applied"
    assert await is_active(api, vendor)


async def test_the_subscription_says_whose_it_is_before_a_mark_does(
    api: Api, vendor: Person, now: datetime, stripe_id: str
) -> None:
    other = await api.register("vendor")
    await taken(api, about(vendor, "active", stripe_id=stripe_id, created=now))
    assert await taken(api, about(other, "past_due", stripe_id=stripe_id, created=now + SECOND)) == "applied"
    assert not await is_active(api, vendor)
    problem(await api.as_(other).get(SUBSCRIPTION), 404, "not_found")


@pytest.mark.parametrize("status", ["active", "trialing"])
async def test_active_and_trialing_count_as_active(
    api: Api, vendor: Person, now: datetime, stripe_id: str, status: str
) -> None:
    await taken(api, about(vendor, status, stripe_id=stripe_id, created=now))
    assert await is_active(api, vendor)


@pytest.mark.parametrize("status", ["incomplete", "incomplete_expired", "past_due", "unpaid", "paused", "canceled"])
async def test_nothing_else_counts_as_active(
    api: Api, vendor: Person, now: datetime, stripe_id: str, status: str
) -> None:
    await taken(api, about(vendor, "active", stripe_id=stripe_id, created=now))
    await taken(api, about(vendor, status, stripe_id=stripe_id, created=now + SECOND))
    assert not await is_active(api, vendor)
    assert ok(await api.as_(vendor).get(SUBSCRIPTION))["status"] == status


async def test_older_news_after_newer_changes_nothing(api: Api, vendor: Person, now: datetime, stripe_id: str) -> None:
    await taken(api, about(vendor, "active", stripe_id=stripe_id, created=now))
    assert await taken(api, about(vendor, "past_due", stripe_id=stripe_id, created=now - SECOND)) == "stale"
    assert await is_active(api, vendor)
    assert await taken(api, about(vendor, "canceled", stripe_id=stripe_id, created=now + SECOND, kind=DELETED)) == (
        "applied"
    )
    assert await taken(api, about(vendor, "active", stripe_id=stripe_id, created=now)) == "stale"
    assert not await is_active(api, vendor)
    assert len(await told(api, vendor, "subscription_changed")) == 2


async def test_of_one_second_the_later_stage_wins_in_any_order(
    api: Api, vendor: Person, now: datetime, stripe_id: str
) -> None:
    await taken(api, about(vendor, "active", stripe_id=stripe_id, created=now))
    assert await taken(api, about(vendor, "incomplete", stripe_id=stripe_id, created=now)) == "stale"
    assert await is_active(api, vendor)
    await taken(api, about(vendor, "canceled", stripe_id=stripe_id, created=now, kind=DELETED))
    assert await taken(api, about(vendor, "active", stripe_id=stripe_id, created=now)) == "stale"
    assert not await is_active(api, vendor)


async def test_an_event_counts_once_however_often_it_comes(
    api: Api, vendor: Person, now: datetime, stripe_id: str
) -> None:
    first = about(vendor, "active", stripe_id=stripe_id, created=now)
    outcomes = await asyncio.gather(*(taken(api, first) for _ in range(6)))
    assert sorted(outcomes) == ["applied"] + ["duplicate"] * 5
    changed = first | {"data": {"object": state(vendor.store["id"], "canceled", stripe_id=stripe_id, created=now)}}
    assert await taken(api, changed | {"created": first["created"] + 60}) == "duplicate"
    assert await is_active(api, vendor)
    assert len(await told(api, vendor, "subscription_changed", "notification_requested")) == 2
    kept = await rows(api, "SELECT outcome FROM stripe_events WHERE id = :id", id=first["id"])
    assert [row.outcome for row in kept] == ["applied"]


async def test_different_news_at_the_same_time_is_applied_one_after_the_other(
    api: Api, vendor: Person, now: datetime, stripe_id: str
) -> None:
    news = [about(vendor, "active", stripe_id=stripe_id, created=now + n * SECOND) for n in range(5)]
    news.append(about(vendor, "past_due", stripe_id=stripe_id, created=now + 9 * SECOND))
    outcomes = await asyncio.gather(*(taken(api, one) for one in news))
    assert set(outcomes) <= {"applied", "stale"}
    assert not await is_active(api, vendor)


async def test_of_two_subscriptions_the_one_that_pays_counts(api: Api, vendor: Person, now: datetime) -> None:
    one, two, three = (f"sub_{new_id().hex}" for _ in range(3))
    await taken(api, about(vendor, "active", stripe_id=one, created=now))
    await taken(api, about(vendor, "incomplete", stripe_id=two, created=now))
    assert await is_active(api, vendor)
    await taken(api, about(vendor, "past_due", stripe_id=one, created=now + SECOND))
    assert not await is_active(api, vendor)
    await taken(api, about(vendor, "active", stripe_id=three, created=now + SECOND))
    assert await is_active(api, vendor)
    assert ok(await api.as_(vendor).get(SUBSCRIPTION))["stripe_subscription_id"] == three
    await taken(api, about(vendor, "canceled", stripe_id=one, created=now + 2 * SECOND, kind=DELETED))
    assert await is_active(api, vendor)


@pytest.mark.parametrize("kind", ["customer.created", "payout.paid", "made.up", "invoice.upcoming"])
async def test_other_events_are_taken_and_change_nothing(api: Api, now: datetime, kind: str) -> None:
    assert await taken(api, event(kind, {"object": "customer"}, created=now)) == "ignored"


async def test_news_of_nobody_we_know_is_taken(api: Api, now: datetime, stripe_id: str) -> None:
    buyer = await api.register("buyer")
    for store_id in (None, str(new_id()), "nonsense", buyer.store["id"]):
        found = state(store_id, "active", stripe_id=stripe_id, created=now)
        assert await taken(api, event(UPDATED, found, created=now)) == "no_store"
    assert not await is_active(api, buyer)


@pytest.mark.parametrize("change", [{"status": "brand_new"}, {"id": 7}, {"created": "soon"}, {"metadata": [1]}])
async def test_what_is_not_a_subscription_is_taken_and_changes_nothing(
    api: Api, vendor: Person, now: datetime, stripe_id: str, change: dict[str, Any]
) -> None:
    found = state(vendor.store["id"], "active", stripe_id=stripe_id, created=now) | change
    assert await taken(api, event(UPDATED, found, created=now)) == "malformed"
    assert not await is_active(api, vendor)


async def test_an_id_a_status_and_whose_it_is_are_enough(
    api: Api, vendor: Person, now: datetime, stripe_id: str
) -> None:
    least = {"id": stripe_id, "status": "active", "metadata": {"store_id": vendor.store["id"]}}
    assert await taken(api, event(UPDATED, least, created=now)) == "applied"
    assert await is_active(api, vendor)
    assert await taken(api, event(DELETED, {"id": stripe_id, "status": "canceled"}, created=now + SECOND)) == "applied"
    assert not await is_active(api, vendor)


async def test_invoices_fill_the_billing_history_in_any_order(
    api: Api, vendor: Person, now: datetime, stripe_id: str
) -> None:
    await taken(api, about(vendor, "active", stripe_id=stripe_id, created=now))

    def invoice(kind: str, status: str, at: datetime, number: int = 1) -> dict[str, Any]:
        body = {"id": f"in_{stripe_id}_{number}", "customer": f"cus_of_{stripe_id}", "status": status}
        money = {"amount_due": 9900 * number, "amount_paid": 9900 * number if status == "paid" else 0}
        return event(kind, body | money | {"currency": "usd", "created": int(at.timestamp())}, created=at)

    assert await taken(api, invoice("invoice.paid", "paid", now)) == "applied"
    assert await taken(api, invoice("invoice.finalized", "open", now)) == "stale"
    for number in range(2, 6):
        await taken(api, invoice("invoice.payment_failed", "open", now + number * SECOND, number))
    found: list[dict[str, Any]] = []
    cursor = ""
    while cursor is not None:
        answer = await api.as_(vendor).get(CHARGES, params={"limit": 2} | ({"cursor": cursor} if cursor else {}))
        found += ok(answer)
        cursor = answer.json()["meta"]["next_cursor"]
    assert [(one["status"], one["amount_cents"]) for one in found] == [
        *(("open", 9900 * number) for number in range(5, 1, -1)),
        ("paid", 9900),
    ]


def good(now: datetime) -> bytes:
    return json.dumps(event("made.up", {"object": "thing"}, created=now)).encode()


@pytest.mark.parametrize(
    "header",
    [None, "", "nonsense", "t=,v1=", "v1=00", "t=99999999999999999999,v1=00", "t=1,v0=00", "t=1=2,v1==", "t=ä,v1=ä"],
)
async def test_a_signature_that_is_none_is_refused(api: Api, now: datetime, header: str | None) -> None:
    headers = {} if header is None else {"stripe-signature": header.encode("latin-1")}
    problem(await api.http.post(WEBHOOK, content=good(now), headers=headers), 400, "invalid_signature")


async def test_a_body_that_was_changed_or_signed_by_another_is_refused(api: Api, now: datetime) -> None:
    problem(await tell(api, good(now), secret="whsec_other"), 400, "invalid_signature")
    signature = WebhookSignature.generate_signature_header(good(now).decode(), SECRET, int(now.timestamp()))
    changed = await api.http.post(WEBHOOK, content=good(now) + b" ", headers=signed_with(signature))
    problem(changed, 400, "invalid_signature")
    problem(await tell(api, b'{"id":"\xff\xfe"}'), 400, "invalid_signature")


async def test_an_old_signature_is_refused_by_the_business_clock(api: Api, now: datetime) -> None:
    ok(await tell(api, good(now), at=now - timedelta(seconds=290)))
    problem(await tell(api, good(now), at=now - timedelta(seconds=301)), 400, "invalid_signature")
    signature = WebhookSignature.generate_signature_header(good(now).decode(), SECRET, int(now.timestamp()))
    later = {"x-now": (now + timedelta(seconds=400)).isoformat()}
    refused = await api.http.post(WEBHOOK, content=good(now), headers=signed_with(signature) | later)
    problem(refused, 400, "invalid_signature")


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"not json", b"[]", b"7", b'"evt"', b"{}", b"[" * 5000),
        b'{"id":"evt_1","type":"made.up","created":1}',
        b'{"id":"evt_1","type":"made.up","created":"x","data":{"object":{}}}',
    ],
)
async def test_what_is_no_event_is_refused(api: Api, body: bytes) -> None:
    problem(await tell(api, body), 422, "validation_failed")


async def test_a_huge_body_is_refused_before_it_is_read(api: Api) -> None:
    problem(await tell(api, b"x" * (1 << 20) + b"x"), 413, "payload_too_large")


async def test_while_a_secret_is_replaced_both_are_good(api: Api, now: datetime) -> None:
    async with running(
        api.services.settings.model_copy(update={"stripe_webhook_secret": "whsec_new, whsec_dev"})
    ) as api:
        ok(await tell(api, good(now)))
        ok(await tell(api, good(now), secret="whsec_new"))
