"""Commands on users and memberships."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from models import audit
from models.database import new_id
from models.errors import AlreadyExists, NotFound
from models.identity import reads
from models.identity.rules import ActiveStore, Role, StoreRole
from models.identity.tables import Membership, User
from models.media import writes as media
from models.media.rules import EntityType, Slot
from models.stores import writes as stores
from models.stores.rules import StoreType


class Registration(NamedTuple):
    """A new user and the store that they own."""

    user: User
    store: ActiveStore


async def create_user(
    tx: AsyncSession,
    *,
    email: str,
    password_hash: str | None,
    now: datetime,
    first_name: str = "",
    last_name: str = "",
    role: Role = Role.USER,
) -> User:
    """A new user; AlreadyExists when the (normalised) e-mail is taken, whoever commits first."""
    user = User(
        id=new_id(),
        email=email,
        password_hash=password_hash,
        first_name=first_name,
        last_name=last_name,
        role=role,
        created_at=now,
    )
    try:
        async with tx.begin_nested():
            tx.add(user)
    except IntegrityError as exc:
        if "uq_users_email_lower" in str(exc.orig):
            raise AlreadyExists("this e-mail address is registered already") from None
        raise
    return user


async def register(
    tx: AsyncSession,
    *,
    email: str,
    password_hash: str,
    first_name: str,
    last_name: str,
    store_name: str,
    store_type: StoreType,
    address: dict[str, Any],
    now: datetime,
) -> Registration:
    """A user, a first store, and the user as its owner. AlreadyExists when the e-mail is taken."""
    user = await create_user(
        tx, email=email, password_hash=password_hash, first_name=first_name, last_name=last_name, now=now
    )
    store = stores.create(tx, name=store_name, kind=store_type, address=address, now=now)
    await tx.flush()
    await add_member(tx, store.id, user.id, StoreRole.OWNER, now=now)
    return Registration(user, ActiveStore(store.id, store.type, StoreRole.OWNER))


async def add_member(tx: AsyncSession, store_id: UUID, user_id: UUID, role: StoreRole, *, now: datetime) -> Membership:
    """Put a user in a store."""
    membership = Membership(store_id=store_id, user_id=user_id, role=role, created_at=now)
    tx.add(membership)
    await tx.flush()
    return membership


async def create_agent(
    tx: AsyncSession, *, email: str, password_hash: str, first_name: str, last_name: str, actor: str, now: datetime
) -> User:
    """A delivery agent, who belongs to no store; audited."""
    user = await create_user(
        tx,
        email=email,
        password_hash=password_hash,
        first_name=first_name,
        last_name=last_name,
        role=Role.AGENT,
        now=now,
    )
    audit.record(tx, actor=actor, action="agent.created", object_type="user", object_id=user.id, now=now)
    return user


async def create_admin(tx: AsyncSession, *, email: str, password_hash: str, actor: str, now: datetime) -> User:
    """An administrator; audited."""
    user = await create_user(tx, email=email, password_hash=password_hash, role=Role.ADMIN, now=now)
    audit.record(tx, actor=actor, action="admin.created", object_type="user", object_id=user.id, now=now)
    return user


async def rename(tx: AsyncSession, user_id: UUID, changes: dict[str, Any]) -> User:
    """Set the names that `changes` has."""
    user = await reads.user(tx, user_id)
    for field, value in changes.items():
        setattr(user, field, value)
    await tx.flush()
    return user


async def set_avatar(
    tx: AsyncSession, user_id: UUID, media_id: UUID | None, *, store_id: UUID | None, now: datetime
) -> None:
    """Show media of the user's store as the user, or nothing. NotFound for media of any other store."""
    if media_id is not None and store_id is None:
        raise NotFound("there is no such media")
    await media.detach_entity(tx, entity_type=EntityType.USER, entity_id=user_id, slot=Slot.AVATAR)
    if media_id is not None and store_id is not None:
        await media.attach(
            tx,
            media_id=media_id,
            store_id=store_id,
            entity_type=EntityType.USER,
            entity_id=user_id,
            slot=Slot.AVATAR,
            now=now,
            field="avatar_media_id",
        )


async def set_password(tx: AsyncSession, user_id: UUID, password_hash: str) -> None:
    """Store another hash."""
    user = await reads.user(tx, user_id)
    user.password_hash = password_hash
