"""How e-mails read. Pure: values in, text and HTML out; whatever comes from people is escaped."""

from __future__ import annotations

import html
from collections.abc import Mapping
from string import Template
from typing import Final, NamedTuple

from models.notifications.rules import INVITE, NotificationKind, is_essential, text_of

SUBJECT_CHARS_MAX: Final = 200

TEXT: Final = Template("Hello $name,\n\n$paragraphs\n\n$action: $url\n\n-- \n$footer\n")
HTML: Final = Template(
    """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>$subject</title></head>
<body style="font-family:sans-serif;max-width:36em;margin:2em auto;line-height:1.5;color:#1f2933">
<p>Hello $name,</p>
$paragraphs
<p><a href="$url" style="background:#1f2933;color:#fff;padding:.6em 1.2em;text-decoration:none">$action</a></p>
<p style="color:#616e7c;font-size:.8em">$footer</p>
</body>
</html>
"""
)
WHY: Final = "You get this because you run $store on packstream."
ESSENTIAL: Final = "It concerns what the store is allowed to do, so it cannot be unsubscribed."
INVITE_WHY: Final = "You get this because someone at $store entered this address. If you expected nothing, ignore it."
PARAGRAPH: Final = Template("<p>$text</p>")


class Addressee(NamedTuple):
    """Who reads it, as member of which store."""

    name: str
    store: str


class Links(NamedTuple):
    """Where an e-mail leads: `action` in the app; `unsubscribe` unless it is essential."""

    action: str
    unsubscribe: str | None


class Rendered(NamedTuple):
    """An e-mail's subject and its two bodies."""

    subject: str
    text: str
    html: str


def notification(kind: NotificationKind, values: Mapping[str, str], reader: Addressee, links: Links) -> Rendered:
    """A notification as an e-mail."""
    shown = text_of(kind, values)
    paragraphs = [part for part in (shown.title + ".", shown.body) if part.strip()]
    footer = Template(WHY).substitute(store=reader.store)
    if is_essential(kind):
        footer += " " + ESSENTIAL
    return _render(f"{shown.title} – {reader.store}", paragraphs, "Open it", footer, reader, links)


def invite(reader: Addressee, links: Links, *, token: str, expires_on: str) -> Rendered:
    """The e-mail that lets someone into a store."""
    paragraphs = [
        f"You are invited to {reader.store} on packstream.",
        "Choose a password to get in; if you have an account, give the one you have.",
        f"The invitation is good once, until {expires_on}. Where the link does not open, use this code: {token}",
    ]
    footer = Template(INVITE_WHY).substitute(store=reader.store)
    return _render(f"Your invitation to {reader.store}", paragraphs, "Accept the invitation", footer, reader, links)


def has_template(name: str) -> bool:
    """Whether an e-mail of this name can be written."""
    return name == INVITE or name in set(NotificationKind)


def _render(subject: str, paragraphs: list[str], action: str, footer: str, reader: Addressee, links: Links) -> Rendered:
    subject = one_line(subject)[:SUBJECT_CHARS_MAX]
    name = one_line(reader.name) or "there"
    footer_html = html.escape(footer)
    if links.unsubscribe is not None:
        footer += f"\nNo more of these: {links.unsubscribe}"
        footer_html += f' <a href="{html.escape(links.unsubscribe)}">Unsubscribe</a>'
    text = TEXT.substitute(
        name=name, paragraphs="\n\n".join(paragraphs), action=action, url=links.action, footer=footer
    )
    page = HTML.substitute(
        subject=html.escape(subject),
        name=html.escape(name),
        paragraphs="\n".join(PARAGRAPH.substitute(text=html.escape(part)) for part in paragraphs),
        action=html.escape(action),
        url=html.escape(links.action),
        footer=footer_html,
    )
    return Rendered(subject, text, page)


def one_line(text: str) -> str:
    """Text that may stand in a header: no line breaks or other controls."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
