"""Queries on charges."""

from __future__ import annotations

from datetime import date
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from models.billing.rules import UsageType
from models.billing.tables import UsageCharge


async def ad_spend(tx: AsyncSession, day: date) -> dict[UUID, tuple[int, int]]:
    """Each store's charge for a day of advertising: (spend_micros, amount_cents)."""
    rows = await tx.execute(
        select(UsageCharge.store_id, UsageCharge.spend_micros, UsageCharge.amount_cents).where(
            UsageCharge.type == UsageType.AD_SPEND, UsageCharge.for_date == day
        )
    )
    return {store_id: (micros, cents) for store_id, micros, cents in rows}
