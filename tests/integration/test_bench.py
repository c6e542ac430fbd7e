"""Every bench runs in its quick form and yields results of the shape that the report promises; none is timed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ops.bench.catalogue import BENCHES
from ops.bench.results import Rounds, to_json
from ops.bench.targets import TARGETS
from ops.cli.bench import bench

KEYS = {"name", "unit", "rounds", "values", "reference", "ratio", "target", "met", "note", "median"}
EXPECTED = {
    "worker": {"worker", "aiokafka + dict, dedupe", "quix streams, dedupe", "kafka streams at-least-once, dedupe"},
    "recovery": {"recovery: cold loading", "recovery: planned hand-over", "recovery: raw read of the changelog"},
    "routes": {"no-op route", "routes: serve", "routes: impression", "routes: impression, half load: p99"},
    "quotes": {"quotes", "quotes: bare SQL", "quotes, half load: p99", "quotes: 100 lines, one by one"},
    "checkouts": {"checkouts", "checkouts: bare SQL", "checkouts: 100 lines, one by one"},
    "lag": {"lag: p50", "lag: p99"},
    "gate": {"gate: 1 offer", "gate: bare EVALSHA"},
    "timers": {"timers: lateness p99", "timers: firing tick p99", "timers: memory they take"},
    "facts": {"facts: worker", "facts: bare client", "facts: freshness p50", "facts: marketplace dashboard"},
}


def measured(name: str, directory: Path) -> list[dict[str, Any]]:
    """The results of a quick run, as it prints and keeps them."""
    file = directory / "results.json"
    done = CliRunner().invoke(bench, [name, "--quick", "--json", "--keep", str(file)])
    assert done.exit_code == 0, done.output + repr(done.exception)
    report = json.loads(done.stdout)
    assert report == json.loads(file.read_text())
    assert report.keys() == {"at", "quick", "machine", "results"}
    results: list[dict[str, Any]] = report["results"]
    return results


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", EXPECTED)
def test_bench_yields_its_measures(name: str, tmp_path: Path) -> None:
    results = measured(name, tmp_path)
    assert EXPECTED[name] <= {result["name"] for result in results}
    for result in results:
        assert result.keys() == KEYS
        assert result["rounds"] == len(result["values"]) > 0
        assert all(value > 0 for value in result["values"])
        assert (result["ratio"] is None) == (result["reference"] == "")
        assert (result["met"] is None) == (result["target"] == "")


@pytest.mark.debezium
@pytest.mark.timeout(400)
def test_bench_of_the_relay_yields_its_measures(tmp_path: Path) -> None:
    assert {"relay", "debezium"} <= {result["name"] for result in measured("relay", tmp_path)}


def test_ratio_is_the_median_of_each_rounds_own() -> None:
    rounds = Rounds()
    for ours, theirs in ((200.0, 100.0), (90.0, 30.0), (1000.0, 100.0)):
        rounds.add("ours", ours, "events/s")
        rounds.add("theirs", theirs, "events/s")
    (result,) = to_json([rounds.result("ours", against="theirs")])
    assert (result["ratio"], result["median"], result["met"]) == (3.0, 200.0, None)


def test_missed_target_says_by_how_much() -> None:
    rounds = Rounds()
    rounds.add("worker", 120_000.0, "events/s")
    result = rounds.result("worker", note="exact")
    assert (result.target, result.met, result.note) == ("≥ 150,000", False, "missed by 20%; exact")


def test_every_target_is_of_a_bench() -> None:
    assert {name.partition(":")[0] for name, _ in TARGETS} <= BENCHES.keys()
