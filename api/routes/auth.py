"""Sign-up, sign-in, refresh, sign-out."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response

from api.dependencies import Authenticated, Now, Process, Tx, services_of, sign_in_limit
from api.envelope import Envelope
from api.pictures import with_avatars
from api.services import Services, wall_clock
from models.errors import InvalidCredentials
from models.identity import reads, writes
from models.identity.reads import Account
from models.identity.rules import ActiveStore, Role, choose_store, keep_store
from models.stores import reads as stores
from models.stores.rules import StoreType
from schemas.http.identity import (
    LoggedIn,
    Login,
    Refresh,
    Refreshed,
    Register,
    Registered,
    StoreOfUser,
    Tokens,
    UserOut,
)
from schemas.http.stores import StoreOut

router = APIRouter(prefix="/api/v1/auth", tags=["auth"])
public = [Depends(sign_in_limit)]


@router.post("/register", status_code=201, dependencies=public)
async def register(body: Register, services: Process, tx: Tx, now: Now) -> Envelope[Registered]:
    """A user, their first store and a session; all of it or nothing."""
    password_hash = await services.passwords.hash(body.password)
    made = await writes.register(
        tx,
        email=body.email,
        password_hash=password_hash,
        first_name=body.first_name,
        last_name=body.last_name,
        store_name=body.store.name,
        store_type=StoreType(body.store.type),
        address=body.store.address.model_dump(),
        now=now,
    )
    tokens = await open_session(services, made.user.id, made.user.role, made.store)
    user, store = UserOut.model_validate(made.user), await stores.store(tx, made.store.id)
    return Envelope(data=Registered(user=user, store=StoreOut.model_validate(store), tokens=tokens))


@router.post("/login", dependencies=public)
async def login(body: Login, request: Request) -> Envelope[LoggedIn]:
    """A session for a user or a delivery agent."""
    services = services_of(request)
    user, memberships = await sign_in(request, body.email, body.password, {Role.USER, Role.AGENT})
    store = choose_store(memberships, body.store_id)
    tokens = await open_session(services, user.id, user.role, store)
    async with services.transaction() as tx:
        (shown,) = await with_avatars(tx, services, [UserOut.model_validate(user)])
    answer = LoggedIn(
        user=shown,
        stores=[StoreOfUser(**membership._asdict()) for membership in memberships],
        active_store_id=store.id if store else None,
        tokens=tokens,
    )
    return Envelope(data=answer)


@router.post("/refresh", dependencies=public)
async def refresh(body: Refresh, services: Process, tx: Tx) -> Envelope[Refreshed]:
    """New tokens for a refresh token, which is used up; with `store_id`, for another store of the user."""
    record = await services.logins.find(body.refresh_token)
    store: ActiveStore | None = None
    if not record.used:
        memberships = await reads.stores_of(tx, record.user_id)
        wanted = choose_store(memberships, body.store_id) if body.store_id else None
        store = wanted or keep_store(memberships, record.store_id)
    rotation = await services.logins.rotate(body.refresh_token, store, wall_s=int(wall_clock().timestamp()))
    access = services.tokens.sign(
        record.user_id, record.session_id, record.role, rotation.store, issued_at_s=rotation.issued_at_s
    )
    tokens = _tokens(services, access, rotation.refresh_token)
    return Envelope(data=Refreshed(tokens=tokens, active_store_id=rotation.store.id if rotation.store else None))


@router.post("/logout", status_code=204)
async def logout(caller: Authenticated, services: Process) -> Response:
    """End the session: its access token and refresh tokens are refused from now on."""
    await services.logins.end(caller.session_id)
    return Response(status_code=204)


async def sign_in(request: Request, email: str, password: str, roles: set[Role]) -> Account:
    """The user with this e-mail and password and one of `roles`.

    InvalidCredentials, after the same time, whatever is wrong; RateLimited after too many failures. No transaction is
    open while the password is checked.
    """
    services = services_of(request)
    address = services.proxies.client(request)
    await services.login_limit.ask(email, address)
    async with services.transaction() as tx:
        user = await reads.user_by_email(tx, email)
    right = await services.passwords.matches(password, user.password_hash if user else None)
    if not right or user is None or user.role not in roles:
        await services.login_limit.count(email, address)
        raise InvalidCredentials
    await services.login_limit.ask(email, address)
    async with services.transaction() as tx:
        account = Account(user, await reads.stores_of(tx, user.id))
    await _raise_parameters(services, account, password)
    return account


async def open_session(services: Services, user_id: UUID, role: str, store: ActiveStore | None) -> Tokens:
    """A new session's tokens."""
    session_id, refresh_token = await services.logins.open(user_id, role, store.id if store else None)
    issued_at_s = int(wall_clock().timestamp())
    access = services.tokens.sign(user_id, session_id, role, store, issued_at_s=issued_at_s)
    return _tokens(services, access, refresh_token)


def _tokens(services: Services, access: str, refresh_token: str) -> Tokens:
    return Tokens(access_token=access, refresh_token=refresh_token, expires_in=services.tokens.ttl_s)


async def _raise_parameters(services: Services, account: Account, password: str) -> None:
    """Hash the password anew when the parameters have risen since."""
    user = account.user
    if user.password_hash and services.passwords.outdated(user.password_hash):
        password_hash = await services.passwords.hash(password)
        async with services.transaction() as tx:
            await writes.set_password(tx, user.id, password_hash)
