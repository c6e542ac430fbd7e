"""Measured values, their medians and ratios, as JSON and as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ops.bench.targets import TARGETS, Target

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """How a bench is to run. `quick`: as small as shows that it works; the numbers mean nothing then."""

    quick: bool
    say: Say


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the report: the values of a measure, a round each, and their ratio to a reference of the same run."""

    name: str
    unit: str
    rounds: int
    values: tuple[float, ...]
    reference: str  #: the result's name that `ratio` is over; empty: none
    ratio: float | None
    target: str
    met: bool | None  #: None: nothing was asked for
    note: str

    @property
    def median(self) -> float:
        """The value that counts."""
        return median(self.values)


class Rounds:
    """What the rounds of one bench measured, by the measure's name."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}
        self._units: dict[str, str] = {}

    def add(self, name: str, value: float, unit: str) -> None:
        """Keep the value of one more round."""
        self._values.setdefault(name, []).append(value)
        self._units[name] = unit

    def last(self, name: str) -> float:
        """What the round before measured."""
        return self._values[name][-1]

    def result(self, name: str, *, against: str = "", note: str = "") -> Result:
        """The line of a measure, with its ratio to the measure `against` where one is named."""
        values = self._values[name]
        ratio = _ratio(values, self._values[against]) if against else None
        target = TARGETS.get((name, against))
        found = median(values) if ratio is None else ratio
        return Result(
            name=name,
            unit=self._units[name],
            rounds=len(values),
            values=tuple(values),
            reference=against,
            ratio=ratio,
            target="" if target is None else str(target),
            met=None if target is None else target.met(found),
            note=_missed(target, found, note),
        )


def _ratio(values: Sequence[float], references: Sequence[float]) -> float:
    """The median of the rounds' own ratios; of the medians when one side has more rounds."""
    if len(values) != len(references):
        return median(values) / median(references)
    return median([value / reference for value, reference in zip(values, references, strict=True)])


def _missed(target: Target | None, found: float, note: str) -> str:
    if target is None or target.met(found):
        return note
    return "; ".join(filter(None, (f"missed by {target.missed_by(found):.0%}", note)))


def to_json(results: Iterable[Result]) -> list[dict[str, Any]]:
    """The results as plain values."""
    return [asdict(result) | {"median": result.median} for result in results]


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


MARKS: Final = {True: "yes", False: "NO", None: ""}
HEADINGS: Final = ("measure", "median", "lowest … highest", "unit", "against", "ratio", "target", "met", "")
RIGHT: Final = ("median", "lowest … highest", "ratio")


def to_table(results: Iterable[Result]) -> Table:
    """A table for people: medians, with the lowest and highest round behind them."""
    table = Table(title="packstream bench", title_justify="left", box=SIMPLE_HEAD)
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading in RIGHT else "left", no_wrap=True)
    for result in results:
        table.add_row(
            result.name,
            _number(result.median),
            f"{_number(min(result.values))} … {_number(max(result.values))}",
            result.unit,
            result.reference,
            "" if result.ratio is None else f"{result.ratio:.2f}x",
            result.target,
            MARKS[result.met],
            result.note,
        )
    return table


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
