"""The ways to take a checkout, by the names that the setting CHECKOUT_IMPLEMENTATION has for them.

A new one lands here beside the old, dark until the setting names it; all keep what API.md says of a checkout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final, Protocol, TypeVar
from uuid import UUID

from models.checkout import writes
from models.checkout.reads import Checkout
from models.checkout.writes import CheckoutTerms
from models.database import Driver
from schemas.http.orders import NewCheckout

T = TypeVar("T")


class CheckoutCommand(Protocol):
    """As `writes.check_out`."""

    async def __call__(
        self,
        db: Driver,
        body: NewCheckout,
        terms: CheckoutTerms,
        *,
        buyer_store_id: UUID,
        actor: str,
        now: datetime,
        render: Callable[[Checkout], T],
    ) -> T: ...


IMPLEMENTATIONS: Final[Mapping[str, CheckoutCommand]] = {"one_transaction": writes.check_out}
