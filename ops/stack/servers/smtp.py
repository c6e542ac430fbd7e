"""``python -m ops.stack.servers.smtp PORT DIR [HOST]``: an SMTP server that keeps every mail as a file."""

from __future__ import annotations

import asyncio
import signal
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session

from ops.stack.paths import write_atomically

MAIL_BYTES_MAX = 32 << 20


class Sink:
    """Writes each mail to ``directory``; the envelope's addresses stand in front as X- headers."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's
        head = f"X-Envelope-From: {envelope.mail_from}\r\nX-Envelope-To: {', '.join(envelope.rcpt_tos)}\r\n"
        content = envelope.content or b""
        body = content if isinstance(content, str) else content.decode("utf-8", "surrogateescape")
        path = self._directory / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{uuid.uuid4().hex[:8]}.eml"
        await asyncio.to_thread(write_atomically, path, head + body)
        return f"250 kept as {path.name}"


async def serve(port: int, directory: Path, host: str = "127.0.0.1") -> None:
    """Listen until SIGTERM."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    sink = Sink(directory)
    server = await loop.create_server(
        lambda: SMTP(sink, data_size_limit=MAIL_BYTES_MAX, enable_SMTPUTF8=True), host, port
    )
    async with server:
        await stopped.wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]))
