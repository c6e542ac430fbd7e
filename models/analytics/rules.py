"""Timeframes of dashboards, and the arithmetic on top of what the warehouse sums up. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from models.errors import FieldError, ValidationFailed

DAYS_DEFAULT: Final = 30
DAYS_MAX: Final = 366
TOP: Final = 10  #: products, categories and ZIP codes that are listed
DAY: Final = timedelta(days=1)


class Interval(StrEnum):
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class Timeframe(NamedTuple):
    """UTC days, both included."""

    first: date
    last: date

    @property
    def start(self) -> datetime:
        """The first moment of it."""
        return datetime.combine(self.first, time(), UTC)

    @property
    def end(self) -> datetime:
        """The first moment behind it."""
        return datetime.combine(self.last + DAY, time(), UTC)

    def intervals(self, interval: Interval) -> Iterator[date]:
        """The first day of each interval that has a part in the timeframe, in order, empty ones too."""
        day = self.first
        while day <= self.last:
            begin = begin_of(day, interval)
            yield begin
            day = next_begin(begin, interval)


def timeframe(since: date | None, until: date | None, *, today: date) -> Timeframe:
    """The days asked for, by default the last 30; with one end given the other is today, or 30 days before.

    Raises ValidationFailed for a range that is reversed, over 366 days, or wholly in the future.
    """
    try:
        last = until or today
        first = since or last - (DAYS_DEFAULT - 1) * DAY
    except OverflowError:
        first = date.min
    if since is not None and since > today:
        raise _wrong("from", "range_in_future", f"{since} lies in the future: today is {today}")
    if first > last:
        raise _wrong("to", "range_reversed", f"the range ends on {last}, before it begins on {first}")
    if (last - first).days >= DAYS_MAX:
        raise _wrong(
            "from", "range_too_long", f"a range has at most {DAYS_MAX} days, this one {(last - first).days + 1}"
        )
    return Timeframe(first, last)


def _wrong(field: str, code: str, message: str) -> ValidationFailed:
    return ValidationFailed(message, errors=[FieldError(field, code, message)])


def begin_of(day: date, interval: Interval) -> date:
    """The first day of the interval that `day` is in: itself, its Monday, the first of its month."""
    match interval:
        case Interval.WEEK:
            return day - day.weekday() * DAY if day.toordinal() > day.weekday() else date.min
        case Interval.MONTH:
            return day.replace(day=1)
    return day


def next_begin(begin: date, interval: Interval) -> date:
    """Where the interval behind begins."""
    match interval:
        case Interval.WEEK:
            return begin + 7 * DAY
        case Interval.MONTH:
            return (begin + 31 * DAY).replace(day=1)
    return begin + DAY


def average_cents(total_cents: int, count: int) -> int:
    """Rounded half to even; 0 of nothing."""
    if not count:
        return 0
    whole, rest = divmod(total_cents, count)
    return whole + (2 * rest > count or (2 * rest == count and whole % 2 == 1))


def ratio(part: int, whole: int) -> float:
    """0 where there is nothing to divide by."""
    return part / whole if whole else 0.0
