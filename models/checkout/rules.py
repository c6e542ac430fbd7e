"""What a checkout makes of a quote: which lines can be ordered now, and of whom nothing can be. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol, TypeVar
from uuid import UUID

from models.cart.rules import LineStatus
from models.errors import FieldError, NoOrderableItems
from models.orders.rules import RejectionReason

REASONS: Final[Mapping[RejectionReason, str]] = {
    RejectionReason.INSUFFICIENT_STOCK: "there is not enough of it",
    RejectionReason.PRODUCT_UNAVAILABLE: "the product is not offered to you at present",
    RejectionReason.VENDOR_NOT_ELIGIBLE: "the vendor may not sell at present",
}


class CartLine(Protocol):
    """A line of the quote."""

    @property
    def product_id(self) -> UUID: ...
    @property
    def vendor_store_id(self) -> UUID | None: ...
    @property
    def quantity(self) -> int: ...
    @property
    def status(self) -> str: ...
    @property
    def warnings(self) -> list[dict[str, Any]]: ...


class Offer(Protocol):
    """Whether a product of the quote can be had now."""

    @property
    def vendor_eligible(self) -> bool: ...
    @property
    def offered(self) -> bool: ...


L = TypeVar("L", bound=CartLine)
Failures = Mapping[UUID, RejectionReason]
"""By product, which a cart has once: why its line cannot be ordered."""


class RejectedVendor(NamedTuple):
    """A vendor of whom nothing is ordered."""

    vendor_store_id: UUID
    reason: RejectionReason


@dataclass(frozen=True, slots=True)
class Outcome:
    """For each vendor with something to order, the lines that the quote had for it; and the other vendors."""

    lines: Mapping[UUID, Sequence[Any]]
    rejected: Sequence[RejectedVendor]


def verify(lines: Iterable[CartLine], offers: Mapping[UUID, Offer]) -> dict[UUID, RejectionReason]:
    """The lines that cannot be ordered whatever the stock: by the quote, or by what has changed since."""
    judged = {line.product_id: _obstacle(line, offers.get(line.product_id)) for line in lines}
    return {product_id: reason for product_id, reason in judged.items() if reason is not None}


def _obstacle(line: CartLine, offer: Offer | None) -> RejectionReason | None:
    if offer is not None and not offer.vendor_eligible:
        return RejectionReason.VENDOR_NOT_ELIGIBLE
    if line.status != LineStatus.OK:
        return _as_quoted(line)
    return None if offer is not None and offer.offered else RejectionReason.PRODUCT_UNAVAILABLE


def _as_quoted(line: CartLine) -> RejectionReason:
    codes = [warning["code"] for warning in line.warnings]
    return next((reason for reason in RejectionReason if reason in codes), RejectionReason.PRODUCT_UNAVAILABLE)


def demand(lines: Iterable[CartLine], failures: Failures) -> dict[UUID, int]:
    """What to reserve of each product, all lines of it together."""
    wanted: Counter[UUID] = Counter()
    for line in lines:
        if line.product_id not in failures:
            wanted[line.product_id] += line.quantity
    return dict(wanted)


def outcome(lines: Sequence[CartLine], failures: Failures) -> Outcome:
    """What is ordered of whom, vendors in the order of their first lines.

    A line that the quote had and that fails now stays beside those that do not. NoOrderableItems, which names every
    line, where all fail.
    """
    if all(line.product_id in failures for line in lines):
        raise NoOrderableItems(errors=[obstacle_of(line.product_id, failures[line.product_id]) for line in lines])
    by_vendor: dict[UUID, list[CartLine]] = {}
    for line in lines:
        if line.vendor_store_id is not None:
            by_vendor.setdefault(line.vendor_store_id, []).append(line)
    ordered = {
        vendor: [line for line in its if line.status == LineStatus.OK]
        for vendor, its in by_vendor.items()
        if any(line.product_id not in failures for line in its)
    }
    left_out = [
        RejectedVendor(vendor, _vendor_reason(failures[line.product_id] for line in its))
        for vendor, its in by_vendor.items()
        if vendor not in ordered
    ]
    return Outcome(ordered, left_out)


def _vendor_reason(reasons: Iterable[RejectionReason]) -> RejectionReason:
    """A vendor may not sell, or else every one of its lines has failed."""
    if RejectionReason.VENDOR_NOT_ELIGIBLE in set(reasons):
        return RejectionReason.VENDOR_NOT_ELIGIBLE
    return RejectionReason.INSUFFICIENT_STOCK


def obstacle_of(product_id: UUID, reason: RejectionReason) -> FieldError:
    """What NoOrderableItems says of a line."""
    return FieldError(f"items.{product_id}", reason, REASONS[reason])
