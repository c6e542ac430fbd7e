"""Sessions in Redis. A session is a family of refresh tokens; tokens are kept as hashes only.

``session:<sid>`` → user id, as long as the session lives. ``refresh:<hash>`` → the session, its store, and once the
token was used: when, and what its successor was made from. The successor is an HMAC of the used token over a random
nonce: whoever shows the used token again within the grace gets the same answer, and Redis never holds a token.
``gone:<store>:<user>`` → the membership was removed; it outlives all access tokens that still name the store.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from base64 import urlsafe_b64encode
from typing import Any, Final, NamedTuple
from uuid import UUID

from models import limits
from models.errors import Forbidden, SessionRevoked, Unauthenticated
from models.identity.rules import REFRESH_GRACE_S, ActiveStore
from models.identity.tokens import Caller
from models.limits import Limit
from models.redis import RedisLink, Script

CHECK: Final = Script(
    limits.ADMIT_FUNCTION
    + """
local user = redis.call('GET', KEYS[1])
local wait = 0
if user then wait = admit(KEYS[3], tonumber(ARGV[1]), tonumber(ARGV[2])) end
return {user, redis.call('GET', KEYS[2]), wait}
"""
)
OPEN: Final = Script("""
local sid, user, role, store, ttl = unpack(ARGV)
redis.call('SET', KEYS[1], user, 'EX', ttl)
redis.call('HSET', KEYS[2], 'sid', sid, 'user', user, 'role', role, 'store', store)
redis.call('EXPIRE', KEYS[2], ttl)
""")
ROTATE: Final = Script("""
local store, ttl, grace, nonce, issued, answer = unpack(ARGV)
local sid, user, role, used, old_nonce, old_issued, old_answer =
  unpack(redis.call('HMGET', KEYS[1], 'sid', 'user', 'role', 'used_ms', 'nonce', 'issued', 'answer'))
if not sid then return {'unknown'} end
local session = 'session:' .. sid
if redis.call('EXISTS', session) == 0 then return {'revoked'} end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if used then
  if now - used <= grace * 1000 then return {'answered', old_nonce, old_issued, old_answer} end
  redis.call('DEL', session)
  return {'revoked'}
end
redis.call('HSET', KEYS[1], 'used_ms', now, 'nonce', nonce, 'issued', issued, 'answer', answer)
redis.call('HSET', KEYS[2], 'sid', sid, 'user', user, 'role', role, 'store', store)
redis.call('EXPIRE', KEYS[1], ttl)
redis.call('EXPIRE', KEYS[2], ttl)
redis.call('EXPIRE', session, ttl)
return {'answered', nonce, issued, answer}
""")


class RefreshRecord(NamedTuple):
    """What is known of a refresh token."""

    session_id: str
    user_id: UUID
    role: str
    store_id: UUID | None
    used: bool


class Rotation(NamedTuple):
    """The answer to a refresh, the same for the one who rotated and for repeats within the grace."""

    refresh_token: str
    store: ActiveStore | None
    issued_at_s: int


class Sessions:
    """`ttl_s` is how long a session lives after its last refresh; `access_ttl_s` how long an access token does."""

    def __init__(self, link: RedisLink, *, ttl_s: int, access_ttl_s: int, limit_scale: float) -> None:
        self._link = link
        self._ttl_s = ttl_s
        self._gone_ttl_s = access_ttl_s + 60
        self._limit_scale = limit_scale

    async def open(self, user_id: UUID, role: str, store_id: UUID | None) -> tuple[str, str]:
        """A new session: its id and its first refresh token."""
        session_id, token = secrets.token_urlsafe(16), secrets.token_urlsafe(32)
        await self._link.script(
            OPEN,
            keys=[f"session:{session_id}", refresh_key(token)],
            args=[session_id, str(user_id), role, str(store_id or ""), self._ttl_s],
        )
        return session_id, token

    async def check(self, caller: Caller, *, limit: Limit | None, subject: object) -> None:
        """One round trip: SessionRevoked, Forbidden for a membership that was removed, RateLimited."""
        keys = [f"session:{caller.session_id}", f"gone:{caller.store_id}:{caller.user_id}"]
        if limit is None:
            user, gone = await self._link.execute("MGET", *keys)
            wait_ms = 0
        else:
            args = limits.arguments_of(limit, self._limit_scale)
            keys.append(limits.key_of(limit, subject))
            user, gone, wait_ms = await self._link.script(CHECK, keys=keys, args=args)
        if user is None or user.decode() != str(caller.user_id):
            raise SessionRevoked
        if gone is not None:
            raise Forbidden("you are no longer a member of this store")
        limits.refuse(wait_ms)

    async def find(self, token: str) -> RefreshRecord:
        """What a refresh token stands for; Unauthenticated when it was never issued or is long gone."""
        fields = await self._link.execute("HMGET", refresh_key(token), "sid", "user", "role", "store", "used_ms")
        sid, user, role, store, used = (None if field is None else field.decode() for field in fields)
        if sid is None or user is None or role is None:
            raise Unauthenticated("the refresh token is not valid")
        return RefreshRecord(sid, UUID(user), role, UUID(store) if store else None, used is not None)

    async def rotate(self, token: str, store: ActiveStore | None, *, wall_s: int) -> Rotation:
        """Use `token` up and issue its successor for a session that acts for `store`.

        Atomic: of many at once one rotates, the others get its answer, as do repeats within REFRESH_GRACE_S.
        Later use ends the session. Raises SessionRevoked, Unauthenticated.
        """
        nonce = secrets.token_hex(16)
        answer = json.dumps([str(store.id), store.type, store.role] if store else None)
        store_id = str(store.id) if store else ""
        reply: list[Any] = await self._link.script(
            ROTATE,
            keys=[refresh_key(token), refresh_key(successor(token, nonce))],
            args=[store_id, self._ttl_s, REFRESH_GRACE_S, nonce, wall_s, answer],
        )
        outcome = reply[0]
        if outcome == b"unknown":
            raise Unauthenticated("the refresh token is not valid")
        if outcome == b"revoked":
            raise SessionRevoked
        return _rotation(token, *reply[1:])

    async def end(self, session_id: str) -> None:
        """End a session: its access and refresh tokens are refused from now on."""
        await self._link.execute("DEL", f"session:{session_id}")

    async def bar(self, store_id: UUID, user_id: UUID) -> None:
        """Refuse the access tokens that name a membership which is being removed."""
        await self._link.execute("SET", f"gone:{store_id}:{user_id}", "1", "EX", self._gone_ttl_s)

    async def unbar(self, store_id: UUID, user_id: UUID) -> None:
        """The membership exists again."""
        await self._link.execute("DEL", f"gone:{store_id}:{user_id}")


def refresh_key(token: str) -> str:
    return "refresh:" + hashlib.sha256(token.encode()).hexdigest()


def successor(token: str, nonce: str) -> str:
    """The token that follows `token`; nobody can tell it from the nonce without holding the token."""
    digest = hmac.digest(token.encode(), nonce.encode(), "sha256")
    return urlsafe_b64encode(digest).decode().rstrip("=")


def _rotation(token: str, nonce: bytes, issued: bytes, answer: bytes) -> Rotation:
    store = json.loads(answer)
    active = ActiveStore(UUID(store[0]), store[1], store[2]) if store else None
    return Rotation(successor(token, nonce.decode()), active, int(issued))
