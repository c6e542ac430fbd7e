"""`packstream stack`: real parts that start, answer, survive crashes, and are gone after `down`."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ops.stack.parts import PARTS
from ops.stack.parts.postgres import run_sql
from ops.stack.paths import DataDir
from ops.stack.processes import Identity
from tests.local_stack import Database, Stack

Packstream = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def packstream(tmp_path: Path) -> Iterator[Packstream]:
    """Runs `packstream …` on a data directory under ``tmp_path``; stops whatever is left at the end."""
    used: set[Path] = set()

    def run(*arguments: str, data: str = "data", **environ: str) -> subprocess.CompletedProcess[str]:
        used.add(tmp_path / data)
        command = [sys.executable, "-m", "ops.cli", *arguments, "--data", str(tmp_path / data)]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environ}, check=False)

    yield run
    for data in used:
        subprocess.run([sys.executable, "-m", "ops.cli", "stack", "down", "--data", str(data)], check=True)


def up(packstream: Packstream, parts: str, **kwargs: str) -> dict[str, Any]:
    """Start parts and return what was printed."""
    done = packstream("stack", "up", "--json", "--parts", parts, **kwargs)
    assert done.returncode == 0, done.stderr
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


def alive(pids: dict[str, int]) -> list[str]:
    return [name for name, pid in pids.items() if Identity.of(pid)]


def test_everything_comes_up_answers_and_is_gone_after_down(packstream: Packstream, tmp_path: Path) -> None:
    started = up(packstream, ",".join(PARTS))
    running = set(started["pids"])
    assert running >= set(PARTS)
    status = json.loads(packstream("stack", "status", "--json").stdout)
    assert {name for name, part in status.items() if part["state"] == "ready"} == running
    ports = [port for part in status.values() for port in part["ports"].values()]
    assert len(set(ports)) == len(ports)
    assert all(port < 32768 for port in ports)
    assert packstream("stack", "down").returncode == 0
    assert alive(started["pids"]) == []
    for port in ports:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
    assert not DataDir.at(tmp_path / "data").env_file.exists()
    assert packstream("stack", "status").returncode == 1


def test_two_stacks_run_side_by_side(packstream: Packstream) -> None:
    one = up(packstream, "postgres,redis", data="one")
    two = up(packstream, "postgres,redis", data="two")
    run_sql(one["DATABASE_URL"], "CREATE TABLE only_here ()")
    assert run_sql(two["DATABASE_URL"], "SELECT to_regclass('only_here')").strip() == ""
    packstream("stack", "down", data="one")
    assert sorted(alive(two["pids"])) == ["postgres", "redis"]


def test_up_again_keeps_what_runs_and_adds_the_rest(packstream: Packstream) -> None:
    first = up(packstream, "redis")
    both = up(packstream, "redis,smtp")
    assert both["pids"]["redis"] == first["pids"]["redis"]
    assert both["REDIS_URL"] == first["REDIS_URL"]
    assert "smtp" in both["pids"]


def test_a_taken_port_is_named_with_its_variable(packstream: Packstream) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused = packstream("stack", "up", "--parts", "redis", REDIS_PORT=port)
    assert refused.returncode == 1
    assert refused.stderr == (
        f"Error: port {port} is taken: set REDIS_PORT to a free one, or unset it and one is found\n"
    )


def test_what_is_not_installed_is_said_in_one_line(packstream: Packstream, tmp_path: Path) -> None:
    done = packstream("stack", "up", "--parts", "kafka", PACKSTREAM_CACHE=str(tmp_path / "empty"))
    assert done.returncode == 1
    assert done.stderr.startswith("Error: kafka: its jars are not in the cache: run `make setup`")
    assert done.stderr.count("\n") == 1


def test_an_unknown_part_is_refused_by_name(packstream: Packstream) -> None:
    refused = packstream("stack", "up", "--parts", "redis,rabbit")
    assert refused.returncode == 1
    assert refused.stderr.startswith("Error: unknown part rabbit: the parts are postgres,")


def test_data_survive_kill_9_of_every_part(packstream: Packstream) -> None:
    parts = "postgres,kafka,redis,bigquery"
    before = up(packstream, parts)
    run_sql(before["DATABASE_URL"], "CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)")
    for pid in before["pids"].values():
        os.kill(pid, signal.SIGKILL)
    after = up(packstream, parts)
    assert set(after["pids"]) == set(before["pids"])
    assert not set(after["pids"].values()) & set(before["pids"].values())
    assert run_sql(after["DATABASE_URL"], "SELECT n FROM kept").strip() == "7"


def test_a_lock_of_postgres_whose_pid_is_somebody_elses_is_no_obstacle(packstream: Packstream, tmp_path: Path) -> None:
    started = up(packstream, "postgres")
    os.kill(started["pids"]["postgres"], signal.SIGKILL)
    lock = tmp_path / "data" / "postgres" / "postmaster.pid"
    lines = lock.read_text().splitlines()
    lock.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    assert alive(up(packstream, "postgres")["pids"]) == ["postgres"]


def test_a_half_made_cluster_is_made_anew(packstream: Packstream, tmp_path: Path) -> None:
    home = tmp_path / "data" / "postgres"
    home.mkdir(parents=True)
    (home / "PG_VERSION").write_text("18\n")
    home.with_name(".postgres.unfinished").touch()
    assert alive(up(packstream, "postgres")["pids"]) == ["postgres"]


def test_a_directory_that_is_no_database_is_left_alone(packstream: Packstream, tmp_path: Path) -> None:
    home = tmp_path / "data" / "postgres"
    home.mkdir(parents=True)
    (home / "thesis.txt").write_text("mine")
    refused = packstream("stack", "up", "--parts", "postgres")
    assert refused.returncode == 1
    assert "is not empty and not a database" in refused.stderr
    assert (home / "thesis.txt").read_text() == "mine"


def test_down_never_signals_a_process_that_got_a_recorded_pid(packstream: Packstream, tmp_path: Path) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    record = tmp_path / "data" / "run" / "redis.pid.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"pid": bystander.pid, "started": "another boot:12345"}))
    assert packstream("stack", "down").returncode == 0
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_a_command_without_its_service_says_so_in_one_line(packstream: Packstream) -> None:
    refused = packstream("migrate", DATABASE_URL="postgresql://packstream:packstream@127.0.0.1:1/packstream")
    assert refused.returncode == 1
    assert refused.stderr.startswith("migrate: ")
    assert refused.stderr.count("\n") == 1


def test_a_start_that_fails_leaves_nothing_behind(packstream: Packstream, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "postgres").mkdir()
    (tmp_path / "data" / "postgres" / "thesis.txt").touch()
    assert packstream("stack", "up", "--parts", "postgres,redis").returncode == 1
    data = DataDir.at(tmp_path / "data")
    assert not data.pids_file.exists()
    assert not data.env_file.exists()


def test_the_api_role_is_restricted_and_the_cdc_role_can_replicate(stack: Stack, database: Database) -> None:
    flags = "SELECT rolsuper, rolcreatedb, rolcreaterole, rolbypassrls, rolreplication FROM pg_roles"
    by_role = run_sql(database.owner, f"{flags} WHERE rolname IN ('packstream_app', 'packstream_cdc') ORDER BY rolname")
    assert by_role.split() == ["f|f|f|f|f", "f|f|f|f|t"]
    assert run_sql(database.app, "SELECT current_user").strip() == "packstream_app"
    settings = (
        "SELECT string_agg(current_setting(n), ' ') FROM unnest('{wal_level,fsync,synchronous_commit}'::text[]) n"
    )
    assert run_sql(database.owner, settings).strip() == "logical on on"


def test_help_is_quick_and_lists_every_command() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "ops.cli", "--help"], capture_output=True, text=True
    )
    assert {"up", "stack", "worker", "dlq"} <= set(re.findall(r"^  (\w+) ", done.stdout, re.MULTILINE))
    assert not re.search(r"\b(sqlalchemy|aiokafka|pydantic|faust)\b", done.stderr)
