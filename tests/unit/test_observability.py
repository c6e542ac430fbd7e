"""Alerts and dashboards ask for metrics that exist, and an alert says where to read what to do."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from ops.stack.paths import REPOSITORY

OBSERVABILITY = REPOSITORY / "ops" / "observability"
CODE = ("api", "agents", "models", "ops")
NAME = re.compile(r"packstream_[a-z_]+")
SUFFIXES = ("_total", "_bucket", "_count", "_sum")


def exported() -> set[str]:
    """What the code's string literals name, as Prometheus shows it."""
    literal = re.compile(r'"(packstream_[a-z_]+)"')
    found = {
        name
        for room in CODE
        for path in (REPOSITORY / room).rglob("*.py")
        for name in literal.findall(path.read_text())
    }
    return found | {name.removesuffix("_total") + suffix for name in found for suffix in SUFFIXES}


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((OBSERVABILITY / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_alerts_ask_for_metrics_that_exist() -> None:
    known = exported()
    for rule in rules():
        assert set(NAME.findall(rule["expr"])) <= known, rule["alert"]


def test_dashboards_ask_for_metrics_that_exist() -> None:
    known = exported()
    for path in OBSERVABILITY.rglob("*.json"):
        panels = json.loads(path.read_text())["panels"]
        asked = {name for panel in panels for target in panel["targets"] for name in NAME.findall(target["expr"])}
        assert asked, path
        assert asked <= known, asked - known


def test_an_alert_says_what_is_wrong_how_bad_it_is_and_where_to_read_on() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))
    for rule in rules():
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
        assert rule["annotations"]["summary"].endswith("."), rule["alert"]
        assert (REPOSITORY / rule["annotations"]["runbook"]).is_file(), rule["alert"]


def test_prometheus_loads_the_alerts() -> None:
    assert yaml.safe_load((OBSERVABILITY / "prometheus.yml").read_text())["rule_files"] == ["alerts.yml"]
    compose = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
    assert any("alerts.yml" in volume for volume in compose["services"]["prometheus"]["volumes"])
