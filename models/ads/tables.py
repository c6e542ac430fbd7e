"""Ads, the engine's frozen facts and ticks, day closures, rollups and adjustments."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, SmallInteger, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from models.database import Base


class Ad(Base):
    __tablename__ = "ads"
    __table_args__ = (
        CheckConstraint("billing_model = 'cpm'", name="billing_model"),
        CheckConstraint("placement IN ('home', 'category', 'search')", name="placement"),
        CheckConstraint("target_type IN ('store', 'product')", name="target_type"),
        CheckConstraint("(target_type = 'product') = (target_product_id IS NOT NULL)", name="target"),
        CheckConstraint("status IN ('draft', 'active', 'paused', 'archived')", name="status"),
        CheckConstraint("bid_cpm_cents BETWEEN 1 AND 100000", name="bid"),
        CheckConstraint("daily_budget_cents BETWEEN 100 AND 10000000", name="budget"),
        CheckConstraint("ends_at > starts_at", name="flight"),
        Index(None, "store_id", "created_at", "id"),
        Index("ix_ads_active", "placement", postgresql_where=text("status = 'active'")),
        Index("ix_ads_target_product_id", "target_product_id", postgresql_where=text("target_product_id IS NOT NULL")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    store_id: Mapped[UUID] = mapped_column(ForeignKey("stores.id"))
    name: Mapped[str] = mapped_column(Text)
    billing_model: Mapped[str] = mapped_column(Text)
    placement: Mapped[str] = mapped_column(Text)
    target_type: Mapped[str] = mapped_column(Text)
    target_product_id: Mapped[UUID | None]
    bid_cpm_cents: Mapped[int]
    daily_budget_cents: Mapped[int]
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime | None]
    headline: Mapped[str] = mapped_column(Text)
    creative_media_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("media.id", ondelete="SET NULL"), index=True, comment="as its attachment says; goes with the media"
    )
    status: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class AdCatalogVersion(Base):
    """Moves (by triggers on ads and stores) whenever a serve could turn out differently: caches poll it."""

    __tablename__ = "ad_catalog_version"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    version: Mapped[int]


class AdShard(Base):
    """A shard and its last tick. The number of rows is AD_SHARDS as first started: it is frozen."""

    __tablename__ = "ad_shards"

    shard: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    ticked_until: Mapped[datetime | None] = mapped_column(comment="events with exp + skew at or before it are refused")


class AdGateEpoch(Base):
    """The epoch of a shard's gate, written here before it is in Redis, and that before the first token."""

    __tablename__ = "ad_gate_epochs"
    __table_args__ = (CheckConstraint("state IN ('open', 'lost')", name="state"),)

    shard: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    epoch: Mapped[UUID]
    run_id: Mapped[str] = mapped_column(Text, comment="of the Redis server that holds it")
    state: Mapped[str] = mapped_column(Text)
    lost_at: Mapped[datetime | None] = mapped_column(comment="logical time at which the loss was found")
    opened_at: Mapped[datetime]


class AdDay(Base):
    """A UTC day of advertising; its row is the lock under which shards close it and charges are written."""

    __tablename__ = "ad_days"

    day: Mapped[date] = mapped_column(primary_key=True)
    charged_at: Mapped[datetime | None]
    reconciled_at: Mapped[datetime | None]
    reconciliation: Mapped[dict[str, Any] | None] = mapped_column(comment="the last report of `packstream reconcile`")


class AdDayClosure(Base):
    """A shard has counted a day to its end."""

    __tablename__ = "ad_day_closures"

    day: Mapped[date] = mapped_column(ForeignKey("ad_days.day"), primary_key=True)
    shard: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    ads: Mapped[int] = mapped_column(comment="rollups that this shard wrote")
    watermark: Mapped[datetime]
    closed_at: Mapped[datetime]


class AdDailyRollup(Base):
    """An ad's totals of one closed day."""

    __tablename__ = "ad_daily_rollups"
    __table_args__ = (
        CheckConstraint("impressions >= 0 AND clicks >= 0 AND spend_micros >= 0", name="counts"),
        Index(None, "day", "store_id"),
    )

    ad_id: Mapped[UUID] = mapped_column(ForeignKey("ads.id"), primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    store_id: Mapped[UUID] = mapped_column(ForeignKey("stores.id"))
    shard: Mapped[int] = mapped_column(SmallInteger)
    impressions: Mapped[int]
    clicks: Mapped[int]
    spend_micros: Mapped[int]
    created_at: Mapped[datetime]


class AdAdjustment(Base):
    """An event that came after its day was closed, or too late to be told from a repeat. Never billed by itself."""

    __tablename__ = "ad_adjustments"
    __table_args__ = (
        CheckConstraint("reason IN ('day_closed', 'too_late')", name="reason"),
        CheckConstraint("kind IN ('impression', 'click')", name="kind"),
        Index(None, "day"),
    )

    event_id: Mapped[UUID] = mapped_column(primary_key=True)
    ad_id: Mapped[UUID]
    day: Mapped[date]
    kind: Mapped[str] = mapped_column(Text)
    cost_micros: Mapped[int]
    reason: Mapped[str] = mapped_column(Text)
    partition: Mapped[int] = mapped_column(SmallInteger)
    offset: Mapped[int]
    created_at: Mapped[datetime]
