"""Dates on certificates: a label and a day near it, in the ways that Americans write days. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from typing import Final, NamedTuple

from models.drafts.rules import Found

NEAR_CHARS: Final = 24  #: between a label and its day
MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH: Final = "|".join(MONTHS)

_DAY: Final = re.compile(
    r"(?<!\d)(?:(?P<y>20\d\d)[-/](?P<m>\d{1,2})[-/](?P<d>\d{1,2})"
    r"|(?P<us_m>\d{1,2})[-/.](?P<us_d>\d{1,2})[-/.](?P<us_y>20\d\d|\d\d)"
    rf"|(?P<name>{_MONTH})[a-z]{{0,6}}\.? (?P<n_d>\d{{1,2}})(?:st|nd|rd|th)?,? (?P<n_y>20\d\d)"
    rf"|(?P<e_d>\d{{1,2}})[- ](?P<e_name>{_MONTH})[a-z]{{0,6}}\.?,?[- ](?P<e_y>20\d\d))(?!\d)",
    re.IGNORECASE,
)
_LABELS: Final = re.compile(
    r"\b(?:(?P<sampled_on>sampled|sample date|sampling date|collected|collection date)"
    r"|(?P<received_on>received|receipt date)"
    r"|(?P<tested_on>tested|test date|analy[sz]ed|analysis date|date of analysis)"
    r"|(?P<reported_on>reported|report date|date of report|issued|issue date|completed|published|report created)"
    r"|(?P<expires_on>expir(?:es|y|ation)(?: date)?|exp\.? date|best by|use by)"
    r"|(?P<harvested_on>harvested|harvest date)"
    r"|(?P<made_on>manufactured|manufactur(?:e|ing) date|produced|production date|packaged|packaging date))\b",
    re.IGNORECASE,
)


class Day(NamedTuple):
    """A day; one that could be read in two ways is less sure."""

    day: date
    sure: float
    start: int


def days_in(line: str) -> list[Day]:
    """The days of a line, in their order; what is no day of any month is none."""
    return [found for match in _DAY.finditer(line) if (found := _day(match)) is not None]


def _day(match: re.Match[str]) -> Day | None:
    part = match.groupdict()
    if part["y"]:
        return _made(match, part["y"], part["m"], part["d"], 0.95)
    if part["name"]:
        return _made(match, part["n_y"], _number(part["name"]), part["n_d"], 0.95)
    if part["e_name"]:
        return _made(match, part["e_y"], _number(part["e_name"]), part["e_d"], 0.95)
    month, day = int(part["us_m"]), int(part["us_d"])
    year = part["us_y"] if len(part["us_y"]) == 4 else f"20{part['us_y']}"
    return _made(match, year, month, day, 0.9 if day > 12 or day == month else 0.8)


def _number(month: str) -> int:
    return MONTHS.index(month[:3].lower()) + 1


def _made(match: re.Match[str], year: str, month: str | int, day: str | int, sure: float) -> Day | None:
    try:
        return Day(date(int(year), int(month), int(day)), sure, match.start())
    except ValueError:
        return None


def dates(lines: Sequence[str]) -> Found | None:
    """`{sampled_on, received_on, tested_on, reported_on, expires_on, harvested_on, made_on}`, those that are there."""
    found: dict[str, Day] = {}
    for line in lines:
        days = days_in(line)
        for label in _LABELS.finditer(line) if days else ():
            after = [day for day in days if 0 <= day.start - label.end() <= NEAR_CHARS]
            if after and str(label.lastgroup) not in found:
                found[str(label.lastgroup)] = after[0]
    if not found:
        return None
    sure = sum(day.sure for day in found.values()) / len(found)
    if not _in_order(found):
        sure /= 2
    return Found({name: day.day.isoformat() for name, day in found.items()}, sure)


def _in_order(found: dict[str, Day]) -> bool:
    """Nothing is tested before it is made, nor reported before it is received."""
    order = ("harvested_on", "made_on", "sampled_on", "received_on", "reported_on", "expires_on")
    there = [found[name].day for name in order if name in found]
    return there == sorted(there)
