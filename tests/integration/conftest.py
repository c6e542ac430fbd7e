"""The API on real parts. The database is shared by tests, which make people and stores of their own; `alone` is not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from ops.settings import Settings, asyncpg_url
from tests.agent_site import Site
from tests.api_driver import Api, Person, running
from tests.billing_books import Books, books_of, charged_vendor
from tests.cart_shop import open_shop
from tests.local_stack import Database, Stack, settings_for
from tests.media_bucket import fake_gcs
from tests.stripe_fake import Account, fake_stripe, running_with


@pytest.fixture
def api_settings(stack: Stack, redis_url: str) -> Settings:
    """Settings of an API on the shared database."""
    return settings_for(stack, redis_url=redis_url, log_level="warning")


@pytest.fixture
async def api(api_settings: Settings) -> AsyncIterator[Api]:
    """An API on the shared database."""
    async with running(api_settings) as started:
        yield started


@pytest.fixture
def alone_settings(stack: Stack, database: Database, redis_url: str) -> Settings:
    """Settings of an API on a database of this test alone."""
    return settings_for(stack, database, redis_url=redis_url, log_level="warning")


@pytest.fixture
async def alone(alone_settings: Settings) -> AsyncIterator[Api]:
    """An API on a database of this test alone."""
    async with running(alone_settings) as started:
        yield started


@pytest.fixture(scope="session")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a fake GCS for the whole run; news of uploads go nowhere, tests push them."""
    with fake_gcs(tmp_path_factory.mktemp("gcs")) as endpoint:
        yield endpoint


@pytest.fixture
def gcs_settings(stack: Stack, redis_url: str, gcs: str) -> Settings:
    """Settings of an API on the shared database and the fake GCS."""
    return settings_for(stack, redis_url=redis_url, gcs_endpoint=gcs, log_level="warning")


@pytest.fixture
async def gcs_api(gcs_settings: Settings) -> AsyncIterator[Api]:
    """An API on the shared database and the fake GCS."""
    async with running(gcs_settings) as started:
        yield started


@pytest.fixture
def gcs_alone_settings(stack: Stack, database: Database, redis_url: str, gcs: str) -> Settings:
    """Settings of an API on a database of this test alone and the fake GCS."""
    return settings_for(stack, database, redis_url=redis_url, gcs_endpoint=gcs, log_level="warning")


@pytest.fixture
async def gcs_alone(gcs_alone_settings: Settings) -> AsyncIterator[Api]:
    """An API on a database of this test alone and the fake GCS."""
    async with running(gcs_alone_settings) as started:
        yield started


@pytest.fixture
async def uploader(gcs_api: Api) -> Person:
    """Someone who uploads, for a vendor."""
    return await gcs_api.register("vendor")


@pytest.fixture
async def vendor(api: Api) -> Person:
    """Someone who may sell."""
    return await open_shop(api)


@pytest.fixture
async def other(api: Api) -> Person:
    """Someone else who may."""
    return await open_shop(api)


@pytest.fixture
async def buyer(api: Api) -> Person:
    return await api.register("buyer")


@pytest.fixture
async def engine(site: Site) -> AsyncIterator[AsyncEngine]:
    """On the database of the module's own site, as its owner."""
    engine = create_async_engine(asyncpg_url(site.environment["DATABASE_URL"]))
    yield engine
    await engine.dispose()


@pytest.fixture
async def account(tmp_path: Path) -> AsyncIterator[Account]:
    """A fake Stripe of this test alone."""
    async with fake_stripe(tmp_path) as found:
        yield found


@pytest.fixture
async def stripe_api(alone_settings: Settings, account: Account) -> AsyncIterator[Api]:
    """An API on a database of this test alone and the fake Stripe."""
    async with running_with(alone_settings, account) as started:
        yield started


@pytest.fixture
async def books(stripe_api: Api) -> AsyncIterator[Books]:
    """Days of advertising, closed and reconciled by hand."""
    async with books_of(stripe_api) as found:
        yield found


@pytest.fixture
async def charged(stripe_api: Api, books: Books) -> Person:
    """A vendor with a charge that may be billed."""
    return await charged_vendor(stripe_api, books)
