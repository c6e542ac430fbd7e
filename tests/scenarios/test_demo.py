"""`packstream demo` as people run it: a small one through the real processes, and two that must not succeed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ops.stack.errors import StackError
from ops.stack.parts.postgres import run_sql
from ops.stack.paths import DataDir
from ops.stack.processes import Identity

ROWS = 240
PARTS = "postgres,kafka,redis,gcs,stripe,bigquery"
TAMPER = """
CREATE OR REPLACE FUNCTION add_one() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN NEW.on_hand := NEW.on_hand + 1; RETURN NEW; END $$;
CREATE TRIGGER add_one BEFORE UPDATE ON inventory FOR EACH ROW WHEN (NEW.reserved > OLD.reserved)
EXECUTE FUNCTION add_one();
CREATE OR REPLACE FUNCTION tamper() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN UPDATE licenses SET status = 'pending'; NEW.spend_micros := NEW.spend_micros + 1; RETURN NEW; END $$;
CREATE TRIGGER tamper BEFORE INSERT ON ad_daily_rollups FOR EACH ROW WHEN (NEW.spend_micros > 0)
EXECUTE FUNCTION tamper();
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def data(tmp_path: Path) -> DataDir:
    return DataDir.at(tmp_path / "demo")


@pytest.fixture
def start(data: DataDir) -> Iterator[Start]:
    """Starts a demo; whatever is left of it ends with the test."""
    started: list[subprocess.Popen[str]] = []

    def run(*options: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "ops.cli", "demo", "--json", "--parts", PARTS, *options]
        process = subprocess.Popen([*argv, "--data", str(data.root)], stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield run
    for process in started:
        process.terminate()
        process.wait(60)


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What it printed, once it has ended."""
    printed, _ = process.communicate(timeout=400)
    report: dict[str, Any] = json.loads(printed)
    return report


def running(data: DataDir) -> list[Identity]:
    """The parts and programs that run in the directory."""
    pids = json.loads(data.pids_file.read_text()) if data.pids_file.exists() else {}
    return [identity for identity in map(Identity.of, pids.values()) if identity]


def until(condition: Callable[[], bool], *, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_two_days_of_page_views_add_up_to_the_last_micro(start: Start, data: DataDir) -> None:
    process = start("--days", "2", "--rows", str(ROWS))
    report = result(process)
    assert (process.returncode, report["differences"]) == (0, [])
    total = report["total"]
    assert total["views"] == ROWS == total["served"] + total["budget_exhausted"] + total["no_candidates"]
    assert total["impressions"] == total["served"] > 0
    assert total["charged_cents"] > 0
    assert report["offers_refused"] > 0
    vendors = report["stores"]["vendor"]
    assert report["licenses"] == {"uploaded": vendors, "approved": vendors, "activations_refused": 1}
    billing = report["billing"]
    assert billing["subscriptions"] == vendors
    assert billing["usage_cents"] == total["charged_cents"]
    sales = report["sales"]["total"]
    assert 0 < sales["carts"] <= sales["purchases"] <= sales["units"]
    assert sales["carts"] <= sales["orders"]
    assert sales["ordered_cents"] > 0
    assert report["dashboards"]["vendors"] == vendors
    assert report["dashboards"]["best"]["net_cents"] > 0
    orders = report["orders"]
    assert sum(orders["outcomes"].values()) == sales["orders"]
    assert {"closed", "expired"} <= orders["outcomes"].keys()
    assert 0 < orders["collected_cents"] == orders["paid_out_cents"] + orders["fee_cents"] + orders["due_cents"]
    assert orders["fee_cents"] > 0
    assert len(report["reconciled"]) == 2
    assert not running(data)


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_a_micro_too_much_licences_not_as_decided_and_stock_from_nowhere_fail_the_demo(
    start: Start, data: DataDir
) -> None:
    process = start("--days", "1", "--rows", "60")

    def tampered() -> bool:
        try:
            run_sql(data.read_env()["DATABASE_URL"], TAMPER)
        except (KeyError, StackError):  # not there yet
            return False
        return True

    until(tampered, timeout_s=120)
    report = result(process)
    assert process.returncode == 1
    assert not report["ok"]
    assert {"rollups", "charges", "reconcile: rollups", "licences", "shelves"} <= {
        found["level"] for found in report["differences"]
    }
    assert report["reconciled"] == []


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_an_interrupted_demo_leaves_nothing_running(start: Start, data: DataDir) -> None:
    process = start()
    until(lambda: len(running(data)) >= 3, timeout_s=60)
    left = running(data)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(60) == 130
    until(lambda: not any(identity.alive() for identity in left), timeout_s=5)


def test_a_directory_that_no_demo_has_made_is_left_alone(start: Start, data: DataDir) -> None:
    data.root.mkdir()
    (data.root / "precious").touch()
    process = start()
    assert process.wait(60) == 1
    assert (data.root / "precious").exists()


def test_a_demo_without_a_place_for_licences_does_not_start(start: Start, data: DataDir) -> None:
    process = start("--parts", "postgres,kafka,redis")
    assert process.wait(60) == 1
    assert not data.root.exists()
