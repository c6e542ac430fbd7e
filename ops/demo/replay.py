"""Replaying page views through the public routes, a stretch of the logical clock at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from ops.demo.books import AdDayKey, Books
from ops.demo.client import Api, UnexpectedAnswer
from ops.demo.opening import Marketplace
from ops.demo.progress import Advance
from ops.demo.views import PageView, windows

WINDOW_MINUTES: Final = 30  #: the clock stands at the window's start, so that no token expires while it is replayed
CLICK_AFTER: Final = timedelta(seconds=1)
FAILURES_MAX: Final = 50  #: views without a proper answer, before the replay gives up


class ReplayFailed(Exception):
    """Too many views got no proper answer."""


async def replay(api: Api, marketplace: Marketplace, views: Sequence[PageView], books: Books, advance: Advance) -> None:
    """Set the clock to the start of each window and replay its views at once, each at its own logged time.

    The client's connections bound how many are under way. A view that gets no proper answer is noted in the books,
    which then do not add up.
    """
    for window in windows(views, minutes=WINDOW_MINUTES):
        await api.set_clock(window.starts_at)
        await asyncio.gather(*(_noting_failures(api, marketplace, view, books) for view in window.views))
        if len(books.failures) > FAILURES_MAX:
            raise ReplayFailed(f"{len(books.failures)} views got no proper answer, the last one: {books.failures[-1]}")
        advance(len(window.views))


async def _noting_failures(api: Api, marketplace: Marketplace, view: PageView, books: Books) -> None:
    try:
        await _replay_view(api, marketplace, view, books)
    except UnexpectedAnswer as exc:
        books.failures.append(f"{view.at.isoformat()} {view.placement}: {exc}")


async def _replay_view(api: Api, marketplace: Marketplace, view: PageView, books: Books) -> None:
    """A page is opened; the ad on it is shown, and clicked where the log has a click."""
    buyer, now = marketplace.buyers[view.segment], view.at.isoformat()
    answer = await api.serve(buyer.token, view.placement, now=now)
    if answer["ad"] is None:
        books.take_refused(view, answer["reason"])
        return
    key = AdDayKey(view.day, answer["ad"]["ad_id"])
    books.take_served(view, key.ad_id, buyer.state)
    await api.impression(answer["impression_token"], now=now)
    books.impressions[key] += 1
    if view.clicked:
        await api.click(answer["click_url"], now=(view.at + CLICK_AFTER).isoformat())
        books.clicks[key] += 1
