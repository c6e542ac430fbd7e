"""Crashes in tests: an exception before any step of a request, between its first statement and its answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from tests.statements import statements

COMMIT, COMMITTED = "COMMIT", "committed"
OF_SESSIONS = ("BEGIN;", "COMMIT;", "ROLLBACK;")  #: the driver loses count if one of these fails; events stand for them


class Crash(Exception):
    """Nothing that the application knows."""


in_the_block: ContextVar[bool] = ContextVar("in_the_block", default=False)


@contextmanager
def steps(seen: list[str], *, crash_at: int | None = None) -> Iterator[None]:
    """Note the block's own steps in `seen`, not those of tasks beside it; before that of this number, crash.

    Steps are what the request waits for: its statements, savepoints and the commit; the last one, `COMMITTED`, is all
    between the commit and the answer.
    """

    def step(name: str) -> None:
        if not in_the_block.get() or seen[-1:] == ["crash"]:
            return
        if len(seen) == crash_at:
            seen.append("crash")
            raise Crash
        seen.append(name)

    def before(sql: str, _: object) -> None:
        if sql not in OF_SESSIONS:
            step(sql)

    def after(sql: str, _: object) -> None:
        if sql == COMMIT:
            step(COMMITTED)

    def after_commit(session: Session) -> None:
        if not session.in_nested_transaction():
            step(COMMITTED)

    listeners: list[tuple[Any, str, Any]] = [
        (Engine, "commit", lambda *_: step(COMMIT)),
        (Session, "after_commit", after_commit),
    ]
    with ExitStack() as stack:
        for target, name, listener in listeners:
            event.listen(target, name, listener)
            stack.callback(event.remove, target, name, listener)
        stack.enter_context(statements(before, after=after))
        stack.enter_context(capture_logs())  # to write out a traceback takes longer than the request
        stack.callback(in_the_block.reset, in_the_block.set(True))
        yield
