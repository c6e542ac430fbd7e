"""What routes ask for: the caller, a transaction, the time. Each also as a plain function, for hot paths."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from time import time
from typing import Annotated, Final, cast
from uuid import UUID

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession

from api.services import Services
from models import limits
from models.errors import ActiveStoreRequired, Forbidden, Unauthenticated
from models.identity.rules import Role, StoreRole
from models.identity.tokens import Caller
from models.limits import Limit
from models.stores.rules import StoreType
from models.tenancy import Tenant


@dataclass(frozen=True, slots=True)
class Member:
    """A user who acts for the active store of the session."""

    user_id: UUID
    session_id: str
    store_id: UUID
    store_role: StoreRole
    store_type: StoreType

    @property
    def actor(self) -> str:
        """As events and the audit log name them."""
        return f"user:{self.user_id}"


def services_of(request: Request) -> Services:
    """The process's services."""
    return cast(Services, request.app.state.services)


def request_now(request: Request) -> datetime:
    """The time of this request: X-Now in dev and test, else the process's clock. The same at every call."""
    now = request.scope.get("now")
    if now is None:
        now = request.scope["now"] = services_of(request).clock.now()
    return cast(datetime, now)


async def authenticate(request: Request, *, limit: Limit | None = None) -> Caller:
    """The caller of a valid access token with a live session; one round trip to Redis.

    `limit` counts the request in the same round trip: of the caller's store, or of the user who has none.
    Raises Unauthenticated, TokenExpired, SessionRevoked, Forbidden (membership removed), RateLimited, Unavailable.
    """
    services = services_of(request)
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated("send an access token: Authorization: Bearer …")
    caller = services.tokens.verify(token.strip(), now_s=time())
    await services.logins.check(caller, limit=limit, subject=caller.store_id or caller.user_id)
    return caller


async def limit_address(request: Request, limit: Limit) -> None:
    """Count a request of the client's address; raises RateLimited."""
    services = services_of(request)
    subject = limits.network_of(services.proxies.client(request))
    await limits.hit(services.redis, limit, subject, scale=services.settings.rate_limit_scale)


def as_member(caller: Caller) -> Member:
    """Forbidden for admins and agents, ActiveStoreRequired without an active store."""
    if caller.role is not Role.USER:
        raise Forbidden
    if caller.store_id is None or caller.store_role is None or caller.store_type is None:
        raise ActiveStoreRequired
    return Member(caller.user_id, caller.session_id, caller.store_id, caller.store_role, StoreType(caller.store_type))


def as_manager(caller: Caller) -> Member:
    """An owner or manager of the active store."""
    member = as_member(caller)
    if member.store_role is StoreRole.STAFF:
        raise Forbidden("owners and managers may do this")
    return member


def as_buyer(caller: Caller) -> Member:
    """Someone who acts for a buyer store."""
    return _of_type(caller, StoreType.BUYER)


def as_vendor(caller: Caller) -> Member:
    """Someone who acts for a vendor store."""
    return _of_type(caller, StoreType.VENDOR)


def as_admin(caller: Caller) -> Caller:
    return _of_role(caller, Role.ADMIN)


def as_agent(caller: Caller) -> Caller:
    return _of_role(caller, Role.AGENT)


def _of_type(caller: Caller, kind: StoreType) -> Member:
    member = as_member(caller)
    if member.store_type is not kind:
        raise Forbidden(f"only a {kind} store may do this")
    return member


def _of_role(caller: Caller, role: Role) -> Caller:
    if caller.role is not role:
        raise Forbidden
    return caller


async def authenticated(request: Request) -> Caller:
    """As a dependency: any caller, within the limits of their class of route; asked and counted once a request.

    Guards call it themselves: a dependency of a dependency costs as much as the guard.
    """
    caller = request.scope.get("caller")
    if caller is None:
        limit = limits.READ if request.method in ("GET", "HEAD") else limits.WRITE
        caller = request.scope["caller"] = await authenticate(request, limit=limit)
    return cast(Caller, caller)


async def sign_in_limit(request: Request) -> None:
    """As a dependency of public routes under /auth: the limit of a client address."""
    await limit_address(request, limits.SIGN_IN)


async def _member(request: Request) -> Member:
    return as_member(await authenticated(request))


async def _manager(request: Request) -> Member:
    return as_manager(await authenticated(request))


async def _buyer(request: Request) -> Member:
    return as_buyer(await authenticated(request))


async def _vendor(request: Request) -> Member:
    return as_vendor(await authenticated(request))


async def _admin(request: Request) -> Caller:
    return as_admin(await authenticated(request))


async def _agent(request: Request) -> Caller:
    return as_agent(await authenticated(request))


GUARDS: Final = frozenset((authenticated, _member, _manager, _buyer, _vendor, _admin, _agent))
"""The dependencies that let nobody in who is not signed in."""


async def transaction(request: Request) -> AsyncIterator[AsyncSession]:
    """One transaction for the request, committed when the handler has returned, before its answer is sent.

    An exception rolls it back. It takes a connection with its first statement, not before. With an Idempotency-Key it
    is a savepoint of the transaction that holds the key (api/idempotency.py).
    """
    outer = request.scope.get("tx")
    if outer is not None:
        yield outer
        return
    async with services_of(request).transaction_for(partial(tenant_of, request)) as tx:
        yield tx


def tenant_of(request: Request) -> Tenant | None:
    """For whom the request's transaction is: the caller's store, once the guards have let them in."""
    caller: Caller | None = request.scope.get("caller")
    if caller is None or caller.role is not Role.USER or caller.store_id is None:
        return None
    return Tenant(caller.store_id, caller.user_id)


async def _services(request: Request) -> Services:
    return services_of(request)


async def _now(request: Request) -> datetime:
    return request_now(request)


Authenticated = Annotated[Caller, Depends(authenticated)]
StoreMember = Annotated[Member, Depends(_member)]
Manager = Annotated[Member, Depends(_manager)]
Buyer = Annotated[Member, Depends(_buyer)]
Vendor = Annotated[Member, Depends(_vendor)]
Admin = Annotated[Caller, Depends(_admin)]
AgentUser = Annotated[Caller, Depends(_agent)]
Tx = Annotated[AsyncSession, Depends(transaction, scope="function")]
Now = Annotated[datetime, Depends(_now)]
Process = Annotated[Services, Depends(_services)]
