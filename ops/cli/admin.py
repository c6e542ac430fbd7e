"""`packstream admin create|store`: administrators, and the state of a store by hand, past licences and Stripe."""

from __future__ import annotations

import asyncio
import getpass
import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import click
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from models.clock import Clock
from models.database import make_engine, make_sessions
from models.errors import PackstreamError
from models.identity import writes as identity
from models.identity.passwords import Passwords
from models.stores import reads, writes
from models.stores.rules import KycStatus
from ops.cli.context import with_settings
from ops.settings import Settings
from schemas.http.identity import NewAdmin

T = TypeVar("T")
Work = Callable[[AsyncSession, datetime], Awaitable[T]]

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


@click.group()
def admin() -> None:
    """Create administrators; set a store's state. Everything is audited."""


@admin.command()
@click.option("--email", required=True)
@click.option("--password", required=True, envvar="PACKSTREAM_ADMIN_PASSWORD", help="10 to 128 characters.")
@json_option
@with_settings
def create(settings: Settings, email: str, password: str, as_json: bool) -> None:
    """An administrator, who signs in at /api/admin/auth/login."""
    try:
        account = NewAdmin(email=email, password=password)
    except ValidationError as exc:
        raise click.ClickException(
            "; ".join(f"{e['loc'][0]}: {e['msg'].removeprefix('Value error, ')}" for e in exc.errors())
        ) from None

    async def work(tx: AsyncSession, now: datetime) -> dict[str, Any]:
        passwords = Passwords()
        password_hash = await passwords.hash(account.password)
        user = await identity.create_admin(
            tx, email=account.email, password_hash=password_hash, actor=operator(), now=now
        )
        passwords.close()
        return {"id": str(user.id), "email": user.email, "role": user.role}

    show(run(settings, work), as_json)


@admin.command()
@click.argument("store_id", metavar="ID")
@click.option("--kyc", type=click.Choice([status.value for status in KycStatus]), help="Licence standing.")
@click.option("--subscription", type=click.Choice(["on", "off"]), help="Whether the subscription is active.")
@json_option
@with_settings
def store(settings: Settings, store_id: str, kyc: str | None, subscription: str | None, as_json: bool) -> None:
    """Set a store's licence standing and subscription; what changes is published. Without options: show them."""
    wanted = parse_id(store_id)

    async def work(tx: AsyncSession, now: datetime) -> dict[str, Any]:
        if kyc is not None:
            await writes.set_kyc(tx, wanted, KycStatus(kyc), actor=operator(), now=now)
        if subscription is not None:
            await writes.set_subscription(tx, wanted, subscription == "on", actor=operator(), now=now)
        found = await reads.store(tx, wanted)
        return {
            "id": str(found.id),
            "name": found.name,
            "type": found.type,
            "kyc_status": found.kyc_status,
            "subscription_active": found.subscription_active,
        }

    show(run(settings, work), as_json)


def run(settings: Settings, work: Work[T]) -> T:
    """Do `work` in one transaction as the database's owner, at the logical time; errors end the command."""
    try:
        return asyncio.run(_run(settings, work))
    except PackstreamError as exc:
        raise click.ClickException(exc.detail) from exc
    except (OSError, SQLAlchemyError) as exc:
        raise click.ClickException(f"the database does not do it: {exc}") from exc


async def _run(settings: Settings, work: Work[T]) -> T:
    engine = make_engine(settings.sqlalchemy_url, pool_size=1, application="packstream-admin")
    clock = Clock()
    try:
        async with make_sessions(engine).begin() as tx:
            if settings.test_clock:
                await clock.refresh(tx)
            return await work(tx, clock.now())
    finally:
        await engine.dispose()


def operator() -> str:
    """Who runs the command, for the audit log."""
    return f"command:{getpass.getuser()}"


def parse_id(text: str) -> UUID:
    try:
        return TypeAdapter(UUID).validate_python(text)
    except ValidationError:
        raise click.ClickException(f"{text!r} is no id") from None


def show(result: dict[str, Any], as_json: bool) -> None:
    """Print the result, for programs or for people."""
    click.echo(json.dumps(result) if as_json else "\n".join(f"{name}: {value}" for name, value in result.items()))
