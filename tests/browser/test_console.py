"""The console in a real browser: an operator signs in, looks, replays and discards, reads a day's report."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import pytest
import uvicorn
from sqlalchemy.ext.asyncio import AsyncSession

from api.app import create_app
from models import positions
from models.ads import reconciling
from models.ads.closing import lock_day
from models.database import make_engine, make_sessions, new_id
from models.dead_letters import Letter, park
from models.positions import Position
from ops.settings import Settings
from ops.stack.ports import PortBook
from schemas.codec import encode
from schemas.records import SubscriptionChanged
from tests.api_driver import PASSWORD, new_email
from tests.local_stack import Database, Stack, settings_for

# Not in requirements.lock: `make test-browser` installs it.
driver: Any = pytest.importorskip("playwright.async_api", reason="make test-browser")

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

DAY = date(2026, 5, 1)
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]


@asynccontextmanager
async def served(settings: Settings) -> AsyncIterator[str]:
    """The API on a socket; its address."""
    with PortBook({}) as book:
        port = book.choose(["PORT"], last={})["PORT"]
    server = uvicorn.Server(uvicorn.Config(create_app(settings), host="127.0.0.1", port=port, log_level="warning"))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    await task


@asynccontextmanager
async def as_owner(settings: Settings) -> AsyncIterator[AsyncSession]:
    engine = make_engine(settings.sqlalchemy_url, pool_size=1, application="test")
    async with make_sessions(engine).begin() as tx:
        yield tx
    await engine.dispose()


def letter(number: int) -> Letter:
    event = SubscriptionChanged(
        event_id=new_id(), occurred_at=datetime.now(UTC), actor="test", store_id=UUID(int=number), active=True
    )
    return Letter(
        source="media", topic="packstream.stores", partition=0, offset=number, key=f"<b>{number}</b>",
        reason="handler_failed", error="it broke", payload=encode(event), event_id=event.event_id,
        event_type=event.event_type,
    )  # fmt: skip


async def something_to_see(settings: Settings) -> None:
    async with as_owner(settings) as tx:
        wall = datetime.now(UTC)
        await park(tx, [letter(1), letter(2)], wall=wall)
        await positions.keep(tx, [Position("media", "packstream.media", 3, 41, 50)], worker="w:1", wall=wall)
        await lock_day(tx, DAY)
        report = {
            "day": DAY.isoformat(), "ok": False, "closed": True, "accepted": 7, "impressions": 5, "clicks": 1,
            "spend_micros": 1_500_000, "adjustments": 0,
            "differences": [{"level": "rollups", "key": "ad 1", "expected": 6, "found": 5}],
        }  # fmt: skip
        await reconciling.keep_report(tx, DAY, report, cleared=False, now=wall)


async def sign_in(page: Any, url: str, email: str) -> None:
    await page.goto(f"{url}/console")
    await page.get_by_label("E-mail").fill(email)
    await page.get_by_label("Password").fill("not the password")
    await page.get_by_role("button", name="Sign in").click()
    await driver.expect(page.get_by_role("alert")).to_be_visible()
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()


async def test_an_operator_sees_the_streams_and_decides_on_dead_letters(
    stack: Stack, database: Database, redis_url: str
) -> None:
    assert CHROMIUM, "no Chromium: install one, or name it in CHROMIUM"
    settings = settings_for(stack, database, redis_url=redis_url, log_level="warning")
    await something_to_see(settings)
    async with served(settings) as url, driver.async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = await browser.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console", lambda message: complaints.append(message.text) if "policy" in message.text.lower() else None
        )
        email = new_email()
        registered = await page.request.post(
            f"{url}/api/admin/auth/register", data={"email": email, "password": PASSWORD}
        )
        assert registered.status == 201
        await sign_in(page, url, email)

        await driver.expect(page.get_by_label("E-mail")).to_be_hidden()
        await driver.expect(page.locator("#tiles")).to_contain_text("2dead letters parked")
        await driver.expect(page.locator("#tiles")).to_contain_text(f"1differences on {DAY}")
        await driver.expect(page.locator("#agents")).to_contain_text("packstream.media8141")

        await page.get_by_role("link", name="Dead letters").click()
        rows = page.locator("#letter-list tbody tr")
        await driver.expect(rows).to_have_count(2)
        await driver.expect(rows.first).to_contain_text("<b>")  # a key is text, whatever it says
        await rows.first.get_by_role("button", name="Open").click()
        await driver.expect(page.locator("#letter-record")).to_contain_text("store_id")
        await page.get_by_role("button", name="Replay").click()
        await driver.expect(page.locator("#letter-facts")).to_contain_text("replayed")
        await driver.expect(rows).to_have_count(1)
        await rows.first.get_by_role("button", name="Open").click()
        await page.get_by_label("Reason").fill("a test")
        await page.get_by_role("button", name="Discard").click()
        await driver.expect(page.locator("#letter-facts")).to_contain_text("a test")
        await driver.expect(rows).to_have_count(0)

        await page.get_by_role("link", name="Reconciliation").click()
        await page.get_by_label("UTC day").fill(DAY.isoformat())
        await page.get_by_role("button", name="Show").click()
        await driver.expect(page.locator("#differences tbody tr")).to_have_text("rollupsad 165")
        await driver.expect(page.locator("#report")).to_contain_text("$1.500000")

        await page.get_by_role("link", name="Live counters").click()
        await page.get_by_label("Ad", exact=True).fill(str(new_id()))
        await page.get_by_role("button", name="Watch").click()
        await driver.expect(page.get_by_role("alert")).to_be_visible()

        await page.get_by_role("button", name="Sign out").click()
        await driver.expect(page.get_by_label("E-mail")).to_be_visible()
        assert complaints == []
        await browser.close()
