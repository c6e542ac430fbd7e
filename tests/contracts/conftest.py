"""One API with one cast for all the contracts that are about callers and routes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.api_driver import Api, running
from tests.contracts.cast import Cast, gather
from tests.local_stack import Stack, empty_redis, settings_for
from tests.media_bucket import fake_gcs


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a fake GCS."""
    with fake_gcs(tmp_path_factory.mktemp("gcs")) as endpoint:
        yield endpoint


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(stack: Stack, bucket: str) -> AsyncIterator[Api]:
    """An API for a whole module, on the shared database."""
    settings = settings_for(
        stack, redis_url=empty_redis(stack), gcs_endpoint=bucket, log_level="warning", rate_limit_scale=1000
    )
    async with running(settings) as api:
        yield api


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cast(stage: Api) -> Cast:
    """Everybody who may call, signed in."""
    return await gather(stage)
