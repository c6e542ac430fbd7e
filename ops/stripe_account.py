"""Stripe as the settings describe it, for every process that has to do with billing."""

from __future__ import annotations

from typing import Final

from models.billing.gateway import StripeApi
from ops.settings import Settings

LOCAL_KEY: Final = "sk_test_local"  #: the fake takes any


def stripe_account(settings: Settings) -> StripeApi | None:
    """None where neither a key nor a fake is configured. It connects with the first call, within a running loop."""
    key = settings.stripe_api_key or (LOCAL_KEY if settings.stripe_api_base is not None else None)
    if key is None:
        return None
    return StripeApi(
        key,
        base=settings.stripe_api_base,
        price_id=settings.stripe_price_id,
        timeout_s=settings.stripe_timeout_s,
    )
