"""The door to Stripe: what we ask of it, the real thing, and the check of its webhooks.

Nothing here knows our tables. No call may be made while a transaction holds locks that others wait for.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Mapping
from datetime import datetime
from typing import Any, Final, Protocol, TypeVar
from uuid import UUID

import aiohttp
import stripe

from models.billing import stripe_objects as objects
from models.billing.rules import ENDED, SIGNATURE_TOLERANCE_S
from models.billing.stripe_objects import MethodState, SubscriptionState, UsageState
from models.errors import InvalidSignature, Unavailable

RETRIES_MAX: Final = 2  #: of one call, by the library, with the same idempotency key
PAGE: Final = 100
SIGNED_AT: Final = re.compile(r"(?:^|,)t=(\d{1,12})(?:,|$)")
NOT_FOUND: Final = "resource_missing"
IN_USE: Final = 409

T = TypeVar("T")


class StripeRefused(Exception):
    """Stripe will not do this, however often it is asked: a declined card, an unknown id, a wrong parameter."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message = code, message


class Stripe(Protocol):
    """Every method may raise Unavailable (ask again) and StripeRefused (do not).

    `key` makes a call's effect happen once, for as long as Stripe remembers it (rules.KEYS_KEPT).
    """

    async def make_customer(self, store_id: UUID, *, key: str) -> str:
        """A customer that stands for the store; its id."""

    async def attach(self, customer_id: str, payment_method_id: str, *, key: str) -> MethodState:
        """Make a payment method the customer's. What is attached may have another id (test tokens do)."""

    async def subscribe(
        self, customer_id: str, payment_method_id: str, *, store_id: UUID, request: str, key: str
    ) -> SubscriptionState:
        """A new subscription, marked with the store and our request."""

    async def live_subscription(self, customer_id: str) -> SubscriptionState | None:
        """The customer's newest subscription that has not ended."""

    async def cancel(self, subscription_id: str) -> SubscriptionState:
        """End it now, and invoice the usage so far. One that has ended stays as it is."""

    async def add_usage(
        self, customer_id: str, charge_id: UUID, *, amount_cents: int, currency: str, description: str
    ) -> UsageState:
        """Owe an amount, marked with the charge, whose id is the idempotency key."""

    async def find_usage(self, customer_id: str, charge_id: UUID) -> UsageState | None:
        """What the charge became, by its mark."""

    def all_usage(self, since: datetime) -> AsyncIterator[UsageState]:
        """All usage made at or after `since`, newest first."""

    def all_subscriptions(self) -> AsyncIterator[SubscriptionState]:
        """Every subscription there is, ended ones too."""

    async def close(self) -> None: ...


