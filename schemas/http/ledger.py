"""The ledger and payouts over HTTP."""

from __future__ import annotations

from datetime import date, datetime
from typing import Literal
from uuid import UUID

from pydantic import Field

from schemas.http.common import Shape
from schemas.http.orders import OrderOut


class PostingOut(Shape):
    """One side of a ledger event; those of an event sum to zero."""

    account: Literal["cash", "bank", "vendor_payable", "platform_fees"]
    amount_cents: int = Field(description="debit above zero, credit below")


class LedgerEventOut(Shape):
    """Money that moved for an order."""

    id: UUID
    sequence: int = Field(description="within the order, from 1")
    type: Literal["cash_collected", "ach_settled", "vendor_payout"]
    amount_cents: int
    occurred_at: datetime
    day: date = Field(description="on which it is booked")
    actor: str
    postings: list[PostingOut]


class PayoutOut(OrderOut):
    """An order, and what its vendor gets for it."""

    order_id: UUID = Field(description="the same as `id`")
    amount_cents: int = Field(description="the order's total")
    platform_fee_cents: int
    payout_cents: int = Field(description="the amount less the fee")
    ledger_events: list[LedgerEventOut]
