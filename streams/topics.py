"""Topics and agents by name: renaming one loses its state, so they are written down once."""

from __future__ import annotations

from typing import Final

from schemas.registry import PARTITIONS, TOPICS

APP_ID: Final = "packstream"
AD_EVENTS: Final = TOPICS["ads.events"].name
AD_COUNTERS: Final = "ad_counters"  #: agent and table
PARTITION_COUNT: Final = PARTITIONS
