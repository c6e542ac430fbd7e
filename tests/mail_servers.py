"""Mail servers that do what a test wants: answer as told, stand still, or take a mail and say nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiosmtpd.smtp import SMTP, Envelope, Session


@dataclass
class Answers:
    """What a server answers at RCPT and after the content; None there: nothing at all."""

    rcpt: str = "250 OK"
    data: str | None = "250 OK"
    taken: list[bytes] = field(default_factory=list)

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.rcpt.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.rcpt

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's
        content = envelope.content
        assert isinstance(content, bytes)
        if self.data is None or self.data.startswith("250"):
            self.taken.append(content)
        if self.data is None:
            await asyncio.sleep(3600)
        return str(self.data)


@asynccontextmanager
async def smtp_server(answers: Answers) -> AsyncIterator[str]:
    """An SMTP server; gives its URL."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(answers, enable_SMTPUTF8=True), "127.0.0.1", 0)
    try:
        yield f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@asynccontextmanager
async def silent_server() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A server that greets nobody; gives its URL, and tells when somebody has come."""
    called = asyncio.Event()

    async def stand_still(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        called.set()
        try:
            await reader.read()
        finally:
            writer.close()

    server = await asyncio.start_server(stand_still, "127.0.0.1", 0)
    try:
        yield f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}", called
    finally:
        server.close()


@dataclass
class SendGrid:
    """SendGrid's API as far as we use it."""

    status: int = 202
    base: str = ""
    requests: list[tuple[str, Any]] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        self.requests.append((request.headers["Authorization"], await request.json()))
        if self.status == 202:
            return web.Response(status=202, headers={"X-Message-Id": "m-1"})
        return web.json_response({"errors": [{"message": "no: bob@example.test"}]}, status=self.status)


@asynccontextmanager
async def sendgrid_server(fake: SendGrid) -> AsyncIterator[SendGrid]:
    """The fake at `base`."""
    app = web.Application()
    app.router.add_post("/v3/mail/send", fake.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield fake
    finally:
        await runner.cleanup()
