"""Access tokens: HS256 JWTs with enforced claims. Time is an argument; signing does no IO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal
from uuid import UUID

import msgspec

from models.errors import InvalidToken, TokenExpired, Unauthenticated
from models.identity.rules import ActiveStore, Role, StoreRole
from models.signed_tokens import SigningKeys

REMEMBERED_MAX: Final = 8192
TOKEN_CHARS_MAX: Final = 2048


class Claims(msgspec.Struct, frozen=True):
    """What a token says; `iat` and `exp` are seconds since 1970. It may say more, which nobody reads."""

    sub: UUID
    sid: str
    role: Role
    iat: int
    exp: int
    typ: Literal["access"]
    iss: Literal["packstream"]
    aud: Literal["packstream-api"]
    store_id: UUID | None = None
    store_role: StoreRole | None = None
    store_type: str | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request, as the access token says; the store is the session's active one, if it has one."""

    user_id: UUID
    session_id: str
    role: Role
    store_id: UUID | None
    store_role: StoreRole | None
    store_type: str | None
    expires_at: int

    @property
    def actor(self) -> str:
        """As events and the audit log name them."""
        return f"user:{self.user_id}"


class AccessTokens:
    """Signs with the first of `keys`, verifies with all of them by `kid`.

    Tokens whose signature was verified are remembered (a bounded number), so that the next request with the same
    token costs a look-up; its expiry is checked each time.
    """

    def __init__(self, keys: dict[str, bytes], *, ttl_s: int) -> None:
        self._keys = SigningKeys(keys)
        self.ttl_s = ttl_s
        self._verified: dict[str, Caller] = {}

    def sign(self, user_id: UUID, session_id: str, role: str, store: ActiveStore | None, *, issued_at_s: int) -> str:
        """The same arguments give the same token."""
        claims = Claims(
            sub=user_id,
            sid=session_id,
            role=Role(role),
            iat=issued_at_s,
            exp=issued_at_s + self.ttl_s,
            typ="access",
            iss="packstream",
            aud="packstream-api",
            store_id=store.id if store else None,
            store_role=StoreRole(store.role) if store else None,
            store_type=store.type if store else None,
        )
        return self._keys.sign(_ENCODER.encode(claims))

    def verify(self, token: str, *, now_s: float) -> Caller:
        """The caller; Unauthenticated for a token that is not ours or no access token, TokenExpired after `exp`."""
        caller = self._verified.get(token)
        if caller is None:
            caller = self._read(token)
            if len(self._verified) >= REMEMBERED_MAX:
                self._verified.pop(next(iter(self._verified)))
            self._verified[token] = caller
        if caller.expires_at <= now_s:
            self._verified.pop(token, None)
            raise TokenExpired
        return caller

    def _read(self, token: str) -> Caller:
        try:
            if len(token) > TOKEN_CHARS_MAX:
                raise InvalidToken("the token is too long")
            return _caller(_DECODER.decode(self._keys.payload_of(token)))
        except (InvalidToken, msgspec.DecodeError):
            raise Unauthenticated("the access token is not valid") from None


def _caller(claims: Claims) -> Caller:
    store_id = claims.store_id
    return Caller(
        user_id=claims.sub,
        session_id=claims.sid,
        role=claims.role,
        store_id=store_id,
        store_role=claims.store_role if store_id else None,
        store_type=claims.store_type if store_id else None,
        expires_at=claims.exp,
    )


_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(Claims)
