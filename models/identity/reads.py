"""Queries on users and memberships."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from models.errors import NotFound
from models.identity.rules import Role, StoreMembership, StoreRole
from models.identity.tables import Invite, Membership, User
from models.stores import reads as stores


class Member(NamedTuple):
    """A user in a store."""

    user: User
    membership: Membership


class Account(NamedTuple):
    """A user with their stores."""

    user: User
    stores: list[StoreMembership]


async def user(tx: AsyncSession, user_id: UUID) -> User:
    """NotFound for an unknown id."""
    found = await tx.get(User, user_id)
    if found is None:
        raise NotFound
    return found


async def user_by_email(tx: AsyncSession, email: str) -> User | None:
    """`email` is normalised; an address is found whatever its case."""
    return (await tx.scalars(select(User).where(func.lower(User.email) == email))).one_or_none()


async def agents(tx: AsyncSession) -> list[UUID]:
    """All delivery agents."""
    return list(await tx.scalars(select(User.id).where(User.role == Role.AGENT).order_by(User.id)))


async def stores_of(tx: AsyncSession, user_id: UUID) -> list[StoreMembership]:
    """A user's stores, the oldest membership first."""
    statement = select(Membership).where(Membership.user_id == user_id)
    memberships = (await tx.scalars(statement.order_by(Membership.created_at, Membership.store_id))).all()
    named = await stores.by_ids(tx, [membership.store_id for membership in memberships])
    return [StoreMembership(m.store_id, named[m.store_id].name, named[m.store_id].type, m.role) for m in memberships]


async def members_of(
    tx: AsyncSession, store_id: UUID, *, limit: int, after: tuple[datetime, UUID] | None = None
) -> list[Member]:
    """The people of a store in the order in which they came, from behind `after` (created_at, user id) on."""
    statement = (
        select(User, Membership)
        .join(Membership, Membership.user_id == User.id)
        .where(Membership.store_id == store_id)
        .order_by(Membership.created_at, Membership.user_id)
        .limit(limit)
    )
    if after is not None:
        statement = statement.where(tuple_(Membership.created_at, Membership.user_id) > after)
    return [Member(user, membership) for user, membership in await tx.execute(statement)]


async def lock_memberships(tx: AsyncSession, store_id: UUID) -> dict[UUID, Membership]:
    """All memberships of a store by user, locked until the transaction ends."""
    statement = select(Membership).where(Membership.store_id == store_id).order_by(Membership.user_id)
    return {m.user_id: m for m in await tx.scalars(statement.with_for_update())}


async def managers_of(tx: AsyncSession, store_id: UUID) -> list[UUID]:
    """Who runs a store: its owners and managers, as far as they have ever signed in."""
    statement = (
        select(Membership.user_id)
        .join(User, User.id == Membership.user_id)
        .where(Membership.store_id == store_id, User.password_hash.is_not(None))
        .where(Membership.role.in_([StoreRole.OWNER, StoreRole.MANAGER]))
    )
    return list(await tx.scalars(statement.order_by(Membership.user_id)))


async def member(tx: AsyncSession, store_id: UUID, user_id: UUID) -> Member | None:
    """Someone in a store; None when they are not in it (any more)."""
    statement = select(User, Membership).join(Membership, Membership.user_id == User.id)
    found = (await tx.execute(statement.where(Membership.store_id == store_id, User.id == user_id))).one_or_none()
    return None if found is None else Member(*found)


async def invite(tx: AsyncSession, invite_id: UUID) -> Invite | None:
    """An invite; None when it was taken back."""
    return await tx.get(Invite, invite_id)


def owners(memberships: dict[UUID, Membership]) -> int:
    return sum(membership.role == StoreRole.OWNER for membership in memberships.values())
