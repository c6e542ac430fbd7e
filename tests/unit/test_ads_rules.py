"""The status machine of ads and the arithmetic of their money."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.ads import rules
from models.ads.rules import AdStatus, NoAdReason
from models.errors import StateConflict

D, A, P, X = AdStatus.DRAFT, AdStatus.ACTIVE, AdStatus.PAUSED, AdStatus.ARCHIVED
ALLOWED = {(D, D), (D, A), (D, X), (A, A), (A, P), (A, X), (P, P), (P, A), (P, X), (X, X)}


@pytest.mark.parametrize("current", AdStatus)
@pytest.mark.parametrize("wanted", AdStatus)
def test_status_machine(current: AdStatus, wanted: AdStatus) -> None:
    if (current, wanted) in ALLOWED:
        assert rules.next_status(current, wanted) is wanted
    else:
        with pytest.raises(StateConflict):
            rules.next_status(current, wanted)


@pytest.mark.parametrize(
    ("current", "wanted", "field", "allowed"),
    [
        (D, D, "placement", True),
        (P, P, "target_type", True),
        (P, A, "placement", True),
        (A, P, "placement", True),
        (A, A, "bid_cpm_cents", True),
        (A, A, "placement", False),
        (A, A, "target_product_id", False),
        (X, X, "name", False),
    ],
)
def test_what_may_change_in_which_state(current: AdStatus, wanted: AdStatus, field: str, allowed: bool) -> None:
    if allowed:
        rules.check_change(current, wanted, {field})
    else:
        with pytest.raises(StateConflict):
            rules.check_change(current, wanted, {field})


@given(st.integers(0, 10**15))
def test_charge_rounds_half_to_even(micros: int) -> None:
    assert rules.charge_cents(micros) == round(Fraction(micros, rules.MICROS_PER_CENT))


def test_reason_for_no_ad_names_a_closed_gate_before_an_exhausted_budget() -> None:
    assert rules.no_ad_reason(["budget_exhausted", "gate_closed"]) is NoAdReason.GATE_CLOSED
    assert rules.no_ad_reason(["budget_exhausted"]) is NoAdReason.BUDGET_EXHAUSTED
    assert rules.no_ad_reason([]) is NoAdReason.NO_CANDIDATES


def test_dearest_bid_fits_the_smallest_budget_and_a_column_of_32_bits() -> None:
    assert rules.impression_cost_micros(100_000) == 1_000_000 == rules.budget_micros(100)
