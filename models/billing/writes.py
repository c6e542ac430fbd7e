"""Commands on charges."""

from __future__ import annotations

from datetime import date, datetime
from uuid import UUID

from sqlalchemy import update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from models.billing.rules import UsageStatus, UsageType
from models.billing.tables import UsageCharge
from models.database import new_id


async def record_ad_spend(
    tx: AsyncSession, store_id: UUID, day: date, *, spend_micros: int, amount_cents: int, now: datetime
) -> UUID:
    """The store's charge for a day of advertising; its id. There can be one only."""
    charge_id = new_id()
    await tx.execute(
        insert(UsageCharge).values(
            id=charge_id,
            store_id=store_id,
            type=UsageType.AD_SPEND,
            for_date=day,
            spend_micros=spend_micros,
            amount_cents=amount_cents,
            currency="USD",
            status=UsageStatus.RECORDED,
            created_at=now,
        )
    )
    return charge_id


async def clear_ad_spend(tx: AsyncSession, day: date, *, now: datetime) -> int:
    """The day reconciles to zero: its recorded charges may be billed. Returns how many changed."""
    cleared = await tx.execute(
        update(UsageCharge)
        .where(UsageCharge.for_date == day, UsageCharge.type == UsageType.AD_SPEND)
        .where(UsageCharge.status == UsageStatus.RECORDED)
        .values(status=UsageStatus.CLEARED, cleared_at=now)
        .returning(UsageCharge.id)
    )
    return len(cleared.all())
