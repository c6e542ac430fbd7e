"""Idempotency keys: what a request with a key was answered, kept in the transaction of its effect.

A try-lock on the key comes first (a concurrent twin is told at once), then the key's row, then the effect in a
savepoint: a deterministic refusal is kept although the effect is rolled back. Keys live on the wall clock.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import Index, LargeBinary, SmallInteger, Text, delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from models.database import Base, Driver, send
from models.errors import IdempotencyInProgress, IdempotencyKeyReused

KEPT: Final = timedelta(hours=48)
REAPED_MAX: Final = 1_000


class IdempotencyKey(Base):
    __tablename__ = "idempotency_keys"
    __table_args__ = (Index(None, "created_at"),)

    scope: Mapped[str] = mapped_column(Text, primary_key=True, comment="the store, or the user who has none")
    method: Mapped[str] = mapped_column(Text, primary_key=True)
    path: Mapped[str] = mapped_column(Text, primary_key=True)
    key: Mapped[str] = mapped_column(Text, primary_key=True)
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary, comment="of the payload's JSON value")
    status: Mapped[int | None] = mapped_column(SmallInteger)
    media_type: Mapped[str | None] = mapped_column(Text)
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(comment="wall time")


class Use(NamedTuple):
    """One use of a key."""

    scope: str
    method: str
    path: str
    key: str

    @property
    def lock(self) -> int:
        """The advisory lock of the key, a signed 64-bit number."""
        digest = hashlib.sha256("\0".join(self).encode()).digest()
        return int.from_bytes(digest[:8], "big", signed=True)


class Answer(NamedTuple):
    """What a request was answered."""

    status: int
    media_type: str
    body: bytes


def fingerprint(body: bytes) -> bytes | None:
    """Equal for equal JSON values, however they are written; None for what is not JSON, or nested absurdly deep."""
    try:
        value = _canonical(orjson.loads(body) if body else None)
        return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).digest()
    except (orjson.JSONDecodeError, TypeError, RecursionError):
        return None


async def begin(tx: AsyncSession | Driver, use: Use, payload: bytes, *, wall: datetime) -> Answer | None:
    """Claim the key for this transaction; the answer that is to be given again, if there is one.

    Raises IdempotencyInProgress while another transaction has the key, IdempotencyKeyReused for another payload.
    """
    new = (*use, payload, wall, use.lock)
    if await send(tx, _CLAIM, *new):
        return None
    ((free,),) = await send(tx, "SELECT pg_try_advisory_xact_lock($1)", use.lock)
    if not free:
        raise IdempotencyInProgress
    kept = await send(tx, _KEPT, *use)
    if not kept:  # whoever had the lock has let it go meanwhile, and has kept nothing
        await send(tx, _CLAIM, *new)
        return None
    ((before, *answer),) = kept
    if before != payload:
        raise IdempotencyKeyReused
    return Answer(*answer)


_CLAIM: Final = (
    "INSERT INTO idempotency_keys (scope, method, path, key, fingerprint, created_at)"
    " SELECT $1, $2, $3, $4, $5, $6 WHERE pg_try_advisory_xact_lock($7) ON CONFLICT DO NOTHING RETURNING true"
)
"""The key, unless somebody else has its lock or it is there already: for most requests all that there is to do."""


_MINE: Final = "WHERE scope = $1 AND method = $2 AND path = $3 AND key = $4"
_KEPT: Final = f"SELECT fingerprint, status, media_type, body FROM idempotency_keys {_MINE}"
_KEEP: Final = f"UPDATE idempotency_keys SET status = $5, media_type = $6, body = $7 {_MINE}"


async def keep(tx: AsyncSession | Driver, use: Use, answer: Answer) -> None:
    """Keep the answer with the key, to commit with the effect."""
    await send(tx, _KEEP, *use, *answer)


async def reap(tx: AsyncSession, *, wall: datetime) -> int:
    """Forget keys older than KEPT, a bounded number; how many."""
    old = select(IdempotencyKey.scope, IdempotencyKey.method, IdempotencyKey.path, IdempotencyKey.key)
    old = old.where(IdempotencyKey.created_at < wall - KEPT).limit(REAPED_MAX).with_for_update(skip_locked=True)
    columns = (IdempotencyKey.scope, IdempotencyKey.method, IdempotencyKey.path, IdempotencyKey.key)
    gone = await tx.execute(
        delete(IdempotencyKey).where(func.row(*columns).in_(old)).returning(IdempotencyKey.created_at)
    )
    return len(gone.all())


def _canonical(value: Any) -> Any:
    """Numbers that are equal are written equally."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53:
        return int(value)
    if isinstance(value, dict):
        return {key: _canonical(item) for key, item in value.items()}
    return [_canonical(item) for item in value] if isinstance(value, list) else value
