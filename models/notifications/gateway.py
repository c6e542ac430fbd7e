"""The door to those who carry e-mail: SMTP, SendGrid, or (without either) the log.

A sender says what it knows: sent; refused for good; put off, and then certainly not sent; or uncertain. Only what was
put off may be tried again.
"""

from __future__ import annotations

import asyncio
import smtplib
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime, parseaddr
from enum import IntEnum
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote, urlsplit
from uuid import UUID

import aiohttp
import structlog

from models.notifications.rules import detail_of

SMTP_PORT, SUBMISSION_PORT, SMTPS_PORT = 25, 587, 465

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Mail:
    """One e-mail to one address. `unsubscribe`: the link of what can be unsubscribed."""

    id: UUID
    template: str
    to: str
    subject: str
    text: str
    html: str
    date: datetime
    unsubscribe: str | None = None


class Sent(NamedTuple):
    """The next server has it."""

    provider_id: str | None = None
    detail: str = ""


class Refused(NamedTuple):
    """Nobody has it, and trying again would not help."""

    detail: str


class PutOff(NamedTuple):
    """Nobody has it; try again later."""

    detail: str


class Uncertain(NamedTuple):
    """It may have been sent: the answer is missing."""

    detail: str


Outcome = Sent | Refused | PutOff | Uncertain


class EmailSender(Protocol):
    """Sends one mail and says what became of it, within `timeout_s`; it never raises for what a server does."""

    async def send(self, mail: Mail, *, timeout_s: float) -> Outcome: ...

    async def close(self) -> None: ...


class LogSender:
    """Tells the log that there would have been a mail: neither its address nor its text."""

    async def send(self, mail: Mail, *, timeout_s: float) -> Outcome:
        log.info("email_logged", delivery_id=str(mail.id), template=mail.template)
        return Sent(detail="written to the log")

    async def close(self) -> None:
        """Nothing is open."""


