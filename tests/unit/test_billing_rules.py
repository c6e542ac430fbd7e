"""Of Stripe's news the newest counts, in whatever order it comes; and what it says is read, or refused as no object."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from models.billing.rules import RETRY_MAX, SubscriptionStatus, is_newer, retry_after
from models.billing.stripe_objects import NotAnObject, event_of, invoice_of, subscription_of
from ops.settings import Settings

START = datetime(2027, 3, 1, tzinfo=UTC)
State = tuple[SubscriptionStatus, int]


def outcome(news: list[State]) -> State:
    """The state that stands in the end."""
    status, second = news[0]
    for next_status, next_second in news[1:]:
        at, than = START + timedelta(seconds=next_second), START + timedelta(seconds=second)
        if is_newer(next_status, at, status, than):
            status, second = next_status, next_second
    return status, second


FIRST_TO_LAST = st.sampled_from([SubscriptionStatus.INCOMPLETE, SubscriptionStatus.ACTIVE, SubscriptionStatus.CANCELED])


@given(st.lists(st.tuples(FIRST_TO_LAST, st.integers(0, 3)), min_size=1, max_size=5))
def test_the_order_of_arrival_does_not_matter(news: list[State]) -> None:
    assert len({outcome(list(order)) for order in permutations(news)}) == 1


def test_pauses_grow_up_to_an_hour() -> None:
    pauses = [retry_after(attempt) for attempt in range(1, 40)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == RETRY_MAX


def test_the_end_of_the_period_is_found_wherever_the_api_has_it() -> None:
    base: dict[str, Any] = {"id": "sub_1", "customer": {"id": "cus_1"}, "status": "active", "created": 1}
    old = subscription_of(base | {"current_period_end": 100})
    new = subscription_of(base | {"items": {"data": [{"current_period_end": 100}]}})
    assert old.current_period_end == new.current_period_end == datetime.fromtimestamp(100, UTC)
    assert old.customer_id == "cus_1"


def test_an_invoice_names_its_subscription_wherever_the_api_has_it() -> None:
    base: dict[str, Any] = {"id": "in_1", "customer": "cus_1", "status": "paid", "created": 1}
    details = {"subscription": "sub_1", "metadata": {"store_id": "01a22393-e6a3-7780-904a-b5be5245bd29"}}
    new = invoice_of(base | {"parent": {"subscription_details": details}})
    assert new.subscription_id == invoice_of(base | {"subscription": "sub_1"}).subscription_id == "sub_1"
    assert str(new.store_id) == details["metadata"]["store_id"]  # type: ignore[index]


KEYS = st.sampled_from(["id", "type", "created", "data", "object", "status", "customer", "metadata", "items", "parent"])
JSON = st.recursive(
    st.none() | st.integers() | st.text() | st.floats(),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner),
)


@given(JSON)
def test_nothing_that_stripe_may_send_is_more_than_refused(fields: Any) -> None:
    for read in (event_of, subscription_of, invoice_of):
        if read is event_of or isinstance(fields, dict):
            with suppress(NotAnObject):
                read(fields)


def test_production_bills_by_a_price_of_its_own() -> None:
    keys = f"k:{'A' * 44}"
    secrets = {"jwt_keys": keys, "ad_token_keys": keys, "gcs_webhook_token": "t", "stripe_webhook_secret": "whsec_1"}
    prod = {"packstream_env": "prod", "database_url": "postgresql://db", "stripe_api_key": "sk_live_1", **secrets}
    with pytest.raises(ValidationError, match="STRIPE_PRICE_ID"):
        Settings(**prod)  # type: ignore[arg-type]
    assert Settings(**prod, stripe_price_id="price_1").stripe_price_id == "price_1"  # type: ignore[arg-type]
