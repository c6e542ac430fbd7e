"""Keyset pagination: a cursor is the sort key of the last row that was given out, signed for its own list."""

from __future__ import annotations

import binascii
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, NamedTuple, Protocol, TypeVar
from uuid import UUID

import orjson
from fastapi import Depends, Query, Request

from models.errors import FieldError, ValidationFailed

MAC_BYTES: Final = 12
CURSOR_CHARS_MAX: Final = 1024
LIMIT_DEFAULT: Final = 25
LIMIT_MAX: Final = 100

T = TypeVar("T")
Key = Sequence[str | int]  #: a row's sort key as JSON has it: the sorted columns, then the id


class Cursors:
    """Issues cursors by the first of `secrets`, reads those of all.

    One that was not issued here, or for another list, is a ValidationFailed.
    """

    def __init__(self, secrets: Iterable[bytes]) -> None:
        self._keys = [hmac.digest(secret, b"cursors", "sha256") for secret in secrets]

    def issue(self, list_name: str, key: Key) -> str:
        body = orjson.dumps(list(key))
        return urlsafe_b64encode(_mac(self._keys[0], list_name, body) + body).decode().rstrip("=")

    def read(self, list_name: str, cursor: str) -> list[Any]:
        """The key it was issued with."""
        try:
            raw = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        except (binascii.Error, ValueError):
            raw = b""
        mac, body = raw[:MAC_BYTES], raw[MAC_BYTES:]
        if not any(hmac.compare_digest(mac, _mac(key, list_name, body)) for key in self._keys):
            raise ValidationFailed(errors=[FieldError("cursor", "cursor_invalid", "this list issued no such cursor")])
        key: list[Any] = orjson.loads(body)
        return key


def _mac(key: bytes, list_name: str, body: bytes) -> bytes:
    return hmac.digest(key, list_name.encode() + b"\0" + body, "sha256")[:MAC_BYTES]


class Dated(Protocol):
    """Rows that a list sorts by when they were created, ties by id."""

    @property
    def created_at(self) -> datetime: ...
    @property
    def id(self) -> UUID: ...


def by_time(row: Dated) -> Key:
    """The sort key that `Page.after_time` reads."""
    return [row.created_at.isoformat(), str(row.id)]


class Page(NamedTuple):
    """The page that a client asks for. Query `limit + 1` rows, so that `cut` knows whether more follow."""

    limit: int
    cursor: str | None
    cursors: Cursors

    def after(self, list_name: str) -> list[Any] | None:
        """The sort key after which the page begins; None for the first page."""
        return None if self.cursor is None else self.cursors.read(list_name, self.cursor)

    def after_time(self, list_name: str) -> tuple[datetime, UUID] | None:
        """As `after`, in a list sorted by a time and the id."""
        key = self.after(list_name)
        return None if key is None else (datetime.fromisoformat(key[0]), UUID(key[1]))

    def after_number(self, list_name: str) -> tuple[int, UUID] | None:
        """As `after`, in a list sorted by a number and the id."""
        key = self.after(list_name)
        return None if key is None else (key[0], UUID(key[1]))

    def cut(self, list_name: str, rows: Sequence[T], key: Callable[[T], Key]) -> tuple[list[T], str | None]:
        """The page's rows and the cursor of the next one, which is None at the end."""
        page = list(rows[: self.limit])
        more = len(rows) > self.limit
        return page, self.cursors.issue(list_name, key(page[-1])) if more else None


def page(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = LIMIT_DEFAULT,
    cursor: Annotated[str | None, Query(max_length=CURSOR_CHARS_MAX)] = None,
) -> Page:
    return Page(limit, cursor, request.app.state.services.cursors)


Paged = Annotated[Page, Depends(page)]
