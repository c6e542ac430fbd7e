"""An HTTP/1.1 client that costs next to nothing: prepared requests, kept connections, answers counted, not read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Final, cast

HEAD_END: Final = b"\r\n\r\n"
LENGTH: Final = b"content-length: "
HOST: Final = "127.0.0.1"

Answered = Callable[["Connection", int, float], None]
"""Told of each answer: on which connection, its status, and the moment that its request was given."""


class Connection(asyncio.Protocol):
    """One request at a time. `answered` may ask the next one at once."""

    def __init__(self, answered: Answered) -> None:
        self._answered = answered
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._moment = 0.0
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass

    def ask(self, request: bytes, moment: float) -> None:
        """Send a request; `moment` is what its time counts from."""
        assert self._transport is not None
        self._moment = moment
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer = data = self._buffer + data if self._buffer else data
        head = data.find(HEAD_END)
        if head < 0:
            return
        at = data.find(LENGTH, 0, head)
        length = int(data[at + len(LENGTH) : data.find(b"\r", at)]) if at >= 0 else 0
        if len(data) < head + len(HEAD_END) + length:
            return
        self._buffer = b""
        self._answered(self, int(data[9:12]), self._moment)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True

    def close(self) -> None:
        """End it."""
        if self._transport is not None:
            self._transport.close()


async def connect(port: int, count: int, answered: Answered) -> list[Connection]:
    """So many connections to a server of this machine."""
    loop = asyncio.get_running_loop()
    return [(await loop.create_connection(lambda: Connection(answered), HOST, port))[1] for _ in range(count)]


def get(path: str, headers: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a GET."""
    return _request("GET", path, headers or {}, b"")


def post(path: str, body: Mapping[str, object], headers: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a POST of JSON."""
    return _request("POST", path, {"content-type": "application/json", **(headers or {})}, json.dumps(body).encode())


def _request(method: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"host: {HOST}", *(f"{name}: {value}" for name, value in headers.items())]
    if body:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join(lines).encode() + HEAD_END + body


def join(requests: Sequence[bytes]) -> bytes:
    """Requests as one file, to hand to another process."""
    return b"".join(len(request).to_bytes(4, "big") + request for request in requests)


def split(joined: bytes) -> list[bytes]:
    """What `join` has put together."""
    requests, at = [], 0
    while at < len(joined):
        length = int.from_bytes(joined[at : at + 4], "big")
        requests.append(joined[at + 4 : at + 4 + length])
        at += 4 + length
    return requests
