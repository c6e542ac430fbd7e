"""Administrators: their sign-in, and the delivery agents they appoint."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request

from api.dependencies import Admin, Now, Process, Tx, services_of, sign_in_limit
from api.envelope import Envelope
from api.idempotency import IdempotentRoute
from api.routes.auth import open_session, sign_in
from models.identity import writes
from models.identity.rules import Role
from schemas.http.identity import AdminCredentials, AdminLoggedIn, NewAdmin, NewAgent, UserOut

router = APIRouter(prefix="/api/admin", tags=["admin"], route_class=IdempotentRoute)
test_router = APIRouter(prefix="/api/admin", tags=["admin"], route_class=IdempotentRoute)
public = [Depends(sign_in_limit)]


@router.post("/auth/login", dependencies=public)
async def login(body: AdminCredentials, request: Request) -> Envelope[AdminLoggedIn]:
    """A session for an administrator; anyone else gets `invalid_credentials`."""
    signed_in = await sign_in(request, body.email, body.password, {Role.ADMIN})
    user = signed_in.user
    tokens = await open_session(services_of(request), user.id, user.role, None)
    return Envelope(data=AdminLoggedIn(user=UserOut.model_validate(user), tokens=tokens))


@test_router.post("/auth/register", status_code=201, dependencies=public)
async def register(body: NewAdmin, services: Process, tx: Tx, now: Now) -> Envelope[AdminLoggedIn]:
    """An administrator, for anyone who asks: in dev and test only."""
    password_hash = await services.passwords.hash(body.password)
    user = await writes.create_admin(tx, email=body.email, password_hash=password_hash, actor="api:test", now=now)
    tokens = await open_session(services, user.id, user.role, None)
    return Envelope(data=AdminLoggedIn(user=UserOut.model_validate(user), tokens=tokens))


@router.post("/agents", status_code=201)
async def appoint_agent(body: NewAgent, admin: Admin, services: Process, tx: Tx, now: Now) -> Envelope[UserOut]:
    """A delivery agent, who signs in at /api/v1/auth/login without a store."""
    user = await writes.create_agent(
        tx,
        email=body.email,
        password_hash=await services.passwords.hash(body.password),
        first_name=body.first_name,
        last_name=body.last_name,
        actor=admin.actor,
        now=now,
    )
    return Envelope(data=UserOut.model_validate(user))
