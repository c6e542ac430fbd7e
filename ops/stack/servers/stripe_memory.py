"""What the fake Stripe remembers, in one SQLite file: objects, answers by idempotency key, news not yet taken."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

TABLES = """
CREATE TABLE IF NOT EXISTS objects (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE, kind TEXT, body TEXT);
CREATE INDEX IF NOT EXISTS objects_by_kind ON objects (kind, seq);
CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, asked TEXT, answer TEXT);
CREATE TABLE IF NOT EXISTS news (id TEXT PRIMARY KEY, body TEXT);
"""

Object = dict[str, Any]


class Refused(Exception):
    """An error as Stripe answers it."""

    def __init__(self, status: int, kind: str, message: str, *, code: str | None = None, param: str | None = None):
        super().__init__(message)
        self.status = status
        self.error = {"type": kind, "message": message} | {
            name: value for name, value in (("code", code), ("param", param)) if value is not None
        }


class Memory:
    """Survives the process. Every change is made within `transaction`."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;" + TABLES)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def close(self) -> None:
        self._db.close()

    def add(self, kind: str, prefix: str, body: Object) -> Object:
        """A new object with an id of its own."""
        made = {"id": f"{prefix}_{secrets.token_hex(12)}", "object": kind} | body
        self._db.execute("INSERT INTO objects (id, kind, body) VALUES (?, ?, ?)", (made["id"], kind, self.dump(made)))
        return made

    def save(self, body: Object) -> None:
        self._db.execute("UPDATE objects SET body = ? WHERE id = ?", (self.dump(body), body["id"]))

    def get(self, kind: str, object_id: object) -> Object:
        """Refused as Stripe does for what it does not have."""
        row = self._db.execute("SELECT body FROM objects WHERE id = ? AND kind = ?", (object_id, kind)).fetchone()
        if row is None:
            raise Refused(
                404, "invalid_request_error", f"No such {kind}: '{object_id}'", code="resource_missing", param="id"
            )
        found: Object = json.loads(row[0])
        return found

    def all(self, kind: str) -> list[Object]:
        """Newest first, as Stripe lists."""
        rows = self._db.execute("SELECT body FROM objects WHERE kind = ? ORDER BY seq DESC", (kind,))
        return [json.loads(row[0]) for row in rows]

    def kept_answer(self, key: str, asked: str, form: Object) -> str | None:
        """What was answered to the same request with the key; Refused when that was another request."""
        row = self._db.execute("SELECT asked, answer FROM answers WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        if row[0] != self._asked(asked, form):
            message = (
                "Keys for idempotent requests can only be used with the same parameters they were first used with."
            )
            raise Refused(400, "idempotency_error", message)
        return str(row[1])

    def keep_answer(self, key: str, asked: str, form: Object, answer: str) -> None:
        self._db.execute("INSERT INTO answers VALUES (?, ?, ?)", (key, self._asked(asked, form), answer))

    def forget_answers(self) -> None:
        """As Stripe does after a day."""
        self._db.execute("DELETE FROM answers")

    def add_news(self, event: Object) -> None:
        self._db.execute("INSERT INTO news VALUES (?, ?)", (event["id"], self.dump(event)))

    def news(self) -> list[tuple[str, bytes]]:
        return [(row[0], row[1].encode()) for row in self._db.execute("SELECT id, body FROM news ORDER BY rowid")]

    def taken(self, event_id: str) -> None:
        self._db.execute("DELETE FROM news WHERE id = ?", (event_id,))

    @staticmethod
    def dump(body: Object) -> str:
        return json.dumps(body)

    @staticmethod
    def _asked(asked: str, form: Object) -> str:
        return f"{asked} {json.dumps(form, sort_keys=True)}"


def parse_form(text: str) -> Object:
    """``a[b][0][c]=d`` → nested objects; lists stay objects by their numbers."""
    form: Object = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        first, *rest = name.replace("]", "").split("[")
        target, path = form, [first, *rest]
        for part in path[:-1]:
            target = target.setdefault(part, {})
        target[path[-1]] = value
    return form
