"""Queries on notifications and on e-mails."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from models.notifications.rules import DeliveryStatus
from models.notifications.tables import EmailDelivery, EmailOptOut, Notification


async def notifications_of(
    tx: AsyncSession, store_id: UUID, *, unread: bool, limit: int, after: tuple[datetime, UUID] | None = None
) -> Sequence[Notification]:
    """What a store heard of, newest first, from behind `after` (created_at, id) on; `unread`: only that."""
    query = select(Notification).where(Notification.store_id == store_id)
    if unread:
        query = query.where(Notification.read_at.is_(None))
    if after is not None:
        query = query.where(tuple_(Notification.created_at, Notification.id) < after)
    return (await tx.scalars(query.order_by(Notification.created_at.desc(), Notification.id.desc()).limit(limit))).all()


async def deliveries(
    tx: AsyncSession,
    *,
    status: DeliveryStatus | None = None,
    limit: int,
    after: tuple[datetime, UUID] | None = None,
) -> Sequence[EmailDelivery]:
    """E-mails of all stores, newest first, from behind `after` (created_at, id) on."""
    query = select(EmailDelivery)
    if status is not None:
        query = query.where(EmailDelivery.status == status)
    if after is not None:
        query = query.where(tuple_(EmailDelivery.created_at, EmailDelivery.id) < after)
    return (
        await tx.scalars(query.order_by(EmailDelivery.created_at.desc(), EmailDelivery.id.desc()).limit(limit))
    ).all()


async def deliveries_by_status(tx: AsyncSession) -> dict[str, int]:
    """How many e-mails are in each state; every state is there."""
    rows = await tx.execute(select(EmailDelivery.status, func.count()).group_by(EmailDelivery.status))
    counted = {row.status: row[1] for row in rows}
    return {status.value: counted.get(status.value, 0) for status in DeliveryStatus}


async def has_opted_out(tx: AsyncSession, user_id: UUID, store_id: UUID) -> bool:
    """Whether someone wants nothing about a store but what is essential."""
    query = select(EmailOptOut.user_id).where(EmailOptOut.user_id == user_id, EmailOptOut.store_id == store_id)
    return await tx.scalar(query) is not None


async def takes_no_mail(tx: AsyncSession, user_id: UUID) -> bool:
    """Whether mail to someone came back lately: within the time that e-mails are kept."""
    query = select(EmailDelivery.id).where(EmailDelivery.user_id == user_id, EmailDelivery.bounced_at.is_not(None))
    return await tx.scalar(query.limit(1)) is not None
