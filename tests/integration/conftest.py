"""The API on real parts. The database is shared by tests, which make people and stores of their own; `alone` is not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from ops.settings import Settings
from tests.api_driver import Api, Person, running
from tests.local_stack import Database, Stack, settings_for
from tests.media_bucket import fake_gcs


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
