"""What a block sends to Postgres: through sessions, and over the driver itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

Note = Callable[[str, Any], None]


@contextmanager
def statements(note: Note, *, after: Note | None = None) -> Iterator[None]:
    """Call `note` with each statement of this process and its parameters before it is sent.

    `after`, of those over the driver: when it is done. A session's BEGIN and COMMIT are such.
    """

    def of_session(_c: object, _k: object, sql: str, parameters: Any, *_: object) -> None:
        note(sql, parameters)

    def watched(name: str) -> Callable[..., Any]:
        send = getattr(asyncpg.Connection, name)

        async def watching(self: asyncpg.Connection[Any], sql: str, *args: Any, **options: Any) -> Any:
            note(sql, args)
            answer = await send(self, sql, *args, **options)
            if after is not None:
                after(sql, args)
            return answer

        return watching

    event.listen(Engine, "before_cursor_execute", of_session)
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("fetch", "execute"):
                patch.setattr(asyncpg.Connection, name, watched(name))
            yield
    finally:
        event.remove(Engine, "before_cursor_execute", of_session)
