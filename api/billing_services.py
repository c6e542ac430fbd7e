"""What billing needs in an API process: Stripe, the secrets of its webhooks, and room for those who wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request, Response

from api.dependencies import Process, services_of
from api.idempotency import Handler, IdempotentRoute
from api.services import Services
from models.billing.gateway import Stripe, WebhookSecrets
from models.errors import Unavailable
from ops.stripe_account import stripe_account


@dataclass(frozen=True, slots=True)
class BillingServices:
    """`room`: a request holds a connection while Stripe is asked, so few may at a time."""

    account: Stripe | None
    secrets: WebhookSecrets
    room: asyncio.Semaphore

    @property
    def stripe(self) -> Stripe:
        """Unavailable where none is configured."""
        if self.account is None:
            raise Unavailable("billing is not configured here")
        return self.account


@asynccontextmanager
async def run_billing(services: Services) -> AsyncIterator[None]:
    """A part of the process: the connections to Stripe."""
    settings = services.settings
    account = stripe_account(settings)
    room = asyncio.Semaphore(max(1, min(4, settings.database_pool_size // 3)))
    services.add(BillingServices(account, WebhookSecrets(settings.stripe_webhook_secret), room))
    try:
        yield
    finally:
        if account is not None:
            await account.close()


class StripeRoute(IdempotentRoute):
    """An idempotent route whose POST asks Stripe, and so has a connection of the pool for as long as that takes."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()
        if "POST" not in (self.methods or set()):
            return handle

        async def handler(request: Request) -> Response:
            async with services_of(request).get(BillingServices).room:
                return await handle(request)

        return handler


async def _billing(process: Process) -> BillingServices:
    return process.get(BillingServices)


Billing = Annotated[BillingServices, Depends(_billing)]
