"""Ad tokens: what they say, and what it counts for. Pure: keys, lives and the time are arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal
from uuid import UUID

import msgspec

from models.ads.rules import EventKind, Placement, TargetType
from models.errors import InvalidToken
from models.signed_tokens import SigningKeys

TOKEN_BYTES_MAX: Final = 1024
VERSION: Final = 1

_Uint32 = Annotated[int, msgspec.Meta(ge=0, le=(1 << 32) - 1)]


class AdClaims(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a token says. `jti` is the event's id; times are seconds since 1970."""

    typ: Literal["ad"]
    v: Literal[1]
    jti: UUID
    request_id: UUID
    kind: EventKind
    ad_id: UUID
    store_id: UUID
    target_type: TargetType
    target_id: UUID
    buyer_store_id: UUID
    placement: Placement
    cost_micros: _Uint32
    iat: _Uint32
    exp: _Uint32


class TokenKeys:
    """Signing keys of ad tokens: the first signs, all verify."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = SigningKeys(keys)

    def sign(self, claims: AdClaims) -> str:
        """The token of `claims`."""
        return self._keys.sign(_ENCODER.encode(claims))

    def read(self, token: str) -> AdClaims:
        """The claims of a token that one of the keys signed, whatever its age. InvalidToken for any other string."""
        if len(token) > TOKEN_BYTES_MAX:
            raise InvalidToken("the token is too long")
        try:
            return _DECODER.decode(self._keys.payload_of(token))
        except msgspec.DecodeError as exc:
            raise InvalidToken("the token's claims are not those of an ad token") from exc


def check_countable(claims: AdClaims, kind: EventKind, *, now_s: float, ttl_s: int, skew_s: int) -> None:
    """InvalidToken unless an event of `kind` may count at `now_s` by these claims."""
    check_kind(claims, kind, now_s=now_s, skew_s=skew_s)
    if counts_until(claims, ttl_s=ttl_s) < now_s:
        raise InvalidToken("the token has expired")


def check_kind(claims: AdClaims, kind: EventKind, *, now_s: float, skew_s: int) -> None:
    """InvalidToken when the token is for another kind of event, or from the future."""
    if claims.kind is not kind:
        raise InvalidToken(f"the token is for {claims.kind}")
    if claims.iat > now_s + skew_s:
        raise InvalidToken("the token is from the future")


def counts_until(claims: AdClaims, *, ttl_s: int) -> int:
    """The last second at which the event counts: a life longer than today's setting is cut, as the gate assumes."""
    return min(claims.exp, claims.iat + ttl_s)


_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(AdClaims)
