"""Which ad tokens a cart keeps: signature, age and buyer, and the most recent of each target and kind."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import permutations
from typing import Any
from uuid import UUID

import msgspec
import pytest

from models.ads.rules import EventKind, Placement, TargetType
from models.ads.tokens import AdClaims, TokenKeys
from models.cart.attribution import Dropped, TokenRules, claims_of, plain, select
from models.database import new_id

BUYER, TARGET = UUID(int=1), UUID(int=2)
IAT, TTL_S, SKEW_S = 1_800_000_000, 30 * 86_400, 5
KEYS = TokenKeys({"one": b"a" * 32, "two": b"b" * 32})
STRANGER = TokenKeys({"one": b"c" * 32})
RULES = TokenRules(KEYS, TTL_S, SKEW_S)


def claims(**changes: Any) -> AdClaims:
    fields: dict[str, Any] = {
        "typ": "ad",
        "v": 1,
        "jti": new_id(),
        "request_id": new_id(),
        "kind": EventKind.CLICK,
        "ad_id": new_id(),
        "store_id": new_id(),
        "target_type": TargetType.PRODUCT,
        "target_id": TARGET,
        "buyer_store_id": BUYER,
        "placement": Placement.CATEGORY,
        "cost_micros": 0,
        "iat": IAT,
        "exp": IAT + 1800,
    }
    return AdClaims(**(fields | changes))


def token(**changes: Any) -> str:
    return KEYS.sign(claims(**changes))


def chosen(*tokens: str, now_s: float = IAT) -> tuple[list[str], dict[Dropped, int]]:
    kept, dropped = select(tokens, RULES, buyer_store_id=BUYER, now=datetime.fromtimestamp(now_s, UTC))
    return [one.token for one in kept], dict(dropped)


@pytest.mark.parametrize(("age_s", "kept"), [(-6, False), (-5, True), (1801, True), (TTL_S, True), (TTL_S + 1, False)])
def test_a_token_lives_thirty_days_from_its_issue_whatever_its_exp(age_s: int, kept: bool) -> None:
    one = token()
    expected = [] if kept else [Dropped.FUTURE if age_s < 0 else Dropped.EXPIRED]
    assert chosen(one, now_s=IAT + age_s) == ([one] if kept else [], dict.fromkeys(expected, 1))


def test_bad_tokens_are_dropped_and_the_good_one_beside_them_is_kept() -> None:
    good = token()
    bad = ["", "x", "a.b.c", "é" * 10, "\0", "x" * 2_000, good[:-1], STRANGER.sign(claims()), good.replace(".", "")]
    assert chosen(*bad, good) == ([good], {Dropped.INVALID: len(bad)})


def test_another_buyers_token_is_dropped() -> None:
    assert chosen(token(buyer_store_id=UUID(int=3))) == ([], {Dropped.OTHER_BUYER: 1})


def test_a_token_sent_twice_is_kept_once() -> None:
    one = token()
    assert chosen(one, one) == ([one], {})
    by_the_second_key = TokenKeys({"two": b"b" * 32}).sign(KEYS.read(one))
    assert chosen(one, by_the_second_key) == ([one], {Dropped.REPEATED: 1})


def test_of_each_target_and_kind_the_most_recent_is_kept_then_the_smallest_jti_in_any_order() -> None:
    first, second = sorted(new_id() for _ in range(2))
    rivals = [token(iat=IAT - 9, jti=UUID(int=0)), token(jti=second), token(jti=first)]
    for order in permutations(rivals):
        assert chosen(*order) == ([rivals[2]], {Dropped.OLDER: 2})


def test_other_kinds_and_other_targets_are_no_rivals() -> None:
    apart = [
        token(),
        token(kind=EventKind.IMPRESSION),
        token(target_id=UUID(int=9)),
        token(target_type=TargetType.STORE),
    ]
    assert chosen(*apart) == (apart, {})


def test_claims_come_back_from_json() -> None:
    one = claims()
    assert claims_of(msgspec.json.decode(msgspec.json.encode(plain(one)))) == one
