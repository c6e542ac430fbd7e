"""`packstream admin`: audited, published, clear about what is wrong."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import select

from models.audit import AuditEntry
from models.outbox import OutboxEvent
from ops.cli.admin import admin
from ops.settings import Settings
from schemas.codec import decode_dict
from tests.api_driver import PASSWORD, Api, new_email, ok


@pytest.fixture
def packstream(alone_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs `packstream admin …` against the test's database."""
    monkeypatch.setenv("DATABASE_URL", alone_settings.database_url)
    monkeypatch.setenv("PACKSTREAM_ENV", "test")

    def run(*args: str) -> Result:
        return CliRunner().invoke(admin, [*args, "--data", alone_settings.data_dir], catch_exceptions=False)

    return run


def published(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


async def in_thread(function: Any, *args: str) -> Result:
    """The command runs a loop of its own."""
    return await asyncio.to_thread(function, *args)


async def test_created_admin_signs_in_and_is_audited(alone: Api, packstream: Any) -> None:
    email = new_email()
    made = published(await in_thread(packstream, "create", "--email", email.upper(), "--password", PASSWORD, "--json"))
    data = ok(await alone.http.post("/api/admin/auth/login", json={"email": email, "password": PASSWORD}))
    assert data["user"]["id"] == made["id"]
    async with alone.services.transaction() as tx:
        entry = (await tx.scalars(select(AuditEntry).where(AuditEntry.object_id == made["id"]))).one()
    assert entry.action == "admin.created"
    assert entry.actor.startswith("command:")


@pytest.mark.parametrize(
    ("email", "password", "says"),
    [("nobody", PASSWORD, "email"), ("a@b.test", "short", "password")],
)
def test_malformed_admin_is_refused_by_name(packstream: Any, email: str, password: str, says: str) -> None:
    result = packstream("create", "--email", email, "--password", password)
    assert result.exit_code == 1
    assert says in result.output
    assert PASSWORD not in result.output


async def test_admin_of_a_taken_email_is_refused(alone: Api, packstream: Any) -> None:
    person = await alone.register()
    result = await in_thread(packstream, "create", "--email", person.email, "--password", PASSWORD)
    assert result.exit_code == 1
    assert "registered already" in result.output


async def test_store_state_changes_once_with_event_and_audit(alone: Api, packstream: Any) -> None:
    person = await alone.register("vendor")
    store_id = person.store["id"]
    for _ in range(2):
        result = await in_thread(packstream, "store", store_id, "--kyc", "verified", "--subscription", "on", "--json")
        shown = published(result)
        assert (shown["kyc_status"], shown["subscription_active"]) == ("verified", True)
    store = ok(await alone.as_(person).get("/api/v1/stores/me"))
    assert (store["kyc_status"], store["subscription_active"]) == ("verified", True)
    async with alone.services.transaction() as tx:
        events = list(await tx.scalars(select(OutboxEvent).order_by(OutboxEvent.seq)))
        entries = list(await tx.scalars(select(AuditEntry).where(AuditEntry.object_id == store_id)))
    assert [(event.type, event.aggregateid) for event in events] == [
        ("store_compliance_changed", store_id),
        ("subscription_changed", store_id),
    ]
    record = decode_dict(events[0].payload)[1]
    assert (record["before"], record["after"]) == ("pending", "verified")
    assert {entry.action for entry in entries} == {"store.kyc_set", "store.subscription_set"}
    assert len(entries) == 2


async def test_store_without_options_is_shown_and_stays(alone: Api, packstream: Any) -> None:
    person = await alone.register("vendor")
    shown = published(await in_thread(packstream, "store", person.store["id"], "--json"))
    assert shown == {
        "id": person.store["id"],
        "name": person.store["name"],
        "type": "vendor",
        "kyc_status": "pending",
        "subscription_active": False,
    }
    async with alone.services.transaction() as tx:
        assert list(await tx.scalars(select(OutboxEvent))) == []


@pytest.mark.parametrize("store_id", [str(uuid4()), "nothing"])
def test_unknown_store_is_one_clear_line(packstream: Any, store_id: str) -> None:
    result = packstream("store", store_id, "--kyc", "verified")
    assert result.exit_code == 1
    assert len(result.output.splitlines()) == 1
