"""Replaying page views and purchases through the public routes, a stretch of the logical clock at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from typing import Final
from urllib.parse import parse_qs, urlsplit

from ops.demo.books import AdDayKey, Books
from ops.demo.client import Api, UnexpectedAnswer
from ops.demo.opening import Marketplace
from ops.demo.progress import Advance
from ops.demo.shopping import Shopping, buy_all
from ops.demo.views import PageView, windows

WINDOW_MINUTES: Final = 30  #: the clock stands at the window's start, so that no token expires while it is replayed
CLICK_AFTER: Final = timedelta(seconds=1)
FAILURES_MAX: Final = 50  #: views and purchases without a proper answer, before the replay gives up


class ReplayFailed(Exception):
    """Too many views or purchases got no proper answer."""


async def replay(
    api: Api, shopping: Shopping, marketplace: Marketplace, views: Sequence[PageView], books: Books, advance: Advance
) -> None:
    """Set the clock to the start of each window and replay its views at once, each at its own logged time, and what is
    bought in it.

    The client's connections bound how many are under way. What gets no proper answer is noted in the books, which then
    do not add up. A cart carries the ads that its buyer had seen when the window began.
    """
    cuts, baskets = windows(views, minutes=WINDOW_MINUTES), deque(shopping.baskets)
    for number, window in enumerate(cuts):
        ends_at = cuts[number + 1].starts_at if number + 1 < len(cuts) else None
        await api.set_clock(window.starts_at)
        due = []
        while baskets and (ends_at is None or baskets[0].at < ends_at):
            due.append(baskets.popleft())
        await asyncio.gather(
            buy_all(api, shopping, due, seen_before=window.starts_at),
            *(_noting_failures(api, marketplace, view, books, shopping) for view in window.views),
        )
        failures = books.failures + shopping.receipts.failures
        if len(failures) > FAILURES_MAX:
            raise ReplayFailed(f"{len(failures)} got no proper answer, the last one: {failures[-1]}")
        advance(len(window.views))


async def _noting_failures(
    api: Api, marketplace: Marketplace, view: PageView, books: Books, shopping: Shopping
) -> None:
    try:
        await _replay_view(api, marketplace, view, books, shopping)
    except UnexpectedAnswer as exc:
        books.failures.append(f"{view.at.isoformat()} {view.placement}: {exc}")


async def _replay_view(api: Api, marketplace: Marketplace, view: PageView, books: Books, shopping: Shopping) -> None:
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
    shopping.saw(buyer, answer["impression_token"])
    if view.clicked:
        await api.click(answer["click_url"], now=(view.at + CLICK_AFTER).isoformat())
        books.clicks[key] += 1
        shopping.saw(buyer, parse_qs(urlsplit(answer["click_url"]).query)["token"][0])
