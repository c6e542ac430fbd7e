"""Identity: roles, who may do what to a membership, which store is active. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

from models.errors import Conflict, Forbidden, NotFound

INVITE_TTL: Final = timedelta(days=7)
REFRESH_GRACE_S: Final = 10  #: a used refresh token gives its answer again for so long


class Role(StrEnum):
    USER = "user"
    AGENT = "agent"
    ADMIN = "admin"


class StoreRole(StrEnum):
    OWNER = "owner"
    MANAGER = "manager"
    STAFF = "staff"


class ActiveStore(NamedTuple):
    """A store that a session acts for, and the user's part in it."""

    id: UUID
    type: str
    role: str


class StoreMembership(NamedTuple):
    """A store of a user."""

    id: UUID
    name: str
    type: str
    role: str


def choose_store(stores: Sequence[StoreMembership], wanted: UUID | None) -> ActiveStore | None:
    """The store that `wanted` names, NotFound when the user is not in it; without one, the user's only store."""
    if wanted is None:
        return active(stores[0]) if len(stores) == 1 else None
    for store in stores:
        if store.id == wanted:
            return active(store)
    raise NotFound


def keep_store(stores: Sequence[StoreMembership], current: UUID | None) -> ActiveStore | None:
    """The active store of a session, None when the user is in it no longer."""
    return next((active(store) for store in stores if store.id == current), None)


def active(store: StoreMembership) -> ActiveStore:
    return ActiveStore(store.id, store.type, store.role)


def check_grant(granter: str, role: str) -> None:
    """Forbidden when a member of role `granter` may not give `role`: only an owner makes owners."""
    if granter == StoreRole.STAFF or (role == StoreRole.OWNER and granter != StoreRole.OWNER):
        raise Forbidden("only an owner gives the role of owner")


def check_removal(remover: str, removed: str, *, owners: int) -> None:
    """Forbidden when the remover's role does not reach; Conflict for the last owner."""
    if remover == StoreRole.STAFF or (removed == StoreRole.OWNER and remover != StoreRole.OWNER):
        raise Forbidden("a manager cannot remove an owner")
    if removed == StoreRole.OWNER and owners <= 1:
        raise Conflict("the last owner of a store stays")
