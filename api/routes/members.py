"""The people of the caller's store, and the invites that bring them in."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response

from api.dependencies import Manager, Now, Process, StoreMember, Tx, services_of, sign_in_limit
from api.envelope import Envelope, ListEnvelope
from api.idempotency import IdempotentRoute
from api.pagination import Key, Paged
from api.pictures import with_avatars
from api.routes.auth import open_session
from models.errors import InvalidCredentials
from models.identity import memberships, reads
from models.identity.invites import InviteTokens
from models.identity.reads import Member
from models.identity.rules import StoreRole, choose_store
from models.tenancy import as_service
from schemas.http.identity import (
    AcceptInvite,
    Invite,
    InviteAccepted,
    Invited,
    MemberOut,
    MembershipOut,
    StoreOfUser,
    UserOut,
)

LIST: Final = "members"

router = APIRouter(prefix="/api/v1/stores/me/users", tags=["stores"], route_class=IdempotentRoute)
public_router = APIRouter(prefix="/api/v1/auth", tags=["auth"], dependencies=[Depends(sign_in_limit)])


@router.get("")
async def list_members(member: StoreMember, services: Process, tx: Tx, page: Paged) -> ListEnvelope[MemberOut]:
    """Everyone in the store, in the order in which they came."""
    name = f"{LIST}:{member.store_id}"
    rows = await reads.members_of(tx, member.store_id, limit=page.limit + 1, after=page.after_time(name))
    shown, cursor = page.cut(name, rows, _sort_key)
    members = [MemberOut.model_validate(row) for row in shown]
    users = await with_avatars(tx, services, [one.user for one in members])
    pairs = zip(users, members, strict=True)
    return ListEnvelope.of([MemberOut(user=user, membership=one.membership) for user, one in pairs], cursor)


@router.post("/invite", status_code=201)
async def invite(body: Invite, manager: Manager, services: Process, tx: Tx, now: Now) -> Envelope[Invited]:
    """Put someone in the store; the token lets them set a password and sign in."""
    await as_service(tx)  # who is invited may be known from another store
    made = await memberships.invite(
        tx,
        manager.store_id,
        email=body.email,
        first_name=body.first_name,
        last_name=body.last_name,
        role=StoreRole(body.role),
        inviter_id=manager.user_id,
        tokens=InviteTokens(services.settings.jwt_keys),
        now=now,
    )
    await services.logins.unbar(manager.store_id, made.user.id)
    user, membership = UserOut.model_validate(made.user), MembershipOut.model_validate(made.membership)
    token = made.token if services.settings.test_clock else None
    return Envelope(data=Invited(user=user, membership=membership, invite_token=token))


@router.delete("/{user_id}", status_code=204)
async def remove(user_id: UUID, manager: Manager, services: Process, tx: Tx, now: Now) -> Response:
    """Take someone out of the store: their next call for it is refused."""
    await memberships.remove(tx, manager.store_id, user_id, remover_id=manager.user_id, now=now)
    await services.logins.bar(manager.store_id, user_id)
    return Response(status_code=204)


@public_router.post("/accept-invite")
async def accept_invite(
    body: AcceptInvite, request: Request, services: Process, tx: Tx, now: Now
) -> Envelope[InviteAccepted]:
    """Use an invite up. Someone new sets their password by it; someone known gives the one they have."""
    password_hash = await services.passwords.hash(body.password)
    invite = await memberships.accept(tx, body.token, password_hash=password_hash, now=now)
    user = await reads.user(tx, invite.user_id)
    if user.password_hash != password_hash:
        await _check_password(request, user.email, body.password, user.password_hash)
    stores = await reads.stores_of(tx, user.id)
    tokens = await open_session(services, user.id, user.role, choose_store(stores, invite.store_id))
    shown = [StoreOfUser(**store._asdict()) for store in stores]
    (accepted,) = await with_avatars(tx, services, [UserOut.model_validate(user)])
    return Envelope(data=InviteAccepted(user=accepted, stores=shown, tokens=tokens))


async def _check_password(request: Request, email: str, password: str, stored: str | None) -> None:
    """InvalidCredentials for a wrong one; such guesses count as those at sign-in do, and end with RateLimited."""
    services = services_of(request)
    address = services.proxies.client(request)
    await services.login_limit.ask(email, address)
    if not await services.passwords.matches(password, stored):
        await services.login_limit.count(email, address)
        raise InvalidCredentials


def _sort_key(member: Member) -> Key:
    return member.membership.created_at.isoformat(), str(member.membership.user_id)
