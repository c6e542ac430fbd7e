"""Ad tokens: what is issued verifies, here and by PyJWT; everything else is refused."""

from __future__ import annotations

import base64
import json
from typing import Any
from uuid import UUID, uuid4

import jwt
import msgspec
import pytest

from models.ads.rules import EventKind, Placement, TargetType
from models.ads.tokens import TOKEN_BYTES_MAX, AdClaims, TokenKeys, check_countable, check_kind, counts_until
from models.database import new_id
from models.errors import InvalidToken
from models.identity.tokens import AccessTokens

SECRET, OTHER = b"a" * 32, b"b" * 32
KEYS = TokenKeys({"one": SECRET})
IAT = 1_800_000_000
TTL_S, SKEW_S = 1800, 5


def claims(**changes: Any) -> AdClaims:
    fields: dict[str, Any] = {
        "typ": "ad",
        "v": 1,
        "jti": new_id(),
        "request_id": new_id(),
        "kind": EventKind.IMPRESSION,
        "ad_id": new_id(),
        "store_id": new_id(),
        "target_type": TargetType.PRODUCT,
        "target_id": new_id(),
        "buyer_store_id": new_id(),
        "placement": Placement.CATEGORY,
        "cost_micros": 1_000_000,
        "iat": IAT,
        "exp": IAT + TTL_S,
    }
    return AdClaims(**(fields | changes))


def plain(value: AdClaims) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(msgspec.json.encode(value))
    return fields


def by_pyjwt(payload: Any, *, secret: bytes = SECRET, algorithm: str = "HS256", **header: Any) -> str:
    return jwt.encode(payload, secret, algorithm=algorithm, headers={"kid": "one", **header})


def test_issued_token_reads_back_and_is_a_jwt_with_exactly_the_claims_of_the_contract() -> None:
    issued = claims()
    token = KEYS.sign(issued)
    assert KEYS.read(token) == issued
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "kid": "one", "typ": "JWT"}
    decoded = jwt.decode(token, SECRET, algorithms=["HS256"], options={"verify_exp": False, "verify_iat": False})
    assert decoded == plain(issued)
    assert list(decoded) == [
        *("typ", "v", "jti", "request_id", "kind", "ad_id", "store_id", "target_type", "target_id", "buyer_store_id"),
        *("placement", "cost_micros", "iat", "exp"),
    ]
    assert len(token) <= TOKEN_BYTES_MAX


def test_token_made_by_another_jwt_library_is_read_too() -> None:
    issued = claims()
    assert KEYS.read(by_pyjwt(plain(issued))) == issued
    assert KEYS.read(by_pyjwt(plain(issued), extra="x")) == issued, "another header, left to PyJWT"


def test_key_rotation_first_signs_all_verify() -> None:
    old = KEYS.sign(issued := claims())
    both = TokenKeys({"two": OTHER, "one": SECRET})
    assert both.read(old) == issued
    assert jwt.get_unverified_header(both.sign(issued))["kid"] == "two"
    with pytest.raises(InvalidToken):
        KEYS.read(both.sign(issued))


def unsigned(payload: dict[str, Any]) -> str:
    def segment(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{segment({'alg': 'none', 'kid': 'one', 'typ': 'JWT'})}.{segment(payload)}."


def bent(token: str) -> str:
    """The same token with one bit of its claims changed."""
    head, payload, signature = token.split(".")
    return f"{head}.{payload[:40]}{'A' if payload[40] != 'A' else 'B'}{payload[41:]}.{signature}"


FORGERIES = {
    "empty": "",
    "words": "not a token",
    "dots": "..",
    "no signature": KEYS.sign(claims()).rpartition(".")[0],
    "empty signature": KEYS.sign(claims()).rpartition(".")[0] + ".",
    "bent claims": bent(KEYS.sign(claims())),
    "four segments": KEYS.sign(claims()) + ".x",
    "not ascii": KEYS.sign(claims()) + "é",
    "alg none": unsigned(plain(claims())),
    "another secret": by_pyjwt(plain(claims()), secret=OTHER),
    "another algorithm": by_pyjwt(plain(claims()), secret=SECRET * 2, algorithm="HS512"),
    "unknown kid": by_pyjwt(plain(claims()), kid="two"),
    "no kid": jwt.encode(plain(claims()), SECRET, algorithm="HS256"),
    "oversized": by_pyjwt(plain(claims()), padding="x" * 1024),
    "access typ": by_pyjwt(plain(claims()) | {"typ": "access"}),
    "another version": by_pyjwt(plain(claims()) | {"v": 2}),
    "unknown claim": by_pyjwt(plain(claims()) | {"admin": True}),
    "claim missing": by_pyjwt({k: v for k, v in plain(claims()).items() if k != "cost_micros"}),
    "cost as text": by_pyjwt(plain(claims()) | {"cost_micros": "1"}),
    "negative cost": by_pyjwt(plain(claims()) | {"cost_micros": -1}),
    "huge cost": by_pyjwt(plain(claims()) | {"cost_micros": 1 << 32}),
    "fractional iat": by_pyjwt(plain(claims()) | {"iat": IAT + 0.5}),
    "unknown kind": by_pyjwt(plain(claims()) | {"kind": "view"}),
    "jti no uuid": by_pyjwt(plain(claims()) | {"jti": "1"}),
    "claims a list": jwt.PyJWS().encode(b"[]", SECRET, algorithm="HS256", headers={"kid": "one"}),
    "claims no json": jwt.PyJWS().encode(b"\xff", SECRET, algorithm="HS256", headers={"kid": "one"}),
}


@pytest.mark.parametrize("token", FORGERIES.values(), ids=FORGERIES.keys())
def test_forged_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidToken):
        KEYS.read(token)


def test_access_token_is_no_ad_token_and_the_other_way_round_even_under_one_key() -> None:
    access = AccessTokens({"one": SECRET}, ttl_s=900)
    with pytest.raises(InvalidToken):
        KEYS.read(access.sign(uuid4(), "session", "user", None, issued_at_s=IAT))
    with pytest.raises(Exception, match="access token is not valid"):
        access.verify(KEYS.sign(claims()), now_s=IAT)


@pytest.mark.parametrize(
    ("now_s", "counts"),
    [(IAT - SKEW_S, True), (IAT - SKEW_S - 0.1, False), (IAT + TTL_S, True), (IAT + TTL_S + 0.001, False)],
)
def test_token_counts_from_its_issue_less_skew_up_to_its_expiry(now_s: float, counts: bool) -> None:
    issued = claims()
    if counts:
        check_countable(issued, EventKind.IMPRESSION, now_s=now_s, ttl_s=TTL_S, skew_s=SKEW_S)
    else:
        with pytest.raises(InvalidToken):
            check_countable(issued, EventKind.IMPRESSION, now_s=now_s, ttl_s=TTL_S, skew_s=SKEW_S)


def test_token_of_the_other_kind_does_not_count() -> None:
    with pytest.raises(InvalidToken):
        check_kind(claims(kind=EventKind.CLICK), EventKind.IMPRESSION, now_s=IAT, skew_s=SKEW_S)


def test_life_longer_than_the_setting_is_cut_so_that_a_minute_can_close() -> None:
    assert counts_until(claims(exp=IAT + 10 * TTL_S), ttl_s=TTL_S) == IAT + TTL_S
    assert counts_until(claims(exp=IAT + 7), ttl_s=TTL_S) == IAT + 7


def test_ids_are_typed() -> None:
    assert isinstance(KEYS.read(KEYS.sign(claims())).jti, UUID)
