"""How much of what a certificate says is in it: rows of substances with numbers. Pure.

A row may have the percentage alone, milligrams a gram beside it, limits before it. The percentage is the number with a
`%`, else the one that has its tenfold beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, zip_longest
from typing import Any, Final

from models.drafts.rules import Found

PERCENT_MAX: Final = 100.0
THCA_TO_THC: Final = 0.877  #: by weight, when heat has taken the acid's group away
ALIKE: Final = 0.02  #: share by which rounded numbers may differ

_NUMBER: Final = re.compile(
    r"(?<![\w.,-])(\d{1,6}(?:\.\d{1,8})?)(?![\w.]*\d)\s*(%|mg ?/ ?g\b|ppm\b|[µu]g ?/ ?g\b)?", re.IGNORECASE
)
_NOTHING: Final = re.compile(r"(?<!\w)(?:nd|n/d|none? detected|not detected|blq|bql|< ?lo[qd])(?!\w)", re.IGNORECASE)
_PER_PERCENT: Final = {"mg/g": 10.0, "ppm": 10_000.0, "µg/g": 10_000.0, "ug/g": 10_000.0}

_DELTA: Final = r"(?:delta|[dδΔ∆])[ -]{0,3}"
_CANNABINOIDS: Final[Mapping[str, str]] = {
    "total_thc_percent": r"total (?:potential |active )?thc|max(?:imum)? (?:active )?thc",
    "total_cbd_percent": r"total (?:potential |active )?cbd|max(?:imum)? (?:active )?cbd",
    "total_cannabinoids_percent": r"total (?:active )?cannabinoids",
    "thca_percent": r"thc-?a|tetrahydrocannabinolic acid",
    "delta_9_thc_percent": rf"{_DELTA}9[ -]{{0,3}}(?:thc|tetrahydrocannabinol)",
    "delta_8_thc_percent": rf"{_DELTA}8[ -]{{0,3}}(?:thc|tetrahydrocannabinol)",
    "thcv_percent": r"thcv",
    "cbda_percent": r"cbd-?a",
    "cbdv_percent": r"cbdv",
    "cbga_percent": r"cbg-?a",
    "cbd_percent": r"cbd|cannabidiol",
    "cbg_percent": r"cbg|cannabigerol",
    "cbn_percent": r"cbn|cannabinol",
    "cbc_percent": r"cbc|cannabichromene",
    "thc_percent": r"thc",
}
_ALPHA_BETA: Final = r"(?P<greek>(?:alpha|beta|trans|[αβab])[ -])?"
_TERPENES: Final = (
    "myrcene|limonene|caryophyllene oxide|caryophyllene|linalool|pinene|humulene|terpinolene|ocimene|bisabolol|camphene"
    "|terpineol|nerolidol|eucalyptol|geraniol|guaiol|valencene|fenchol|borneol|farnesene|carene|terpinene|sabinene"
)
_GREEK: Final = {"α": "alpha", "a": "alpha", "alpha": "alpha", "β": "beta", "b": "beta", "beta": "beta"}

_CANNABINOID: Final = re.compile(
    rf"(?<![\w-])(?:{'|'.join(f'(?P<{name}>{words})' for name, words in _CANNABINOIDS.items())})(?![\w-])",
    re.IGNORECASE,
)
_TERPENE: Final = re.compile(rf"(?<![\w-]){_ALPHA_BETA}(?:d-)?(?P<name>{_TERPENES})(?!\w)", re.IGNORECASE)


def percent_in(text: str) -> tuple[float, float] | None:
    """The percentage that follows a substance's name, and how sure it is; None where there is none."""
    if _NOTHING.search(text):
        return 0.0, 0.9
    numbers = [(float(number), unit.lower().replace(" ", "")) for number, unit in _NUMBER.findall(text)]
    for number, unit in numbers:
        if unit == "%" and number <= PERCENT_MAX:
            return number, 0.95
    for (first, _), (second, _) in reversed(list(pairwise(numbers))):  # limits come first: the last pair is meant
        for small, large in ((first, second), (second, first)):
            if 0 < small <= PERCENT_MAX and abs(large - 10 * small) <= ALIKE * large:
                return small, 0.9
    for number, unit in numbers:
        if unit in _PER_PERCENT and number / _PER_PERCENT[unit] <= PERCENT_MAX:
            return round(number / _PER_PERCENT[unit], 6), 0.85
    plain = [number for number, unit in numbers if not unit and number <= PERCENT_MAX]
    return (plain[-1], 0.5 if len(plain) == 1 else 0.3) if plain else None


def _rows(lines: Sequence[str], substance: re.Pattern[str]) -> Iterator[tuple[re.Match[str], float, float]]:
    """Every substance of every line that has a percentage, up to the next substance."""
    for line in lines:
        if str(THCA_TO_THC) in line:
            continue  # a formula
        matches = list(substance.finditer(line))
        for match, following in zip_longest(matches, matches[1:]):
            measured = percent_in(line[match.end() : following.start() if following else len(line)])
            if measured is not None:
                yield match, *measured


def potency(lines: Sequence[str]) -> Found | None:
    """`{thca_percent, delta_9_thc_percent, total_thc_percent, cbd_percent, …}`: the surest row of each."""
    best: dict[str, tuple[float, float]] = {}
    for match, percent, sure in _rows(lines, _CANNABINOID):
        name = str(match.lastgroup)
        if name not in best or sure > best[name][1]:
            best[name] = percent, sure
    if not best:
        return None
    percents = {name: best[name][0] for name in _CANNABINOIDS if name in best}
    return Found(percents, _agreeing(percents, sum(sure for _, sure in best.values()) / len(best)))


def _agreeing(percents: Mapping[str, float], sure: float) -> float:
    """Surer when the total is that of its parts, less sure when it is not."""
    total, acid = percents.get("total_thc_percent"), percents.get("thca_percent")
    if total is None or acid is None:
        return sure
    free = percents.get("delta_9_thc_percent", percents.get("thc_percent", 0.0))
    expected = THCA_TO_THC * acid + free
    return max(sure, 0.98) if abs(expected - total) <= ALIKE * max(expected, total) + 0.02 else sure / 2


def terpenes(lines: Sequence[str]) -> Found | None:
    """`[{name, percent}]`, the strongest first; those that were looked for and not found are left out."""
    best: dict[str, tuple[float, float]] = {}
    for match, percent, sure in _rows(lines, _TERPENE):
        greek = _GREEK.get((match["greek"] or "").rstrip(" -").lower())
        name = f"{greek}-{match['name'].lower()}" if greek else match["name"].lower()
        if percent > 0 and (name not in best or sure > best[name][1]):
            best[name] = percent, sure
    if not best:
        return None
    found: list[dict[str, Any]] = [
        {"name": name, "percent": percent}
        for name, (percent, _) in sorted(best.items(), key=lambda one: (-one[1][0], one[0]))
    ]
    return Found(found, sum(sure for _, sure in best.values()) / len(best))
