"""Micros become cents once, half to even."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.ads.rules import MICROS_PER_CENT, charge_cents


@given(st.integers(0, 2**63))
def test_charges_round_as_decimals_do(micros: int) -> None:
    assert charge_cents(micros) == int((Decimal(micros) / MICROS_PER_CENT).quantize(Decimal(1), ROUND_HALF_EVEN))


@given(st.integers(0, 10**12), st.sampled_from([-1, 0, 1]))
def test_the_middle_between_two_cents_goes_to_the_even_one(cents: int, off: int) -> None:
    micros = cents * MICROS_PER_CENT + MICROS_PER_CENT // 2 + off
    assert charge_cents(micros) == (cents + (off > 0) if off else cents + cents % 2)


@pytest.mark.parametrize(("micros", "cents"), [(0, 0), (5_000, 0), (5_001, 1), (15_000, 2), (25_000, 2), (9_999, 1)])
def test_examples(micros: int, cents: int) -> None:
    assert charge_cents(micros) == cents
