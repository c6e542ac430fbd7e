"""`packstream rollup`: tells how far a day is, and charges none that is not closed."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ops.cli.rollup import rollup
from ops.settings import Settings
from tests.api_driver import Api, ok


@pytest.fixture
def packstream(alone_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs `packstream rollup …` against the test's database."""
    monkeypatch.setenv("DATABASE_URL", alone_settings.database_url)
    monkeypatch.setenv("PACKSTREAM_ENV", "test")

    def run(*args: str) -> Result:
        return CliRunner().invoke(rollup, [*args, "--json", "--data", alone_settings.data_dir], catch_exceptions=False)

    return run


async def test_without_a_day_it_is_the_last_one_that_is_over_by_business_time(alone: Api, packstream: Any) -> None:
    admin = await alone.register_admin()
    ahead = datetime.now(UTC) + timedelta(days=40)
    ok(await alone.as_(admin).post("/api/admin/ops/clock", json={"now": ahead.isoformat()}))
    shown = await asyncio.to_thread(packstream, "status")
    found = json.loads(shown.stdout)
    assert (shown.exit_code, found["day"]) == (0, str((ahead - timedelta(days=1)).date()))
    assert (found["closed"], found["charged_at"], found["charges"]) == (False, None, 0)


async def test_a_day_not_closed_exits_3_and_is_not_charged(alone: Api, packstream: Any) -> None:
    refused = await asyncio.to_thread(packstream, "run", "--day", "2026-01-02")
    assert (refused.exit_code, json.loads(refused.stdout)["day"]) == (3, "2026-01-02")
    shown = await asyncio.to_thread(packstream, "status", "--day", "2026-01-02")
    assert (shown.exit_code, json.loads(shown.stdout)["charged_at"]) == (0, None)
