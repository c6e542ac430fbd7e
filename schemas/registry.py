"""Which event goes to which topic, under which key, in which schema. Incomplete: the import fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

from schemas.records import RECORDS, Record

TOPIC_PREFIX: Final = "packstream."
PARTITIONS: Final = 12
DAY_MS: Final = 86_400_000
EVENTS_DIR: Final = Path(__file__).parent / "events"


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic; its name without the prefix is the outbox's `aggregatetype`."""

    aggregatetype: str
    key_field: str
    retention_ms: int

    @property
    def name(self) -> str:
        return TOPIC_PREFIX + self.aggregatetype


TOPICS: Final = {
    topic.aggregatetype: topic
    for topic in (
        Topic("orders", "checkout_group_id", 90 * DAY_MS),
        Topic("notifications", "store_id", 30 * DAY_MS),
        Topic("ads.events", "shard", 35 * DAY_MS),
        Topic("ads.rollups", "store_id", 90 * DAY_MS),
        Topic("stores", "store_id", 90 * DAY_MS),
        Topic("media", "media_id", 30 * DAY_MS),
        Topic("catalog", "product_id or ad_id", 30 * DAY_MS),
    )
}


@dataclass(frozen=True, slots=True)
class EventType:
    """One kind of event."""

    name: str
    topic: Topic
    key_field: str
    schema: dict[str, Any]
    key_of: Callable[[Any], object]

    @property
    def aggregatetype(self) -> str:
        return self.topic.aggregatetype

    @property
    def schema_name(self) -> str:
        return f"{self.schema['namespace']}.{self.schema['name']}"

    def key(self, record: Record) -> str:
        """The Kafka key, which is the outbox's `aggregateid`."""
        return str(self.key_of(record))


def _event(name: str, aggregatetype: str, key_field: str) -> EventType:
    schema = json.loads((EVENTS_DIR / f"{name}.avsc").read_text())
    fields = {item["name"]: item for item in schema["fields"]}
    missing = {"event_id", "event_type", "version", "occurred_at", "actor", key_field} - fields.keys()
    if missing or fields["event_type"].get("default") != name:
        raise ImportError(f"schemas/events/{name}.avsc: {sorted(missing) or 'event_type has another default'}")
    return EventType(name, TOPICS[aggregatetype], key_field, schema, attrgetter(key_field))


EVENTS: Final = {
    event.name: event
    for event in (
        _event("checkout_converted", "orders", "checkout_group_id"),
        _event("order_decided", "orders", "checkout_group_id"),
        _event("order_canceled", "orders", "checkout_group_id"),
        _event("order_expired", "orders", "checkout_group_id"),
        _event("order_nudged", "orders", "checkout_group_id"),
        _event("order_retried", "orders", "checkout_group_id"),
        _event("order_ready_for_dispatch", "orders", "checkout_group_id"),
        _event("order_assigned", "orders", "checkout_group_id"),
        _event("order_in_transit", "orders", "checkout_group_id"),
        _event("order_delivered", "orders", "checkout_group_id"),
        _event("cash_collected", "orders", "checkout_group_id"),
        _event("ach_settled", "orders", "checkout_group_id"),
        _event("order_paid", "orders", "checkout_group_id"),
        _event("ad_events", "ads.events", "shard"),
        _event("ad_spend_rolled_up", "ads.rollups", "store_id"),
        _event("ad_daily_charge_recorded", "ads.rollups", "store_id"),
        _event("ad_changed", "catalog", "ad_id"),
        _event("product_changed", "catalog", "product_id"),
        _event("inventory_changed", "catalog", "product_id"),
        _event("media_uploaded", "media", "media_id"),
        _event("media_processed", "media", "media_id"),
        _event("media_deleted", "media", "media_id"),
        _event("store_compliance_changed", "stores", "store_id"),
        _event("subscription_changed", "stores", "store_id"),
        _event("license_status_changed", "stores", "store_id"),
        _event("license_expiring", "stores", "store_id"),
        _event("notification_requested", "notifications", "store_id"),
        _event("email_requested", "notifications", "store_id"),
    )
}

if EVENTS.keys() != RECORDS.keys():
    raise ImportError(f"registered events and schemas/events/ differ: {sorted(EVENTS.keys() ^ RECORDS.keys())}")
