"""Access tokens: HS256 JWTs with enforced claims. Time is an argument; signing does no IO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import jwt

from models.errors import TokenExpired, Unauthenticated
from models.identity.rules import ActiveStore, Role, StoreRole

ISSUER: Final = "packstream"
AUDIENCE: Final = "packstream-api"
ALGORITHM: Final = "HS256"
REMEMBERED_MAX: Final = 8192
TOKEN_CHARS_MAX: Final = 2048


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
        self._keys = keys
        self._headers = {_header(jwt.encode({}, key, ALGORITHM, {"kid": kid})): kid for kid, key in keys.items()}
        self._kid = next(iter(keys))
        self.ttl_s = ttl_s
        self._verified: dict[str, Caller] = {}

    def sign(self, user_id: UUID, session_id: str, role: str, store: ActiveStore | None, *, issued_at_s: int) -> str:
        """The same arguments give the same token."""
        claims: dict[str, Any] = {
            "sub": str(user_id),
            "sid": session_id,
            "typ": "access",
            "iss": ISSUER,
            "aud": AUDIENCE,
            "iat": issued_at_s,
            "exp": issued_at_s + self.ttl_s,
            "role": role,
            "store_id": str(store.id) if store else None,
            "store_role": store.role if store else None,
            "store_type": store.type if store else None,
        }
        return jwt.encode(claims, self._keys[self._kid], ALGORITHM, {"kid": self._kid})

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
        if len(token) > TOKEN_CHARS_MAX:
            raise Unauthenticated("the access token is not valid")
        try:
            kid = self._headers.get(_header(token)) or jwt.get_unverified_header(token)["kid"]
            claims = jwt.decode(
                token,
                self._keys[kid],
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                options={
                    "require": ["sub", "sid", "typ", "iss", "aud", "iat", "exp", "role"],
                    "verify_exp": False,  # by the caller's clock, each time
                    "verify_iat": False,
                },
            )
            return _caller(claims)
        except (jwt.InvalidTokenError, KeyError, TypeError, ValueError):
            raise Unauthenticated("the access token is not valid") from None


def _header(token: str) -> str:
    """The token's first segment, as it is written: that of a token of ours says which key, without being decoded."""
    return token.partition(".")[0]


def _caller(claims: dict[str, Any]) -> Caller:
    if claims["typ"] != "access":
        raise ValueError("no access token")
    store_id = claims.get("store_id")
    return Caller(
        user_id=UUID(claims["sub"]),
        session_id=str(claims["sid"]),
        role=Role(claims["role"]),
        store_id=UUID(store_id) if store_id else None,
        store_role=StoreRole(claims["store_role"]) if store_id else None,
        store_type=claims["store_type"] if store_id else None,
        expires_at=int(claims["exp"]),
    )
