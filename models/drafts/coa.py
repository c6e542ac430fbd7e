"""Reads the text of a certificate of analysis: labels, rows of tables, dates. Pure, and never at a loss.

Certificates have no common form, so each field is looked for by itself, in lines: a label and what follows it, or a row
that begins with a substance. Work is bounded by the text's length; whatever the text, there is a Reading.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import zip_longest
from typing import Final

from models.drafts import measures
from models.drafts.days import dates
from models.drafts.rules import Found, Reading, reading_of

CHARS_MAX: Final = 200_000
LINES_MAX: Final = 5_000
LINE_CHARS_MAX: Final = 400
HEAD_LINES: Final = 15  #: where a laboratory names itself
NAME_CHARS_MAX: Final = 120

Lines = Sequence[str]


def read(text: str) -> Reading:
    """What the certificate says."""
    lines = split(text)
    contaminants = tests_of(lines)
    return reading_of(
        {
            "title": title(lines),
            "category": category(lines),
            "labs": labs(lines),
            "batch": batch(lines),
            "potency": measures.potency(lines),
            "terpenes": measures.terpenes(lines),
            "contaminants": contaminants,
            "result": result(lines, contaminants),
            "dates": dates(lines),
        }
    )


def split(text: str) -> list[str]:
    """Lines with single blanks, none empty; as many, and as much of each, as is looked at."""
    lines = (" ".join(line[: 4 * LINE_CHARS_MAX].split())[:LINE_CHARS_MAX] for line in text[:CHARS_MAX].splitlines())
    return [line for line in lines if line][:LINES_MAX]


# -- names ------------------------------------------------------------------------------------------------------------

_NEXT_LABEL: Final = re.compile(
    r"\s(?:batch|lot|date|sample|sampled|strain|matrix|licen[cs]e|lic|received|reported|expires?|type|category|client"
    r"|produced|address|phone|iso|metrc)\b[^:]{0,20}:",
    re.IGNORECASE,
)
_TITLE: Final = re.compile(
    r"\b(?P<label>product(?: name)?|sample(?: name)?|strain(?: name)?|item(?: name)?) ?: ?(?P<value>\S.*)",
    re.IGNORECASE,
)
_MATRIX: Final = re.compile(
    r"\b(?:matrix|sample type|product type|type|category|form) ?: ?(?P<value>\S.{0,60})", re.IGNORECASE
)
_CATEGORIES: Final = (
    ("preroll", r"pre-?\s?rolls?|joints?"),
    ("vape", r"vapes?|cartridges?|vaporizer"),
    ("concentrate", r"concentrates?|extracts?|rosin|resin|wax|shatter|hash|distillate|kief"),
    ("beverage", r"beverages?|drinks?|sodas?"),
    ("edible", r"edibles?|gumm(?:y|ies)|chocolates?|candy|infused|cookies?"),
    ("tincture", r"tinctures?|sublinguals?"),
    ("topical", r"topicals?|creams?|lotions?|balms?|salves?"),
    ("seed", r"seeds?"),
    ("flower", r"flowers?|buds?|plant|inhalable"),
)


def title(lines: Lines) -> Found | None:
    """What the product is called."""
    best: Found | None = None
    for line in lines:
        match = _TITLE.search(line)
        if match is None:
            continue
        name = _cut(match["value"])
        sure = 0.9 if match["label"].lower().startswith(("product", "sample name", "strain")) else 0.7
        if name and (best is None or sure > best.confidence):
            best = Found(name, sure)
    return best


def _cut(value: str) -> str:
    """A value without the label that follows it on the same line."""
    following = _NEXT_LABEL.search(value)
    return (value[: following.start()] if following else value).strip(" :;,-")[:NAME_CHARS_MAX]


def category(lines: Lines) -> Found | None:
    """One of the catalogue's, by what the certificate calls the matrix."""
    for line in lines:
        for match in _MATRIX.finditer(line):
            for name, words in _CATEGORIES:
                if re.search(rf"\b(?:{words})\b", match["value"], re.IGNORECASE):
                    return Found(name, 0.8)
    return None


_LAB_LABEL: Final = re.compile(
    r"\b(?:(?:testing )?lab(?:oratory)?(?: name)?|(?:tested|analy[sz]ed|prepared|issued) by) ?: ?(?P<value>[A-Z].*)",
    re.IGNORECASE,
)
_LAB_WORD: Final = re.compile(
    r"\b(?:labs?|laborator(?:y|ies)|analytics|analytical|testing|bioscience)\b", re.IGNORECASE
)
_NO_LAB: Final = re.compile(
    r"certificate|director|manager|technician|results?\b|report|method|sample|page \d|accredit|iso/?iec|www\.|@|:",
    re.IGNORECASE,
)
_LICENSE: Final = re.compile(
    r"\blic(?:en[cs]e)?\.? ?(?:#|no\.?|number)? ?[:#]? ?(?P<value>[A-Z0-9][A-Z0-9-]*\d[A-Z0-9-]*)", re.IGNORECASE
)


