"""A Redis that answers, and refuses to write: out of memory, or a replica by now. Clients are told to come again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest

from models.errors import Unavailable
from models.redis import RedisLink
from tests.ads_driver import active_ad, at, execute, impression, open_gates, register_vendor, serve, status_of
from tests.api_driver import Api, ok, problem, running
from tests.local_stack import Database, Stack, settings_for

Command = Sequence[object]
OUT_OF_MEMORY: Command = ("CONFIG", "SET", "maxmemory", 1)
REPLICA: Command = ("REPLICAOF", "127.0.0.1", 1)
AGAIN: dict[Command, Command] = {OUT_OF_MEMORY: ("CONFIG", "SET", "maxmemory", 0), REPLICA: ("REPLICAOF", "NO", "ONE")}


@pytest.fixture
async def api(stack: Stack, database: Database, own_redis: str) -> AsyncIterator[Api]:
    """An API with a Redis of its own."""
    async with running(settings_for(stack, database, redis_url=own_redis, log_level="warning")) as started:
        yield started


@pytest.mark.parametrize("trouble", AGAIN, ids=["out_of_memory", "replica"])
async def test_while_redis_refuses_to_write_every_route_answers_503_and_then_goes_on(
    api: Api, trouble: Command
) -> None:
    vendor, buyer = await register_vendor(api), await api.register("buyer")
    await active_ad(api, vendor)
    await open_gates(api)
    token = (await serve(api, buyer))["impression_token"]
    await api.services.redis.execute(*trouble)
    answers = (
        await api.as_(buyer).get("/ads/serve", params={"placement": "home"}, headers=at()),
        await impression(api, token),
        await api.as_(buyer).get("/api/v1/users/me"),
        await api.http.post("/api/v1/auth/login", json={"email": buyer.email, "password": "x" * 12}),
    )
    for answer in answers:
        problem(answer, 503, "unavailable")
        assert int(answer.headers["retry-after"]) >= 1
    assert await execute(api, "SELECT 1 FROM outbox_events WHERE type = 'ad_events'") == []
    await api.services.redis.execute(*AGAIN[trouble])
    assert status_of(await impression(api, token)) == "accepted"
    ok(await api.as_(buyer).get("/ads/serve", params={"placement": "home"}, headers=at()))


async def test_a_command_that_redis_would_never_obey_is_a_fault_of_ours(api: Api) -> None:
    link: RedisLink = api.services.redis
    await link.execute("SET", "text", "a")
    with pytest.raises(Exception, match="not an integer") as raised:
        await link.execute("INCR", "text")
    assert not isinstance(raised.value, Unavailable)
