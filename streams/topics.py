"""Topics and agents by name: renaming one loses its state, so they are written down once."""

from __future__ import annotations

from typing import Final

from schemas.registry import PARTITIONS, TOPICS

APP_ID: Final = "packstream"
AD_EVENTS: Final = TOPICS["ads.events"].name
AD_COUNTERS: Final = "ad_counters"  #: agent and table
NOTIFICATIONS_TOPIC: Final = TOPICS["notifications"].name
NOTIFICATIONS: Final = "notifications"  #: agent
ORDERS: Final = TOPICS["orders"].name
ORDER_TTL: Final = "order_ttl"  #: agent
ORDER_DEADLINES: Final = "order_deadlines"  #: table
MEDIA_TOPIC: Final = TOPICS["media"].name
MEDIA: Final = "media"  #: agent
AD_ROLLUPS: Final = TOPICS["ads.rollups"].name
BILLING: Final = "billing"  #: agent
ANALYTICS: Final = "analytics"  #: agent, of both topics
AD_COUNTERS_CHANGELOG: Final = f"{APP_ID}-{AD_COUNTERS}-changelog"
PARTITION_COUNT: Final = PARTITIONS
