"""Rounds of work beside the agents: what becomes of the round under way when they are told to stop."""

from __future__ import annotations

import asyncio

import pytest

from agents.rounds import Rounds


@pytest.mark.parametrize(("finish", "expected"), [(True, ["done", "closed"]), (False, ["closed"])])
async def test_a_round_under_way_is_finished_or_cancelled_before_the_close(finish: bool, expected: list[str]) -> None:
    seen: list[str] = []
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def work() -> int:
        begun.set()
        await go_on.wait()
        seen.append("done")
        return 1

    async def close() -> None:
        seen.append("closed")

    running = asyncio.create_task(Rounds("test", work, close, finish=finish).run())
    await begun.wait()
    running.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert seen == expected