def headers_of(mail: Mail, sender: str) -> dict[str, str]:
    """Headers besides the addresses and the subject. The Message-ID is the same at every attempt."""
    domain = parseaddr(sender)[1].rpartition("@")[2] or "localhost"
    headers = {"Message-ID": f"<{mail.id}@{domain}>", "Auto-Submitted": "auto-generated"}
    if mail.unsubscribe is not None:
        headers["List-Unsubscribe"] = f"<{mail.unsubscribe}>"
        headers["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    return headers


def message_of(mail: Mail, sender: str) -> EmailMessage:
    """The mail as MIME: the text, and the same as HTML."""
    message = EmailMessage(policy=SMTP_POLICY)
    message["From"], message["To"], message["Subject"] = sender, mail.to, mail.subject
    message["Date"] = format_datetime(mail.date)
    for name, value in headers_of(mail, sender).items():
        message[name] = value
    message.set_content(mail.text)
    message.add_alternative(mail.html, subtype="html")
    return message


class SmtpAddress(NamedTuple):
    """A server to hand mails to. `tls`: from the first byte; else STARTTLS where it is offered."""

    host: str
    port: int
    tls: bool
    user: str | None
    password: str | None

    @classmethod
    def parse(cls, url: str) -> SmtpAddress:
        """``smtp://[user:password@]host[:port]`` or ``smtps://…``; ValueError for anything else."""
        parts = urlsplit(url)
        if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
            raise ValueError("SMTP_URL: expected smtp://[user:password@]host[:port] or smtps://…")
        tls = parts.scheme == "smtps"
        usual = SMTPS_PORT if tls else SUBMISSION_PORT if parts.username else SMTP_PORT
        user, password = (None if part is None else unquote(part) for part in (parts.username, parts.password))
        return cls(parts.hostname, parts.port or usual, tls, user, password)


class SmtpSender:
    """Hands each mail to one server over a connection of its own; smtplib blocks, so it runs in a thread."""

    def __init__(self, url: str, *, sender: str) -> None:
        self._address = SmtpAddress.parse(url)
        self._sender = sender

    async def send(self, mail: Mail, *, timeout_s: float) -> Outcome:
        exchange = SmtpExchange(self._address, self._sender, deadline=time.monotonic() + timeout_s)
        return await asyncio.to_thread(exchange.send, mail)

    async def close(self) -> None:
        """No connection outlives its mail."""


class Stage(IntEnum):
    """How far a mail has come on its way to an SMTP server."""

    SESSION = 1  #: whatever goes wrong is ours to mend, or passes: put off
    RECIPIENT = 2  #: a refusal is the recipient's: for good
    CONTENT = 3  #: without an answer it may have been taken


class SmtpExchange:
    """One mail's way to the server, in a thread."""

    def __init__(self, address: SmtpAddress, sender: str, *, deadline: float) -> None:
        self._address, self._sender, self._deadline = address, sender, deadline
        self._stage = Stage.SESSION

    def send(self, mail: Mail) -> Outcome:
        """What became of it."""
        try:
            content = message_of(mail, self._sender).as_bytes()
        except (ValueError, UnicodeError) as exc:  # an address or a header that cannot be written
            return Refused(f"the mail cannot be written: {type(exc).__name__}")
        try:
            with self._session() as smtp:
                return self._hand_over(smtp, mail, content)
        except smtplib.SMTPResponseException as exc:  # an answer, and so a certain one
            return self._of_refusal(exc.smtp_code, exc.smtp_error)
        except (smtplib.SMTPException, OSError) as exc:
            detail = detail_of(f"{type(exc).__name__}: {exc}")
            return Uncertain(detail) if self._stage is Stage.CONTENT else PutOff(detail)

    @contextmanager
    def _session(self) -> Iterator[smtplib.SMTP]:
        """A session after greeting, encryption and sign-in; its end is no part of the mail's fate."""
        host, port, tls, user, password = self._address
        context = ssl.create_default_context()
        smtp: smtplib.SMTP
        if tls:
            smtp = smtplib.SMTP_SSL(host, port, timeout=self._left(), context=context)
        else:
            smtp = smtplib.SMTP(host, port, timeout=self._left())
        try:
            self._greet(smtp)
            if not tls and smtp.has_extn("starttls"):
                smtp.starttls(context=context)
                self._greet(smtp)
            elif not tls and user is not None:
                raise smtplib.SMTPNotSupportedError("the server offers no encryption, so the password stays here")
            if user is not None:
                self._pace(smtp)
                smtp.login(user, password or "")
            yield smtp
            with suppress(smtplib.SMTPException, OSError):  # a farewell that nobody has to hear
                smtp.putcmd("quit")
        finally:
            smtp.close()

    def _greet(self, smtp: smtplib.SMTP) -> None:
        self._pace(smtp)
        smtp.ehlo_or_helo_if_needed()

    def _hand_over(self, smtp: smtplib.SMTP, mail: Mail, content: bytes) -> Outcome:
        options = [] if mail.to.isascii() else ["SMTPUTF8"]
        if options and not smtp.has_extn("smtputf8"):
            return Refused("the server takes no address of this kind")
        self._pace(smtp)
        _expect_250(*smtp.mail(parseaddr(self._sender)[1], options))
        self._stage = Stage.RECIPIENT
        self._pace(smtp)
        _expect_250(*smtp.rcpt(mail.to))
        self._pace(smtp)
        self._stage = Stage.CONTENT
        code, text = smtp.data(content)
        if code < 0:
            return Uncertain(detail_of(f"no answer but {text!r}"))
        detail = detail_of(f"{code} {_words(text)}")
        return Sent(detail=detail) if 200 <= code < 300 else self._of_refusal(code, text)

    def _of_refusal(self, code: int, text: bytes | str) -> Outcome:
        detail = detail_of(f"{code} {_words(text)}")
        lasting = 500 <= code < 600 and self._stage is not Stage.SESSION
        return Refused(detail) if lasting else PutOff(detail)

    def _pace(self, smtp: smtplib.SMTP) -> None:
        """What is left of the time is the next command's."""
        if smtp.sock is not None:
            smtp.sock.settimeout(self._left())

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no time is left")
        return left


def _expect_250(code: int, text: bytes | str) -> None:
    """SMTPResponseException for any other answer than yes."""
    if code not in (250, 251):
        raise smtplib.SMTPResponseException(code, text)


class SendGridSender:
    """Hands mails to SendGrid's v3 API."""

    def __init__(self, api_key: str, *, sender: str, api_base: str) -> None:
        self._key, self._sender, self._url = api_key, sender, api_base.rstrip("/") + "/v3/mail/send"
        self._session: aiohttp.ClientSession | None = None

    async def send(self, mail: Mail, *, timeout_s: float) -> Outcome:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        headers = {"Authorization": f"Bearer {self._key}"}
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with self._session.post(
                self._url, json=sendgrid_body(mail, self._sender), headers=headers, timeout=timeout
            ) as answer:
                if answer.ok:
                    return Sent(answer.headers.get("X-Message-Id"), str(answer.status))
                return _of_failure(answer.status, await answer.text())
        except aiohttp.ClientConnectorError as exc:  # no connection: nothing was said
            return PutOff(detail_of(repr(exc)))
        except (aiohttp.ClientError, TimeoutError) as exc:
            return Uncertain(detail_of(repr(exc)))

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def sendgrid_body(mail: Mail, sender: str) -> dict[str, Any]:
    """The request. `delivery_id` comes back in the events that SendGrid reports."""
    name, address = parseaddr(sender)
    return {
        "personalizations": [{"to": [{"email": mail.to}], "custom_args": {"delivery_id": str(mail.id)}}],
        "from": {"email": address} | ({"name": name} if name else {}),
        "subject": mail.subject,
        "content": [{"type": "text/plain", "value": mail.text}, {"type": "text/html", "value": mail.html}],
        "headers": headers_of(mail, sender),
        "categories": [mail.template],
        "tracking_settings": {"click_tracking": {"enable": False}, "open_tracking": {"enable": False}},
    }


def _of_failure(status: int, text: str) -> Outcome:
    """What a status of SendGrid's says of the mail. A key that is refused is ours to mend: the mail waits."""
    detail = detail_of(f"{status} {text}")
    if status in (401, 403, 408, 429, 503):
        return PutOff(detail)
    return Refused(detail) if 400 <= status < 500 else Uncertain(detail)


def _words(text: bytes | str) -> str:
    return text if isinstance(text, str) else text.decode(errors="replace")
