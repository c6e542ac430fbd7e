"""Notifications: the kinds there are, who hears of them, how they read, which go by e-mail too. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from string import Template
from typing import Final, NamedTuple

KEPT: Final = timedelta(days=30)
DELIVERIES_KEPT: Final = timedelta(days=180)  #: far longer than the topic keeps requests, so none comes again
SEND_ATTEMPTS_MAX: Final = 12  #: over some six hours
SEND_BACKOFF: Final = timedelta(seconds=5)
SEND_BACKOFF_MAX: Final = timedelta(hours=1)
DETAIL_CHARS_MAX: Final = 500
ADDRESS: Final = re.compile(r"<?[^\s<>@\"']+@[^\s<>@\"']+>?")
INVITE: Final = "invite"  #: the one template that is no kind of notification


class NotificationKind(StrEnum):
    ORDER_PLACED = "order_placed"
    ORDER_CANCELED = "order_canceled"
    ORDER_EXPIRED = "order_expired"
    ORDER_NUDGED = "order_nudged"
    ORDER_DECIDED = "order_decided"
    ORDER_IN_TRANSIT = "order_in_transit"
    ORDER_DELIVERED = "order_delivered"
    CHECKOUT = "checkout"
    PAYOUT_CONFIRMED = "payout_confirmed"
    LICENSE_DECIDED = "license_decided"
    LICENSE_EXPIRING = "license_expiring"
    LICENSE_EXPIRED = "license_expired"
    SUBSCRIPTION_CHANGED = "subscription_changed"


class DeliveryStatus(StrEnum):
    """queued → sending → one of the rest; back to queued only while it is certain that nothing was sent."""

    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"
    REFUSED = "refused"  #: for good, by the recipient's or our own server
    FAILED = "failed"  #: put off too often
    SKIPPED = "skipped"  #: not wanted (any more) when its turn came: unsubscribed, no member, invite used
    UNKNOWN = "unknown"  #: it may have been sent, or not: shown to operators, never sent again


class MailNews(StrEnum):
    """What a provider's news of an e-mail means."""

    DELIVERED = "delivered"
    REFUSED = "refused"  #: this one; the next may come through
    RETURNED = "returned"  #: the address takes no mail of ours
    UNWANTED = "unwanted"  #: whoever has the address wants no more


SENDGRID_NEWS: Final[Mapping[str, MailNews]] = {
    "delivered": MailNews.DELIVERED,
    "bounce": MailNews.RETURNED,
    "dropped": MailNews.RETURNED,
    "spamreport": MailNews.UNWANTED,
    "unsubscribe": MailNews.UNWANTED,
    "group_unsubscribe": MailNews.UNWANTED,
}


def sendgrid_news(event: str, kind: str | None) -> MailNews | None:
    """The meaning of one of SendGrid's events, and its type; None for those that change nothing.

    A bounce of type `blocked` is about the one message, not about the address.
    """
    return MailNews.REFUSED if (event, kind) == ("bounce", "blocked") else SENDGRID_NEWS.get(event)


@dataclass(frozen=True, slots=True)
class Wording:
    """How a kind reads in the app; `$names` are the request's values."""

    title: str
    body: str
    link: str
    by_email: bool = False
    essential: bool = False  #: cannot be unsubscribed


class Text(NamedTuple):
    """A notification as it is shown."""

    title: str
    body: str
    link: str


WORDINGS: Final[Mapping[NotificationKind, Wording]] = {
    NotificationKind.ORDER_PLACED: Wording(
        "New order $number", "A store has ordered for $total.", "/orders/$order_id", by_email=True
    ),
    NotificationKind.ORDER_CANCELED: Wording(
        "Order $number canceled", "The buyer has canceled it.", "/orders/$order_id"
    ),
    NotificationKind.ORDER_EXPIRED: Wording(
        "Order $number expired", "It was not decided in time.", "/orders/$order_id"
    ),
    NotificationKind.ORDER_NUDGED: Wording(
        "Order $number waits", "The buyer asks for your decision.", "/orders/$order_id", by_email=True
    ),
    NotificationKind.ORDER_DECIDED: Wording("Order $number $decision", "The vendor has decided.", "/orders/$order_id"),
    NotificationKind.ORDER_IN_TRANSIT: Wording("Order $number is on its way", "It was picked up.", "/orders/$order_id"),
    NotificationKind.ORDER_DELIVERED: Wording("Order $number delivered", "It has arrived.", "/orders/$order_id"),
    NotificationKind.CHECKOUT: Wording(
        "Checkout complete", "$orders orders for $total.", "/checkouts/$checkout_group_id"
    ),
    NotificationKind.PAYOUT_CONFIRMED: Wording("Payout of $total confirmed", "For order $number.", "/orders/$order_id"),
    NotificationKind.LICENSE_DECIDED: Wording(
        "Licence $number $decision", "$reason", "/licenses/$license_id", by_email=True, essential=True
    ),
    NotificationKind.LICENSE_EXPIRING: Wording(
        "Licence $number expires on $expires_on",
        "Upload its successor before then, or your store cannot trade.",
        "/licenses/$license_id",
        by_email=True,
        essential=True,
    ),
    NotificationKind.LICENSE_EXPIRED: Wording(
        "Licence $number has expired",
        "Your store cannot trade by it any more.",
        "/licenses/$license_id",
        by_email=True,
        essential=True,
    ),
    NotificationKind.SUBSCRIPTION_CHANGED: Wording(
        "Your subscription is $state", "See your billing page.", "/billing", by_email=True
    ),
}


def text_of(kind: NotificationKind, values: Mapping[str, str]) -> Text:
    """The notification's title, body and link; a value that is missing stays as its name."""
    wording = WORDINGS[kind]
    return Text(*(Template(part).safe_substitute(values) for part in (wording.title, wording.body, wording.link)))


def dollars(cents: int) -> str:
    """An amount as notifications show it."""
    return f"${cents // 100:,}.{cents % 100:02d}"


def is_essential(template: str) -> bool:
    """Whether nobody can unsubscribe from it: invites, and what a store's licence depends on."""
    return template == INVITE or WORDINGS[NotificationKind(template)].essential


def retry_after(attempts: int) -> timedelta | None:
    """The pause after the attempt of this number; None: that was the last."""
    if attempts >= SEND_ATTEMPTS_MAX:
        return None
    return min(SEND_BACKOFF * float(4 ** (attempts - 1)), SEND_BACKOFF_MAX)


def without_addresses(text: str) -> str:
    """A server's answer without the e-mail addresses in it."""
    return ADDRESS.sub("<address>", text)


def detail_of(text: str) -> str:
    """A server's answer as it is kept: one line, not long, no addresses."""
    return without_addresses(" ".join(text.replace("\0", " ").split()))[:DETAIL_CHARS_MAX]
