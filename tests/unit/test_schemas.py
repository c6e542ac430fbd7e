"""Events keep their promises: decodable for ever, one source of truth, refused where they do not fit."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.database import new_id
from schemas import check
from schemas.ad_columns import AdEvent, MalformedBatchError, pack, unpack
from schemas.codec import MARKER, UndecodableError, decode, decode_dict, encode, schema_fingerprint
from schemas.records import (
    AdAttribution,
    AdDayTotals,
    AdEvents,
    AdSpendRolledUp,
    CheckoutConverted,
    OrderLineSnapshot,
    OrderSnapshot,
    ShipTo,
)
from schemas.registry import EVENTS

NOW = datetime(2026, 11, 30, 12, 0, 0, 123456, tzinfo=UTC)
IDS = st.binary(min_size=16, max_size=16)
U32 = st.integers(0, (1 << 32) - 1)
AD_EVENTS = st.lists(st.builds(AdEvent, IDS, IDS, st.integers(0, 1), U32, U32, U32), max_size=300)


def rolled_up() -> AdSpendRolledUp:
    ad = AdDayTotals(ad_id=UUID(int=3), impressions=2, clicks=1, spend_micros=5000)
    return AdSpendRolledUp(
        event_id=UUID(int=1),
        occurred_at=NOW,
        actor="test",
        store_id=UUID(int=2),
        day=NOW.date(),
        impressions=2,
        clicks=1,
        spend_micros=5000,
        ads=[ad],
    )


def batch(events: list[AdEvent]) -> AdEvents:
    return pack(events, event_id=new_id(), shard=3, occurred_at=NOW, actor="test")


def test_a_record_decodes_to_itself() -> None:
    assert decode(encode(rolled_up())) == rolled_up()


def converted() -> CheckoutConverted:
    """A checkout of two orders: one that an ad led to, with two lines, and one without any of it."""
    ad = AdAttribution(
        ad_id=UUID(int=1), kind="click", jti=UUID(int=2), target_type="product", target_id=UUID(int=3),
        issued_at=NOW, reason="only"
    )  # fmt: skip
    money = dict.fromkeys(("subtotal_cents", "discounts_cents", "shipping_cents", "total_cents"), 0)
    ids = ("order_id", "checkout_group_id", "cart_id", "buyer_store_id", "vendor_store_id", "payment_intent_id")
    texts = dict.fromkeys(("number", "status", "currency", "payment_method", "payment_status"), "x")
    times = dict.fromkeys(("created_at", "nudge_at", "expires_at"), NOW)
    line = OrderLineSnapshot(
        **dict.fromkeys(("line_item_id", "cart_item_id", "product_id"), UUID(int=4)),
        **dict.fromkeys(("title", "category", "status"), "x"),
        **dict.fromkeys(("quantity", "unit_price_cents", "line_subtotal_cents", "line_total_cents"), 1),
    )  # type: ignore[arg-type]
    bought = OrderLineSnapshot(
        **{name: getattr(line, name) for name in line.__dataclass_fields__} | {"attribution": ad}
    )
    place = ShipTo(city="Portland", state="OR", postal_code="97201", country="US", lat=45.5)
    order = {**money, **texts, **times, **dict.fromkeys(ids, UUID(int=5)), "ship_to": place}
    return CheckoutConverted(
        event_id=UUID(int=6), occurred_at=NOW, actor="test", checkout_group_id=UUID(int=6), cart_id=UUID(int=5),
        buyer_store_id=UUID(int=5), currency="USD", total_cents=0,
        orders=[
            OrderSnapshot(**order, lines=[line, bought], attribution=ad),  # type: ignore[arg-type]
            OrderSnapshot(**order, lines=[]),  # type: ignore[arg-type]
        ],
    )  # fmt: skip


def test_records_within_records_are_typed_at_every_depth() -> None:
    assert decode(encode(converted())) == converted()


@given(AD_EVENTS)
def test_columns_give_back_the_events_in_order(events: list[AdEvent]) -> None:
    columns = unpack(decode_dict(encode(batch(events)))[1])
    rows = zip(columns.jti, columns.ad, columns.kind, columns.iat_s, columns.exp_s, columns.cost_micros, strict=True)
    assert [AdEvent(jti, columns.ads[ad], kind, iat, exp, cost) for jti, ad, kind, iat, exp, cost in rows] == events


def outcome_of(value: bytes) -> str:
    try:
        decode_dict(value)
    except UndecodableError as exc:
        return exc.reason
    return "decoded"


@given(st.binary(max_size=200))
def test_any_bytes_are_a_record_or_undecodable(data: bytes) -> None:
    for value in (data, MARKER + data, encode(rolled_up())[:10] + data):
        assert outcome_of(value) in ("decoded", "undecodable", "unknown_schema")


def test_bytes_left_over_are_refused() -> None:
    with pytest.raises(UndecodableError, match="left over"):
        decode_dict(encode(rolled_up()) + b"x")


def test_an_unknown_fingerprint_is_named_as_such() -> None:
    with pytest.raises(UndecodableError) as caught:
        decode_dict(MARKER + bytes(8) + b"body")
    assert caught.value.reason == "unknown_schema"


@pytest.mark.parametrize("column", ["jti", "ad", "iat_s", "exp_s", "cost_micros", "ads"])
def test_columns_that_do_not_fit_each_other_are_malformed(column: str) -> None:
    fields = decode_dict(encode(batch([AdEvent(bytes(16), bytes(16), 0, 1, 2, 3)])))[1]
    fields[column] += b"\xff\xff"
    with pytest.raises(MalformedBatchError):
        unpack(fields)


def test_an_index_beyond_the_ads_is_malformed() -> None:
    fields = decode_dict(encode(batch([AdEvent(bytes(16), bytes(16), 0, 1, 2, 3)])))[1]
    fields["ad"] = b"\x01\x00"
    with pytest.raises(MalformedBatchError):
        unpack(fields)


def test_a_value_that_does_not_fit_fails_the_request() -> None:
    record = rolled_up()
    object.__setattr__(record, "impressions", "many")
    with pytest.raises(ValueError, match="does not fit"):
        encode(record)


def test_fingerprints_are_crc_64_avro_little_endian() -> None:
    assert schema_fingerprint("null") == (7195948357588979594).to_bytes(8, "little")  # from the Avro specification


def test_the_checked_in_schemas_are_compatible_and_generated() -> None:
    assert list(check.problems()) == []


def test_every_event_has_a_released_version() -> None:
    assert all(check.released(name) for name in EVENTS)


def test_a_field_without_default_breaks_the_promise() -> None:
    old = EVENTS["subscription_changed"].schema
    new = copy.deepcopy(old)
    new["fields"].append({"name": "plan", "type": "string"})
    assert list(check.incompatibilities("subscription_changed", 1, old, new))
    new["fields"][-1]["default"] = ""
    assert not list(check.incompatibilities("subscription_changed", 1, old, new))


def test_a_removed_field_breaks_the_promise() -> None:
    old = EVENTS["subscription_changed"].schema
    new = copy.deepcopy(old)
    new["fields"] = [field for field in new["fields"] if field["name"] != "active"]
    assert list(check.incompatibilities("subscription_changed", 1, old, new))


def test_a_released_schema_without_event_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "gone.v1.avsc").write_text(json.dumps(EVENTS["ad_changed"].schema))
    assert any("gone" in problem for problem in check.problems(tmp_path))
