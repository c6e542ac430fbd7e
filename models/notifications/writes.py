"""Commands on notifications: request, tell, mark as read, forget; and who wants no e-mail."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import cast
from uuid import UUID

from sqlalchemy import CursorResult, delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from models import outbox
from models.database import new_id
from models.errors import NotFound
from models.identity import reads as identity
from models.notifications.rules import KEPT, WORDINGS, NotificationKind, text_of
from models.notifications.tables import EmailOptOut, Notification
from models.notifications.unsubscribing import Subscription
from models.stores import reads as stores
from schemas.records import EmailRequested, NotificationRequested


async def request(
    tx: AsyncSession,
    *,
    store_id: UUID,
    kind: NotificationKind,
    subject_id: UUID | None,
    values: Mapping[str, str],
    actor: str,
    now: datetime,
) -> None:
    """Let a store hear of something, once the caller's transaction has committed."""
    event = requested(store_id=store_id, kind=kind, subject_id=subject_id, values=values, actor=actor, now=now)
    await outbox.append(tx, event)


def requested(
    *,
    store_id: UUID,
    kind: NotificationKind,
    subject_id: UUID | None,
    values: Mapping[str, str],
    actor: str,
    now: datetime,
) -> NotificationRequested:
    """The event of `request`, for who appends it beside others."""
    return NotificationRequested(
        event_id=new_id(),
        occurred_at=now,
        actor=actor,
        store_id=store_id,
        kind=kind,
        subject_id=subject_id,
        values=dict(values),
    )


async def tell(tx: AsyncSession, event: NotificationRequested, *, now: datetime) -> None:
    """A requested notification comes to its store, and asks for e-mails to those who run it, where its kind says so.

    ValueError for a kind that is not known, NotFound for an unknown store. The caller sees to it that an event comes
    once.
    """
    kind = NotificationKind(event.kind)
    await stores.store(tx, event.store_id)
    shown = text_of(kind, event.values)
    found = Notification(
        id=new_id(),
        event_id=event.event_id,
        store_id=event.store_id,
        kind=kind,
        subject_id=event.subject_id,
        title=shown.title,
        body=shown.body,
        link=shown.link,
        read_at=None,
        created_at=event.occurred_at,
    )
    tx.add(found)
    await tx.flush()
    if WORDINGS[kind].by_email:
        for user_id in await identity.managers_of(tx, event.store_id):
            await outbox.append(tx, _email(event, found.id, user_id, now))


def _email(event: NotificationRequested, notification_id: UUID, user_id: UUID, now: datetime) -> EmailRequested:
    return EmailRequested(
        event_id=new_id(),
        occurred_at=now,
        actor="notifications",
        store_id=event.store_id,
        user_id=user_id,
        template=event.kind,
        notification_id=notification_id,
        values=event.values,
    )


async def read(tx: AsyncSession, notification_id: UUID, *, store_id: UUID, now: datetime) -> Notification:
    """Mark a notification of the store as read; one that was read stays as it is. NotFound."""
    query = select(Notification).where(Notification.id == notification_id, Notification.store_id == store_id)
    found = (await tx.scalars(query.with_for_update())).one_or_none()
    if found is None:
        raise NotFound
    if found.read_at is None:
        found.read_at = now
        await tx.flush()
    return found


async def read_all(tx: AsyncSession, store_id: UUID, *, now: datetime) -> int:
    """Mark all that the store has not read as read; how many."""
    statement = update(Notification).where(Notification.store_id == store_id, Notification.read_at.is_(None))
    done = await tx.execute(statement.values(read_at=now).execution_options(synchronize_session=False))
    return cast("CursorResult[None]", done).rowcount


async def forget(tx: AsyncSession, *, limit: int, now: datetime) -> int:
    """Delete notifications over KEPT old, the oldest first; how many."""
    old = select(Notification.id).where(Notification.created_at < now - KEPT)
    chosen = old.order_by(Notification.created_at).limit(limit).with_for_update(skip_locked=True)
    statement = delete(Notification).where(Notification.id.in_(chosen.scalar_subquery()))
    done = await tx.execute(statement.execution_options(synchronize_session=False))
    return cast("CursorResult[None]", done).rowcount


async def opt_out(tx: AsyncSession, subscription: Subscription, *, wall: datetime) -> None:
    """No more e-mails to the user about the store, but for essential ones; NotFound when there is no such user."""
    await identity.user(tx, subscription.user_id)
    await stores.store(tx, subscription.store_id)
    await tx.execute(insert(EmailOptOut).values(**subscription._asdict(), created_at=wall).on_conflict_do_nothing())


async def opt_in(tx: AsyncSession, subscription: Subscription) -> None:
    """Take an `opt_out` back."""
    await tx.execute(
        delete(EmailOptOut).where(
            EmailOptOut.user_id == subscription.user_id, EmailOptOut.store_id == subscription.store_id
        )
    )
