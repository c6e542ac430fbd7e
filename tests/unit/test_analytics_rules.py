"""Timeframes of dashboards: what is refused, where intervals begin, how averages round."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.analytics.rules import Interval, Timeframe, average_cents, ratio, timeframe
from models.errors import ValidationFailed

TODAY = date(2026, 5, 20)


def day(text: str) -> date:
    return date.fromisoformat(text)


def test_without_a_range_it_is_the_last_thirty_days_today_included() -> None:
    frame = timeframe(None, None, today=TODAY)
    assert frame == (day("2026-04-21"), TODAY)
    assert (frame.start, frame.end) == (datetime(2026, 4, 21, tzinfo=UTC), datetime(2026, 5, 21, tzinfo=UTC))
    assert timeframe(None, day("2026-03-30"), today=TODAY) == (day("2026-03-01"), day("2026-03-30"))
    assert timeframe(day("2026-05-20"), None, today=TODAY) == (TODAY, TODAY)
    assert timeframe(day("2026-05-19"), day("2026-05-31"), today=TODAY).last == day("2026-05-31")


@pytest.mark.parametrize(
    ("since", "until", "code"),
    [
        ("2026-05-02", "2026-05-01", "range_reversed"),
        ("2025-05-20", "2026-05-21", "range_too_long"),
        ("2016-05-20", "2026-05-20", "range_too_long"),
        ("2025-01-01", None, "range_too_long"),
        ("0001-01-01", "9999-12-31", "range_too_long"),
        ("2026-05-21", None, "range_in_future"),
        ("2030-01-01", "2030-01-31", "range_in_future"),
        ("9999-12-31", "0001-01-01", "range_in_future"),
    ],
)
def test_ranges_that_make_no_sense_are_refused(since: str, until: str | None, code: str) -> None:
    with pytest.raises(ValidationFailed) as caught:
        timeframe(day(since), day(until) if until else None, today=TODAY)
    assert [error.code for error in caught.value.errors] == [code]


def test_a_leap_year_whole_is_a_range_and_the_first_days_of_time_are() -> None:
    assert timeframe(day("2024-01-01"), day("2024-12-31"), today=TODAY).first == day("2024-01-01")
    assert timeframe(None, day("0001-01-05"), today=TODAY).first == date.min
    frame = timeframe(None, day("0001-01-05"), today=TODAY)
    assert list(frame.intervals(Interval.WEEK)) == [date.min]


@given(st.dates(day("1990-01-01"), day("2100-01-01")), st.integers(0, 365), st.sampled_from(Interval))
def test_each_day_is_in_exactly_one_interval(first: date, days: int, interval: Interval) -> None:
    frame = Timeframe(first, first + timedelta(days=days))
    begins = list(frame.intervals(interval))
    assert begins == sorted(set(begins))
    assert begins[0] <= first
    assert begins[-1] <= frame.last
    if interval is Interval.WEEK:
        assert {begin.isoweekday() for begin in begins} == {1}
        assert begins[0] > first - timedelta(days=7)
    if interval is Interval.MONTH:
        assert {begin.day for begin in begins} == {1}
    if interval is Interval.DAY:
        assert len(begins) == days + 1


@given(st.integers(0, 10**9), st.integers(1, 10**5))
def test_averages_round_half_to_even(total: int, count: int) -> None:
    assert average_cents(total, count) == round(Fraction(total, count))


def test_nothing_is_divided_by_nothing() -> None:
    assert (average_cents(0, 0), ratio(5, 0), ratio(1, 4)) == (0, 0.0, 0.25)
