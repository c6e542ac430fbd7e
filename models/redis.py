"""One multiplexed connection to Redis: commands issued while others travel are sent together as one pipeline.

A command on its own costs redis-py about 100 µs of Python, in a pipeline about 15: at thousands of requests a second
that is what counts. The link also knows the run id of the server at the other end, as seen by this very connection:
a connection cannot outlive its server, so a command that carries RUN_ID says which server it means.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from hashlib import sha1
from typing import Any, Final

from hiredis import pack_command
from redis.asyncio import Connection, ConnectionPool
from redis.exceptions import NoScriptError, RedisError, ResponseError

from models.errors import Unavailable

RUN_ID: Final = object()  #: an argument that becomes the run id of the server that receives the command
COMMANDS_MAX: Final = 512  #: of one pipeline
QUEUE_MAX: Final = 20_000  #: commands waiting; more are refused
# What a server says that would obey at another moment: no memory, no disk, no master, no time, no replicas.
PASSING: Final = ("OOM", "MISCONF", "READONLY", "LOADING", "BUSY", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN")

Argument = Any
_Waiting = tuple[tuple[Argument, ...], "asyncio.Future[Any]"]


class Script:
    """A Lua script, called by its SHA-1."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.sha = sha1(source.encode(), usedforsecurity=False).hexdigest()


class RedisLink:
    """`timeout_s` bounds every answer; after it the connection is dropped and all who wait get Unavailable."""

    def __init__(self, url: str, *, timeout_s: float = 2.0) -> None:
        self._pool = ConnectionPool.from_url(url, socket_connect_timeout=timeout_s, socket_timeout=None, protocol=2)
        self._timeout_s = timeout_s
        self._connection: Connection | None = None
        self._queue: list[_Waiting] = []
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.run_id = ""  #: of the server at the other end; empty while there is none

    async def connect(self) -> None:
        """Start the link. It does not raise when Redis is away: commands do, until it is back."""
        self._task = asyncio.create_task(self._run(), name="redis-link")

    async def close(self) -> None:
        """Stop; commands still waiting get Unavailable."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._fail(self._take(), "the link is closed")
        await self._disconnect()

    async def execute(self, *args: Argument) -> Any:
        """The reply of one command. Raises Unavailable, or ResponseError for a command that Redis never obeys."""
        if len(self._queue) >= QUEUE_MAX or self._task is None or self._task.done():
            raise Unavailable("Redis is not reachable or overloaded")
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queue.append((args, future))
        self._wake.set()
        return await future

    async def script(self, script: Script, *, keys: Sequence[Argument], args: Sequence[Argument]) -> Any:
        """The result of a Lua script, which is loaded when the server does not know it."""
        try:
            return await self.execute("EVALSHA", script.sha, len(keys), *keys, *args)
        except NoScriptError:
            return await self.execute("EVAL", script.source, len(keys), *keys, *args)

    async def ping(self) -> None:
        """Raises Unavailable when Redis does not answer."""
        await self.execute("PING")

    def _take(self) -> list[_Waiting]:
        taken, self._queue = self._queue[:COMMANDS_MAX], self._queue[COMMANDS_MAX:]
        return [waiting for waiting in taken if not waiting[1].done()]

    async def _run(self) -> None:
        while True:
            if not self._queue:
                self._wake.clear()
                await self._wake.wait()
                await asyncio.sleep(0)  # let everyone who is ready add to the pipeline
            batch = self._take()
            if batch:
                await self._send(batch)

    async def _send(self, batch: list[_Waiting]) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                connection = self._connection or await self._open()
                await self._exchange(connection, batch)
        except (RedisError, OSError, TimeoutError) as exc:
            self._fail(batch, repr(exc))
            await self._disconnect()
        except asyncio.CancelledError:
            self._fail(batch, "the link is closed")
            raise

    async def _exchange(self, connection: Connection, batch: list[_Waiting]) -> None:
        commands = [pack_command(self._named(args)) for args, _ in batch]
        await connection.send_packed_command(commands)
        for _, future in batch:
            try:
                reply = await connection.read_response()
            except ResponseError as exc:
                if not future.done():
                    future.set_exception(_refusal(exc))
                continue
            if not future.done():
                future.set_result(reply)

    def _named(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple([self.run_id if arg is RUN_ID else arg for arg in args]) if RUN_ID in args else args

    async def _open(self) -> Connection:
        connection: Connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        await connection.connect()  # type: ignore[no-untyped-call]
        await connection.send_command("INFO", "server")
        info = (await connection.read_response()).decode()
        self.run_id = next(line[7:] for line in info.splitlines() if line.startswith("run_id:"))
        self._connection = connection
        return connection

    async def _disconnect(self) -> None:
        connection, self._connection, self.run_id = self._connection, None, ""
        if connection is not None:
            await connection.disconnect(nowait=True)

    @staticmethod
    def _fail(batch: list[_Waiting], why: str) -> None:
        for _, future in batch:
            if not future.done():
                future.set_exception(Unavailable(f"Redis does not answer: {why}"))


def _refusal(error: ResponseError) -> Exception:
    """Unavailable for what Redis refuses at the moment only; the error itself for a fault of ours."""
    code = error.status_code or str(error).partition(" ")[0]
    return Unavailable(f"Redis refuses: {code}") if code in PASSING else error
