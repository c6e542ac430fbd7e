"""Kinds, templates, links and back-off: values in, values out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.parser import BytesParser
from email.policy import default as email_policy
from uuid import UUID, uuid4

import pytest

from models.identity.invites import InviteTokens, hash_of
from models.notifications import templates
from models.notifications.gateway import Mail, SmtpAddress, message_of, sendgrid_body
from models.notifications.rules import (
    INVITE,
    SEND_ATTEMPTS_MAX,
    SEND_BACKOFF_MAX,
    WORDINGS,
    NotificationKind,
    is_essential,
    retry_after,
    without_addresses,
)
from models.notifications.templates import Addressee, Links
from models.notifications.unsubscribing import Subscription, UnsubscribeTokens

READER = Addressee("Ada", "Green & <Co>")
KEYS = {"new": b"n" * 32, "old": b"o" * 32}
HOSTILE = '<script>alert("x")</script>'


def mail(**changes: object) -> Mail:
    values: dict[str, object] = {
        "id": UUID(int=7),
        "template": "order_placed",
        "to": "bob@example.test",
        "subject": "Subject",
        "text": "Text",
        "html": "<p>Text</p>",
        "date": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return Mail(**(values | changes))  # type: ignore[arg-type]


def test_invites_and_licence_notices_cannot_be_unsubscribed() -> None:
    essential = {kind for kind in NotificationKind if is_essential(kind)}
    assert essential == {
        NotificationKind.LICENSE_DECIDED,
        NotificationKind.LICENSE_EXPIRING,
        NotificationKind.LICENSE_EXPIRED,
    }
    assert is_essential(INVITE)
    assert all(WORDINGS[kind].by_email for kind in essential)


@pytest.mark.parametrize("kind", [kind for kind in NotificationKind if WORDINGS[kind].by_email])
def test_every_kind_by_email_has_a_mail_in_text_and_html(kind: NotificationKind) -> None:
    values = {"number": "L-1", "decision": "approved", "reason": "", "total": "$5.00", "state": "active"}
    shown = templates.notification(
        kind, values, READER, Links("http://app/x", None if is_essential(kind) else "http://u")
    )
    assert "http://app/x" in shown.text
    assert 'href="http://app/x"' in shown.html
    assert ("http://u" in shown.text) is not is_essential(kind)
    assert ("cannot be unsubscribed" in shown.text) is is_essential(kind)


def test_what_people_wrote_is_escaped_in_html_and_not_in_text() -> None:
    values = {"number": HOSTILE, "decision": "rejected", "reason": HOSTILE}
    reader = Addressee(HOSTILE, HOSTILE)
    shown = templates.notification(NotificationKind.LICENSE_DECIDED, values, reader, Links("http://app/?a=1&b=2", None))
    assert "<script" not in shown.html
    assert shown.html.count("&lt;script&gt;") >= 4
    assert HOSTILE in shown.text
    assert 'href="http://app/?a=1&amp;b=2"' in shown.html


def test_a_subject_is_one_bounded_line() -> None:
    reader = Addressee("A", "Evil\r\nBcc: all@example.test\0" + "x" * 1000)
    shown = templates.invite(reader, Links("http://app", None), token="t0k", expires_on="1 May 2026")
    assert len(shown.subject) <= templates.SUBJECT_CHARS_MAX
    assert shown.subject.isprintable()
    assert "t0k" in shown.text
    assert message_of(mail(subject=shown.subject), "P <p@example.test>")["Bcc"] is None


def test_a_mail_is_the_same_at_every_attempt() -> None:
    first, second = (message_of(mail(unsubscribe="http://u?token=a"), "P <no-reply@shop.test>") for _ in range(2))
    assert first["Message-ID"] == second["Message-ID"] == "<00000000-0000-0000-0000-000000000007@shop.test>"
    parsed = BytesParser(policy=email_policy).parsebytes(first.as_bytes())
    assert parsed["List-Unsubscribe"] == "<http://u?token=a>"
    assert parsed["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert [part.get_content_type() for part in parsed.iter_parts()] == ["text/plain", "text/html"]
    assert message_of(mail(), "no-reply@shop.test")["List-Unsubscribe"] is None
    body = sendgrid_body(mail(), "P <no-reply@shop.test>")
    assert body["headers"]["Message-ID"] == first["Message-ID"]
    assert body["from"] == {"email": "no-reply@shop.test", "name": "P"}


def test_an_address_with_a_line_break_makes_no_header() -> None:
    with pytest.raises(ValueError, match="linefeed"):
        message_of(mail(to="a@example.test\r\nBcc: b@example.test"), "p@example.test")


def test_unsubscribe_links_verify_with_any_key_and_no_other() -> None:
    subscription = Subscription(uuid4(), uuid4())
    old = UnsubscribeTokens({"old": KEYS["old"]}).sign(subscription)
    tokens = UnsubscribeTokens(KEYS)
    assert tokens.read(old) == tokens.read(tokens.sign(subscription)) == subscription
    assert UnsubscribeTokens({"other": b"x" * 32}).read(old) is None
    flipped = old[:-2] + ("A" if old[-2] != "A" else "B") + old[-1]
    for bad in ("", "x", flipped, old + old, old[:40], "\u00e9" * 64, "=" * 64):
        assert tokens.read(bad) is None


def test_invite_tokens_are_found_after_a_key_rotation() -> None:
    invite_id = uuid4()
    token = InviteTokens({"old": KEYS["old"]}).make(invite_id)
    assert InviteTokens(KEYS).find(invite_id, hash_of(token)) == token
    assert InviteTokens(KEYS).make(invite_id) != token
    assert InviteTokens({"new": KEYS["new"]}).find(invite_id, hash_of(token)) is None
    assert InviteTokens(KEYS).find(uuid4(), hash_of(token)) is None


def test_attempts_are_bounded_and_further_and_further_apart() -> None:
    pauses = [retry_after(attempt) for attempt in range(1, SEND_ATTEMPTS_MAX + 1)]
    assert pauses[-1] is None
    known = [pause for pause in pauses if pause is not None]
    assert len(known) == SEND_ATTEMPTS_MAX - 1
    assert known == sorted(known)
    assert known[0] <= timedelta(seconds=10)
    assert max(known) == SEND_BACKOFF_MAX


@pytest.mark.parametrize(
    "text", ["550 <bob@example.test> unknown", "550 bob@example.test: no", 'to "bob@example.test"']
)
def test_answers_are_kept_without_addresses(text: str) -> None:
    assert "bob" not in without_addresses(text)
    assert "example.test" not in without_addresses(text)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smtp://mail:2525", SmtpAddress("mail", 2525, False, None, None)),
        ("smtp://mail", SmtpAddress("mail", 25, False, None, None)),
        ("smtps://u%40x:p%2F@mail", SmtpAddress("mail", 465, True, "u@x", "p/")),
        ("smtp://u:p@mail", SmtpAddress("mail", 587, False, "u", "p")),
    ],
)
def test_smtp_urls(url: str, expected: SmtpAddress) -> None:
    assert SmtpAddress.parse(url) == expected


@pytest.mark.parametrize("url", ["", "mail:25", "http://mail", "smtp://"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="SMTP_URL"):
        SmtpAddress.parse(url)