def labs(lines: Lines) -> Found | None:
    """Who tested it: `[{name, license}]`."""
    for number, line in enumerate(lines):
        match = _LAB_LABEL.search(line)
        if match is not None and (name := _cut(match["value"])):
            return Found([{"name": name, "license": _license(lines[number : number + 3])}], 0.95)
    for number, line in enumerate(lines[:HEAD_LINES]):
        if _LAB_WORD.search(line) and not _NO_LAB.search(line) and len(line.split()) <= 8:
            return Found([{"name": line[:NAME_CHARS_MAX], "license": _license(lines[number : number + 3])}], 0.7)
    return None


def _license(lines: Lines) -> str | None:
    match = next(filter(None, map(_LICENSE.search, lines)), None)
    return match["value"][:40] if match else None


_BATCH: Final = re.compile(
    r"\b(?:batch|lot)\b ?(?P<mark>(?:#|no\b\.?|number|num\b|id\b|code)? ?[:#]?) ?(?P<value>[A-Z0-9][A-Z0-9._/-]{1,40})",
    re.IGNORECASE,
)


def batch(lines: Lines) -> Found | None:
    """The batch or lot that was tested."""
    best: Found | None = None
    for line in lines:
        for match in _BATCH.finditer(line):
            value = match["value"].rstrip("./-")
            if not any(char.isdigit() for char in value):
                continue  # "Batch Size", "Batch Date"
            sure = 0.95 if match["mark"].strip() else 0.6
            if best is None or sure > best.confidence:
                best = Found(value, sure)
    return best


# -- contaminants and the result --------------------------------------------------------------------------------------

_TESTS: Final = re.compile(
    r"\b(?:(?P<pesticides>pesticides?)|(?P<heavy_metals>heavy metals?)"
    r"|(?P<microbials>microbials?|microbiolog(?:y|icals?))|(?P<mycotoxins>mycotoxins?)"
    r"|(?P<residual_solvents>(?:residual )?solvents?)"
    r"|(?P<foreign_material>foreign (?:material|matter)s?|filth)|(?P<moisture>moisture(?: content)?)"
    r"|(?P<water_activity>water activity))\b",
    re.IGNORECASE,
)
_VERDICT: Final = re.compile(
    r"\b(?:(?P<untested>not tested|n/t|nt)|(?P<passed>pass(?:ed|es)?|not detected|none detected|absent)"
    r"|(?P<failed>fail(?:ed|s)?|detected above))\b",
    re.IGNORECASE,
)
_OVERALL: Final = re.compile(
    r"\b(?:(?:overall|final|batch|sample|test|compliance|regulatory)\b.{0,20}?"
    r"\b(?:results?|status|disposition|conclusion|outcome)|overall|final result|batch status)\b[^A-Za-z]{0,6}"
    r"(?:\b(?:is|has|the|sample|batch)\b ?){0,3}(?P<verdict>pass|fail)",
    re.IGNORECASE,
)
_ALONE: Final = re.compile(r"(?:batch |sample )?(?P<verdict>pass|fail)(?:ed)?[.!]?", re.IGNORECASE)


def tests_of(lines: Lines) -> Found | None:
    """`{group: pass|fail|not_tested}` of the groups of contaminants that have a verdict."""
    verdicts: dict[str, str] = {}
    for line, following in zip_longest(lines, lines[1:], fillvalue=""):
        for group, verdict in _row(line, following):
            if verdicts.get(group) != "fail":  # one failed line fails the group
                verdicts[group] = verdict
    return Found(verdicts, 0.9 if len(verdicts) > 1 else 0.7) if verdicts else None


def _row(line: str, following: str) -> list[tuple[str, str]]:
    """Groups with their verdicts: beside them, or in the same order on the line below."""
    groups = list(_TESTS.finditer(line))
    if not groups:
        return []
    ends = [*(group.start() for group in groups[1:]), len(line)]
    beside = [_VERDICT.search(line[group.end() : end]) for group, end in zip(groups, ends, strict=True)]
    if not any(beside):
        below = list(_VERDICT.finditer(following))
        if len(below) != len(groups) or _TESTS.search(following):
            return []
        return [(str(group.lastgroup), _verdict(one)) for group, one in zip(groups, below, strict=True)]
    return [(str(group.lastgroup), _verdict(one)) for group, one in zip(groups, beside, strict=True) if one]


def _verdict(match: re.Match[str]) -> str:
    return {"passed": "pass", "failed": "fail"}.get(str(match.lastgroup), "not_tested")


def result(lines: Lines, contaminants: Found | None) -> Found | None:
    """Whether the batch passed: as it is said, else as its groups of contaminants have it."""
    failed = contaminants is not None and "fail" in contaminants.value.values()
    said, sure = next(((m["verdict"], 0.95) for line in lines if (m := _OVERALL.search(line))), (None, 0.0))
    if said is None:
        said, sure = next(((m["verdict"], 0.7) for line in lines if (m := _ALONE.fullmatch(line))), (None, 0.0))
    if said is not None:
        said = said.lower()
        return Found(said, sure if (said == "fail") == failed or not contaminants else 0.4)
    if contaminants is None:
        return None
    passes = list(contaminants.value.values()).count("pass")
    return Found("fail", 0.9) if failed else Found("pass", 0.6) if passes > 1 else None
