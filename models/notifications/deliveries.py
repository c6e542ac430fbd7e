"""Commands on e-mails: queue, claim, compose, record.

An e-mail is claimed in one transaction, sent outside any, and its outcome recorded in another. Where the outcome is
missing when the claim ends, the e-mail is `unknown` and stays so, unless the one who claimed it still tells.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple, cast
from uuid import UUID

from sqlalchemy import CursorResult, delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from models.database import new_id
from models.identity import reads as identity
from models.identity.invites import InviteTokens
from models.identity.rules import StoreRole
from models.notifications import reads, templates, writes
from models.notifications.gateway import Mail, Outcome, PutOff, Refused, Sent, Uncertain
from models.notifications.rules import (
    DELIVERIES_KEPT,
    INVITE,
    DeliveryStatus,
    MailNews,
    NotificationKind,
    is_essential,
    retry_after,
    text_of,
)
from models.notifications.tables import EmailDelivery
from models.notifications.templates import Addressee, Links
from models.notifications.unsubscribing import Subscription, UnsubscribeTokens
from models.stores import reads as stores
from schemas.records import EmailRequested


class Claimed(NamedTuple):
    """An e-mail that is to be sent now, by the holder of `claim` alone."""

    mail: Mail
    claim: UUID


class Composer(NamedTuple):
    """What it takes to write an e-mail: where links lead, and what they are signed with."""

    public_url: str
    invites: InviteTokens
    unsubscribes: UnsubscribeTokens


class Skip(NamedTuple):
    """Why an e-mail is not to be sent any more."""

    reason: str


async def queue(tx: AsyncSession, event: EmailRequested, *, wall: datetime) -> bool:
    """Take a requested e-mail up; whether it was new. ValueError for a template that is not known."""
    if not templates.has_template(event.template):
        raise ValueError(f"there is no e-mail template {event.template!r}")
    row = {
        "id": event.event_id,
        "store_id": event.store_id,
        "user_id": event.user_id,
        "template": event.template,
        "notification_id": event.notification_id,
        "values": dict(event.values),
        "status": DeliveryStatus.QUEUED,
        "attempts": 0,
        "next_attempt_at": wall,
        "created_at": wall,
    }
    statement = insert(EmailDelivery).values(row).on_conflict_do_nothing().returning(EmailDelivery.id)
    return (await tx.execute(statement)).first() is not None


async def claim(
    tx: AsyncSession, composer: Composer, *, limit: int, claim_for: timedelta, now: datetime, wall: datetime
) -> list[Claimed]:
    """Claim e-mails that are due, those that others are claiming left out; what is not wanted any more is skipped."""
    due = select(EmailDelivery).where(
        EmailDelivery.status == DeliveryStatus.QUEUED, EmailDelivery.next_attempt_at <= wall
    )
    rows = await tx.scalars(due.order_by(EmailDelivery.next_attempt_at).limit(limit).with_for_update(skip_locked=True))
    claimed = []
    for row in rows.all():
        mail = await _composed(tx, row, composer, now=now)
        row.next_attempt_at = None
        if isinstance(mail, Skip):
            row.status, row.detail, row.finished_at = DeliveryStatus.SKIPPED, mail.reason, wall
            continue
        row.status, row.claim, row.claimed_until = DeliveryStatus.SENDING, new_id(), wall + claim_for
        row.attempts += 1
        claimed.append(Claimed(mail, row.claim))
    await tx.flush()
    return claimed


async def _composed(tx: AsyncSession, row: EmailDelivery, composer: Composer, *, now: datetime) -> Mail | Skip:
    """As `compose`; one that cannot be written holds up no other."""
    try:
        return await compose(tx, row, composer, now=now)
    except (KeyError, ValueError) as exc:
        return Skip(f"cannot be written: {exc!r}")


async def compose(tx: AsyncSession, row: EmailDelivery, composer: Composer, *, now: datetime) -> Mail | Skip:
    """The e-mail as it is to be sent now: the address is the one that the user has now."""
    member = await identity.member(tx, row.store_id, row.user_id)
    if member is None:
        return Skip("no_member")
    essential = is_essential(row.template)
    if not essential and await reads.has_opted_out(tx, row.user_id, row.store_id):
        return Skip("unsubscribed")
    if not essential and await reads.takes_no_mail(tx, row.user_id):
        return Skip("mail_came_back")
    store = await stores.store(tx, row.store_id)
    reader = Addressee(member.user.first_name, store.name)
    unsubscribe = None
    if not essential:
        token = composer.unsubscribes.sign(Subscription(row.user_id, row.store_id))
        unsubscribe = f"{composer.public_url}/unsubscribe?token={token}"
    if row.template == INVITE:
        rendered = await _invite(tx, row, reader, composer, now=now)
    elif member.membership.role == StoreRole.STAFF:
        return Skip("no_manager")
    else:
        kind = NotificationKind(row.template)
        links = Links(composer.public_url + text_of(kind, row.values).link, unsubscribe)
        rendered = templates.notification(kind, row.values, reader, links)
    if isinstance(rendered, Skip):
        return rendered
    return Mail(row.id, row.template, member.user.email, *rendered, date=row.created_at, unsubscribe=unsubscribe)


async def _invite(
    tx: AsyncSession, row: EmailDelivery, reader: Addressee, composer: Composer, *, now: datetime
) -> templates.Rendered | Skip:
    invite = await identity.invite(tx, UUID(row.values["invite_id"]))
    if invite is None or invite.accepted_at is not None or invite.expires_at <= now:
        return Skip("invite_over")
    token = composer.invites.find(invite.id, invite.token_hash)
    if token is None:
        return Skip("invite_key_gone")
    # In the fragment: browsers send it to nobody, so no log on the way has it.
    links = Links(f"{composer.public_url}/accept-invite#token={token}", None)
    return templates.invite(reader, links, token=token, expires_on=f"{invite.expires_at:%d %B %Y}")


async def record(tx: AsyncSession, delivery_id: UUID, claim: UUID, outcome: Outcome, *, wall: datetime) -> str | None:
    """What became of a claimed e-mail; the status that it has now, None when somebody else has claimed it since."""
    query = select(EmailDelivery).where(
        EmailDelivery.id == delivery_id,
        EmailDelivery.claim == claim,
        EmailDelivery.status.in_([DeliveryStatus.SENDING, DeliveryStatus.UNKNOWN]),
    )
    row = (await tx.scalars(query.with_for_update())).one_or_none()
    if row is None:
        return None
    row.detail, row.claimed_until, row.finished_at = outcome.detail, None, wall
    match outcome:
        case Sent():
            row.status, row.provider_id = DeliveryStatus.SENT, outcome.provider_id
        case Refused():
            row.status = DeliveryStatus.REFUSED
        case Uncertain():
            row.status = DeliveryStatus.UNKNOWN
        case PutOff():
            pause = retry_after(row.attempts)
            row.status = DeliveryStatus.FAILED if pause is None else DeliveryStatus.QUEUED
            if pause is not None:
                row.next_attempt_at, row.finished_at = wall + pause, None
    await tx.flush()
    return row.status


async def give_up(tx: AsyncSession, *, wall: datetime) -> list[UUID]:
    """E-mails whose claim has ended without an outcome become unknown."""
    statement = update(EmailDelivery).where(
        EmailDelivery.status == DeliveryStatus.SENDING, EmailDelivery.claimed_until < wall
    )
    values = statement.values(
        status=DeliveryStatus.UNKNOWN, finished_at=wall, detail="the process ended, or was held up, while it sent"
    )
    return list(await tx.scalars(values.returning(EmailDelivery.id)))


async def hear(tx: AsyncSession, delivery_id: UUID, news: MailNews, *, detail: str, at: datetime) -> bool:
    """The provider tells what became of an e-mail; whether there is such an e-mail. Heard again: nothing changes.

    News outlive what we knew: an unknown one that was delivered is sent; one that came back is refused, and whoever
    it went to gets no other that is not essential, nor one who wants no more about the store.
    """
    row = await tx.get(EmailDelivery, delivery_id, with_for_update=True)
    if row is None:
        return False
    if news is MailNews.DELIVERED:
        if row.status == DeliveryStatus.UNKNOWN:
            row.status, row.detail = DeliveryStatus.SENT, detail
    elif news is MailNews.UNWANTED:
        await writes.opt_out(tx, Subscription(row.user_id, row.store_id), wall=at)
        row.detail = detail
    else:
        row.status, row.detail, row.next_attempt_at, row.claimed_until = DeliveryStatus.REFUSED, detail, None, None
        row.finished_at = row.finished_at or at
        if news is MailNews.RETURNED:
            row.bounced_at = row.bounced_at or at
    await tx.flush()
    return True


async def forget(tx: AsyncSession, *, limit: int, wall: datetime) -> int:
    """Delete e-mails over DELIVERIES_KEPT old; how many."""
    old = select(EmailDelivery.id).where(EmailDelivery.created_at < wall - DELIVERIES_KEPT)
    chosen = old.order_by(EmailDelivery.created_at).limit(limit).with_for_update(skip_locked=True)
    statement = delete(EmailDelivery).where(EmailDelivery.id.in_(chosen.scalar_subquery()))
    done = await tx.execute(statement.execution_options(synchronize_session=False))
    return cast("CursorResult[None]", done).rowcount
