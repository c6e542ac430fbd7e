"""`packstream billing check`: hold what we have billed, and who subscribes, against Stripe."""

from __future__ import annotations

import asyncio
import json
import sys

import click

from agents.billing_check import Checked, check
from models import metadata
from models.clock import Clock
from models.database import make_engine, make_sessions
from models.errors import PackstreamError
from ops.cli.context import with_settings
from ops.settings import Settings
from ops.stripe_account import stripe_account

TABLES = metadata.metadata


@click.group()
def billing() -> None:
    """Subscriptions and usage at Stripe."""


@billing.command("check")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
@with_settings
def check_command(settings: Settings, as_json: bool) -> None:
    """Compare usage charges and subscriptions with Stripe. Exit status 1 when anything differs."""
    try:
        found = asyncio.run(_check(settings))
    except PackstreamError as exc:
        raise click.ClickException(exc.detail) from exc
    click.echo(json.dumps(found.as_json(), default=str) if as_json else describe(found))
    sys.exit(0 if found.ok else 1)


async def _check(settings: Settings) -> Checked:
    stripe = stripe_account(settings)
    if stripe is None:
        raise click.ClickException("no Stripe is configured: set STRIPE_API_KEY")
    engine = make_engine(settings.sqlalchemy_url, pool_size=1, application="packstream-billing-check")
    sessions, clock = make_sessions(engine), Clock()
    try:
        if settings.test_clock:
            async with sessions() as tx:
                await clock.refresh(tx)
        return await check(sessions, stripe, now=clock.now())
    finally:
        await stripe.close()
        await engine.dispose()


def describe(found: Checked) -> str:
    """A check in words."""
    head = f"since {found.since:%Y-%m-%d}: {found.charges} usage charges, {found.items} invoice items at Stripe, "
    head += f"{found.subscriptions} subscriptions: "
    if found.ok:
        return head + "all the same"
    lines = [f"  {one.level} {one.key}: Stripe has {one.expected}, we have {one.found}" for one in found.differences]
    return head + f"{len(lines)} differences\n" + "\n".join(lines)