class StripeApi:
    """Stripe by its own library. `timeout_s` bounds one attempt; a call makes RETRIES_MAX more at most."""

    def __init__(self, api_key: str, *, base: str | None, price_id: str, timeout_s: float) -> None:
        self._http = stripe.AIOHTTPClient(timeout=aiohttp.ClientTimeout(total=timeout_s))
        self._client = stripe.StripeClient(
            api_key,
            base_addresses={} if base is None else {"api": base},
            http_client=self._http,
            max_network_retries=RETRIES_MAX,
        )
        self._price_id = price_id
        self._call_s = call_bound_s(timeout_s)

    async def make_customer(self, store_id: UUID, *, key: str) -> str:
        made = await self._asked(
            self._client.v1.customers.create_async(
                {"description": f"packstream store {store_id}", "metadata": {"store_id": str(store_id)}},
                {"idempotency_key": key},
            )
        )
        return made.id

    async def attach(self, customer_id: str, payment_method_id: str, *, key: str) -> MethodState:
        attached = await self._asked(
            self._client.v1.payment_methods.attach_async(
                payment_method_id, {"customer": customer_id}, {"idempotency_key": key}
            )
        )
        await self._asked(
            self._client.v1.customers.update_async(
                customer_id, {"invoice_settings": {"default_payment_method": attached.id}}
            )
        )
        return objects.method_of(fields_of(attached))

    async def subscribe(
        self, customer_id: str, payment_method_id: str, *, store_id: UUID, request: str, key: str
    ) -> SubscriptionState:
        made = await self._asked(
            self._client.v1.subscriptions.create_async(
                {
                    "customer": customer_id,
                    "default_payment_method": payment_method_id,
                    "items": [{"price": self._price_id}],
                    "metadata": {"store_id": str(store_id), "request": request},
                },
                {"idempotency_key": key},
            )
        )
        return objects.subscription_of(fields_of(made))

    async def live_subscription(self, customer_id: str) -> SubscriptionState | None:
        listed = await self._asked(
            self._client.v1.subscriptions.list_async({"customer": customer_id, "status": "all", "limit": PAGE})
        )
        found = [objects.subscription_of(fields_of(one)) for one in listed.data]
        return max((one for one in found if one.status not in ENDED), key=lambda one: one.created_at, default=None)

    async def cancel(self, subscription_id: str) -> SubscriptionState:
        try:
            ended = await self._asked(
                self._client.v1.subscriptions.cancel_async(subscription_id, {"invoice_now": True})
            )
        except StripeRefused as exc:
            if exc.code != NOT_FOUND:
                raise
            ended = await self._asked(self._client.v1.subscriptions.retrieve_async(subscription_id))
        return objects.subscription_of(fields_of(ended))

    async def add_usage(
        self, customer_id: str, charge_id: UUID, *, amount_cents: int, currency: str, description: str
    ) -> UsageState:
        made = await self._asked(
            self._client.v1.invoice_items.create_async(
                {
                    "customer": customer_id,
                    "amount": amount_cents,
                    "currency": currency.lower(),
                    "description": description,
                    "metadata": {"charge_id": str(charge_id)},
                },
                {"idempotency_key": str(charge_id)},
            )
        )
        return objects.usage_of(fields_of(made))

    async def find_usage(self, customer_id: str, charge_id: UUID) -> UsageState | None:
        async for found in self._usage({"customer": customer_id, "limit": PAGE}):
            if found.charge_id == charge_id:
                return found
        return None

    def all_usage(self, since: datetime) -> AsyncIterator[UsageState]:
        return self._usage({"created": {"gte": int(since.timestamp())}, "limit": PAGE})

    async def _usage(self, wanted: Any) -> AsyncIterator[UsageState]:
        listed = await self._asked(self._client.v1.invoice_items.list_async(wanted))
        while True:
            for one in listed.data:
                yield objects.usage_of(fields_of(one))
            if not listed.has_more:
                return
            listed = await self._asked(
                self._client.v1.invoice_items.list_async(wanted | {"starting_after": listed.data[-1].id})
            )

    async def all_subscriptions(self) -> AsyncIterator[SubscriptionState]:
        wanted: Any = {"status": "all", "limit": PAGE}
        listed = await self._asked(self._client.v1.subscriptions.list_async(wanted))
        while True:
            for one in listed.data:
                yield objects.subscription_of(fields_of(one))
            if not listed.has_more:
                return
            listed = await self._asked(
                self._client.v1.subscriptions.list_async(wanted | {"starting_after": listed.data[-1].id})
            )

    async def close(self) -> None:
        await self._http.close_async()  # type: ignore[no-untyped-call]

    async def _asked(self, call: Awaitable[T]) -> T:
        """The answer of one call, or one of the two errors."""
        try:
            async with asyncio.timeout(self._call_s):
                return await call
        except stripe.CardError as exc:
            raise StripeRefused(exc.code or "card_declined", exc.user_message or "declined") from exc
        except (stripe.InvalidRequestError, stripe.IdempotencyError) as exc:
            if exc.http_status == IN_USE:
                raise Unavailable("the same is being asked of Stripe already") from exc
            raise StripeRefused(exc.code or "refused", exc.user_message or str(exc)) from exc
        except (stripe.StripeError, aiohttp.ClientError, OSError, TimeoutError) as exc:
            raise Unavailable("Stripe does not answer") from exc


class WebhookSecrets:
    """Checks that a webhook is from Stripe. Several secrets, comma separated, while one replaces another."""

    def __init__(self, secrets: str) -> None:
        self._secrets = [secret.strip() for secret in secrets.split(",") if secret.strip()]

    def check(self, payload: bytes, header: str | None, *, now: datetime) -> None:
        """InvalidSignature unless one of the secrets signed it, no longer than SIGNATURE_TOLERANCE_S before `now`."""
        if not any(self._signed(payload, header, secret) for secret in self._secrets):
            raise InvalidSignature
        signed_at = SIGNED_AT.search((header or "").replace(" ", ""))
        if signed_at is None or now.timestamp() - int(signed_at[1]) > SIGNATURE_TOLERANCE_S:
            raise InvalidSignature("the webhook was signed too long ago")

    @staticmethod
    def _signed(payload: bytes, header: str | None, secret: str) -> bool:
        try:
            return bool(stripe.WebhookSignature.verify_header(payload, header, secret))
        except (stripe.SignatureVerificationError, UnicodeDecodeError):
            return False


def call_bound_s(timeout_s: float) -> float:
    """The longest that one call takes, its retries included."""
    return timeout_s * (RETRIES_MAX + 1) + 5.0


def fields_of(found: stripe.StripeObject) -> Mapping[str, Any]:
    """One of the library's objects as plain values."""
    fields: Mapping[str, Any] = found.to_dict()
    return fields
