"""The parser of certificates: what it finds in texts of several laboratories, and that no text is too much for it."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.drafts import coa, days, measures
from models.drafts.rules import FIELDS
from tests.media_samples import CERTIFICATE

GRID = """\
CERTIFICATE OF ANALYSIS
Pacific Coast Laboratories
Lic# C8-0000019-LIC
Strain: Gelato #33      Matrix: Concentrate - Live Rosin
Lot No. 23-0711/B
Sampling Date: Jan 3, 2026   Report Date: January 9, 2026
Pesticides Microbials Mycotoxins Residual Solvents
PASS PASS FAIL NT
Analyte LOD LOQ mg/g %
THC-A 0.03 0.10 712.30 71.23
Δ9-THC 0.03 0.10 38.10 3.81
CBD-A 0.03 0.10 ND ND
Total THC = THCa x 0.877 + d9-THC
α-Pinene 1.20 mg/g
β-Caryophyllene 5,400 ppm 0.54%
Batch Size: 12 lb
FAIL"""

PROSE = """\
Tested by: Cascade Analytical
Sample: Hybrid Gummies 10 pack
Type: Edible, infused
Lot: GUM7
Total THC 0.35% CBD 0.02%
Heavy metals: passed. Water activity: pass. Foreign material: none detected
Expiration Date 12/31/2027"""


def test_a_certificate_with_labels_is_read_whole() -> None:
    reading = coa.read(CERTIFICATE)
    assert reading.fields == {
        "title": "Blue Dream 3.5 g",
        "labs": [{"name": "Green Leaf Analytics, LLC", "license": "C8-0000042-LIC"}],
        "batch": "BD-2026-014",
        "potency": {
            "total_thc_percent": 21.66,
            "thca_percent": 24.1,
            "delta_9_thc_percent": 0.52,
            "cbd_percent": 0.0,
        },
        "terpenes": [{"name": "beta-myrcene", "percent": 0.45}, {"name": "limonene", "percent": 0.31}],
        "contaminants": {"pesticides": "pass", "heavy_metals": "pass", "microbials": "pass"},
        "result": "pass",
        "dates": {
            "sampled_on": "2026-01-10",
            "received_on": "2026-01-11",
            "reported_on": "2026-01-15",
            "expires_on": "2027-01-15",
        },
    }
    assert reading.confidence.keys() == reading.fields.keys()
    assert reading.confidence["potency"] == 0.98, "the total is that of its parts"
    assert reading.confidence["batch"] == 0.95


def test_a_certificate_of_grids_is_read_whole() -> None:
    fields = coa.read(GRID).fields
    assert fields["title"] == "Gelato #33"
    assert fields["category"] == "concentrate"
    assert fields["labs"] == [{"name": "Pacific Coast Laboratories", "license": "C8-0000019-LIC"}]
    assert fields["batch"] == "23-0711/B"
    assert fields["dates"] == {"sampled_on": "2026-01-03", "reported_on": "2026-01-09"}
    assert fields["potency"] == {"thca_percent": 71.23, "delta_9_thc_percent": 3.81, "cbda_percent": 0.0}
    assert fields["terpenes"] == [
        {"name": "beta-caryophyllene", "percent": 0.54},
        {"name": "alpha-pinene", "percent": 0.12},
    ]
    assert fields["contaminants"] == {
        "pesticides": "pass",
        "microbials": "pass",
        "mycotoxins": "fail",
        "residual_solvents": "not_tested",
    }
    assert fields["result"] == "fail"


def test_a_certificate_in_few_words_is_read_less_surely() -> None:
    reading = coa.read(PROSE)
    assert reading.fields == {
        "title": "Hybrid Gummies 10 pack",
        "category": "edible",
        "labs": [{"name": "Cascade Analytical", "license": None}],
        "batch": "GUM7",
        "potency": {"total_thc_percent": 0.35, "cbd_percent": 0.02},
        "contaminants": {"heavy_metals": "pass", "water_activity": "pass", "foreign_material": "pass"},
        "result": "pass",
        "dates": {"expires_on": "2027-12-31"},
    }
    assert reading.confidence["result"] < 0.7 < coa.read(CERTIFICATE).confidence["result"]


def test_a_total_that_is_not_that_of_its_parts_is_less_sure() -> None:
    right = coa.read("THCa 20.0%\nDelta-9 THC 1.0%\nTotal THC 18.54%").confidence["potency"]
    wrong = coa.read("THCa 20.0%\nDelta-9 THC 1.0%\nTotal THC 81.54%").confidence["potency"]
    assert wrong < 0.5 < right


def test_a_pass_beside_a_failed_test_is_less_sure() -> None:
    reading = coa.read("Pesticides FAIL\nMicrobials PASS\nOverall result: PASS")
    assert (reading.fields["result"], reading.confidence["result"]) == ("pass", 0.4)


@pytest.mark.parametrize(
    ("row", "percent"),
    [
        (" 22.10%", 22.1),
        (" 22.10 % 221.0 mg/g", 22.1),
        (" 221.0 22.10", 22.1),
        (" 0.01 0.1 22.1 221", 22.1),
        (" 221 mg/g", 22.1),
        (" 4500 ppm", 0.45),
        (" ND", 0.0),
        (" < LOQ <LOQ", 0.0),
        (" 0.001 0.01 ND ND", 0.0),
        (" 22.1", 22.1),
    ],
)
def test_the_percentage_of_a_row_is_told_from_its_other_numbers(row: str, percent: float) -> None:
    found = measures.percent_in(row)
    assert found is not None
    assert found[0] == pytest.approx(percent)


@pytest.mark.parametrize("row", ["", " 500", " see note", " 101 %"])
def test_a_row_without_a_percentage_has_none(row: str) -> None:
    assert measures.percent_in(row) is None


@given(
    st.dates(date(2001, 1, 1), date(2098, 12, 30)), st.sampled_from(["%Y-%m-%d", "%m/%d/%Y", "%b %d, %Y", "%d-%b-%Y"])
)
def test_days_are_read_in_each_way_they_are_written(day: date, form: str) -> None:
    line = f"Date Sampled: {day.strftime(form)} Expires: {(day + timedelta(1)).strftime(form)}"
    found = days.dates([line])
    assert found is not None
    assert found.value == {"sampled_on": day.isoformat(), "expires_on": (day + timedelta(1)).isoformat()}


@pytest.mark.parametrize("text", ["2026-02-30", "13/13/2026", "00/10/2026", "1/2/3", "2026-1", "Foo 3, 2026"])
def test_what_is_no_day_is_none(text: str) -> None:
    assert days.days_in(f"Date Sampled: {text}") == []


OWN_WORDS = """Batch # : Lot THCa CBD % mg/g ND <LOQ 0.877 22.1 221 1e9 PASS FAIL Pesticides Overall result Lab Date
Expires 01/02/2026 2026-13-01 ٣٫٣ Δ9-THC β- Myrcene Limonene Matrix: Flower License Total THC"""
WORDS = st.sampled_from([*OWN_WORDS.split(), "\n", "\0"])


def check(reading: Any) -> None:
    assert reading.fields.keys() == reading.confidence.keys()
    assert set(FIELDS).issuperset(reading.fields)
    assert all(0 <= sure <= 1 for sure in reading.confidence.values())


@settings(max_examples=150)
@given(st.text(max_size=2000))
def test_no_text_is_too_much(text: str) -> None:
    check(coa.read(text))


@settings(max_examples=150)
@given(st.lists(WORDS, max_size=60).map(" ".join))
def test_no_heap_of_its_own_words_is_too_much(text: str) -> None:
    reading = coa.read(text)
    check(reading)
    assert coa.read(text) == reading


@pytest.mark.parametrize("word", ["total thc ", "9", "batch ", "1.1 ", "thca 3 ", "pesticides ", "a:", "lab: ", " "])
def test_long_texts_take_no_longer_than_they_should(word: str) -> None:
    check(coa.read(word * 100_000))
    check(coa.read((word * 30 + "\n") * 8_000))
