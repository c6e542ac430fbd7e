"""Commands on the people of a store: invite, accept, remove."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from models import audit, outbox
from models.database import new_id
from models.errors import AlreadyExists, Conflict, Forbidden, NotFound
from models.identity import reads, writes
from models.identity.invites import InviteTokens, hash_of
from models.identity.rules import INVITE_TTL, Role, StoreRole, check_grant, check_removal
from models.identity.tables import Invite, Membership, User
from schemas.records import EmailRequested


class Invitation(NamedTuple):
    """An invited user, the membership they have from now on, and the token that lets them in."""

    user: User
    membership: Membership
    token: str


async def invite(
    tx: AsyncSession,
    store_id: UUID,
    *,
    email: str,
    first_name: str,
    last_name: str,
    role: StoreRole,
    inviter_id: UUID,
    tokens: InviteTokens,
    now: datetime,
) -> Invitation:
    """Put someone in a store, known or new; audited. The token goes to them by e-mail.

    Forbidden where the inviter's role does not reach, AlreadyExists for a member, an agent or an administrator.
    """
    members = await reads.lock_memberships(tx, store_id)
    check_grant(_role_of(members, inviter_id), role)
    user = await reads.user_by_email(tx, email)
    if user is None:
        user = await writes.create_user(
            tx, email=email, password_hash=None, first_name=first_name, last_name=last_name, now=now
        )
    if user.id in members or user.role != Role.USER:
        raise AlreadyExists("this person has a place already")
    membership = await writes.add_member(tx, store_id, user.id, role, now=now)
    invite_id = new_id()
    token = tokens.make(invite_id)
    tx.add(
        Invite(
            id=invite_id,
            store_id=store_id,
            user_id=user.id,
            token_hash=hash_of(token),
            created_at=now,
            expires_at=now + INVITE_TTL,
            accepted_at=None,
        )
    )
    _audit(tx, "member.invited", store_id, user.id, inviter_id, [None, role.value], now)
    await outbox.append(tx, _email(invite_id, store_id, user.id, inviter_id, now))
    return Invitation(user, membership, token)


def _email(invite_id: UUID, store_id: UUID, user_id: UUID, inviter_id: UUID, now: datetime) -> EmailRequested:
    """Whoever sends it makes the token anew: it is in no event."""
    return EmailRequested(
        event_id=new_id(),
        occurred_at=now,
        actor=f"user:{inviter_id}",
        store_id=store_id,
        user_id=user_id,
        template="invite",
        values={"invite_id": str(invite_id)},
    )


async def accept(tx: AsyncSession, token: str, *, password_hash: str, now: datetime) -> Invite:
    """Use an invite up. A user without a password gets this one; who has one keeps it.

    NotFound for an unknown token, Conflict for one that is used or expired.
    """
    statement = select(Invite).where(Invite.token_hash == hash_of(token)).with_for_update()
    found = (await tx.scalars(statement)).one_or_none()
    if found is None:
        raise NotFound("there is no such invite")
    if found.accepted_at is not None or found.expires_at <= now:
        raise Conflict("the invite was used or has expired")
    found.accepted_at = now
    user = await reads.user(tx, found.user_id)
    if user.password_hash is None:
        user.password_hash = password_hash
    return found


async def remove(tx: AsyncSession, store_id: UUID, user_id: UUID, *, remover_id: UUID, now: datetime) -> None:
    """Take someone out of a store; audited.

    NotFound for someone who is not in it, Forbidden where the remover's role does not reach, Conflict for the last
    owner, also when owners remove each other at the same time.
    """
    members = await reads.lock_memberships(tx, store_id)
    remover_role = _role_of(members, remover_id)
    if user_id not in members:
        raise NotFound
    role = members[user_id].role
    check_removal(remover_role, role, owners=reads.owners(members))
    await tx.execute(delete(Invite).where(Invite.store_id == store_id, Invite.user_id == user_id))
    await tx.delete(members[user_id])
    _audit(tx, "member.removed", store_id, user_id, remover_id, [role, None], now)
    await tx.flush()


def _role_of(members: dict[UUID, Membership], user_id: UUID) -> str:
    """The role that someone has now, whatever their token says."""
    if user_id not in members:
        raise Forbidden("you are no longer a member of this store")
    return members[user_id].role


def _audit(
    tx: AsyncSession,
    action: str,
    store_id: UUID,
    user_id: UUID,
    actor_id: UUID,
    role: list[str | None],
    now: datetime,
) -> None:
    audit.record(
        tx,
        actor=f"user:{actor_id}",
        action=action,
        object_type="user",
        object_id=user_id,
        store_id=store_id,
        now=now,
        change={"role": role},
    )
