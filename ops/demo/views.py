"""The page views to replay: read from the fixtures, merged by time, moved into the coming week."""

from __future__ import annotations

import csv
import gzip
import heapq
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Final

from models.ads.rules import Placement

FIXTURES: Final = Path(__file__).resolve().parents[1] / "fixtures"
CAMPAIGNS: Final = ("bts-all", "random-all", "bts-men")
PLACEMENTS: Final = {"1": Placement.HOME, "2": Placement.CATEGORY, "3": Placement.SEARCH}
WEEK: Final = timedelta(weeks=1)

_by_time = attrgetter("at")


@dataclass(frozen=True, slots=True)
class PageView:
    """One logged row. `item` is the ad that was logged there; the auction chooses the one that is served."""

    at: datetime
    campaign: str
    item: int
    placement: Placement
    clicked: bool
    segment: str

    @property
    def day(self) -> date:
        """The UTC day."""
        return self.at.date()


@dataclass(frozen=True, slots=True)
class Window:
    """Page views whose times lie in one stretch of the clock; `views` are in the order of time."""

    starts_at: datetime
    views: Sequence[PageView]


def read_all() -> list[PageView]:
    """Every row of every file, as logged, by time; rows of the same time in the order of files and lines."""
    return list(heapq.merge(*(_read(campaign) for campaign in CAMPAIGNS), key=_by_time))


def _read(campaign: str) -> Iterator[PageView]:
    packed = (FIXTURES / f"impressions-{campaign}.csv.gz").read_bytes()
    for row in csv.DictReader(io.StringIO(gzip.decompress(packed).decode())):
        yield PageView(
            at=datetime.fromisoformat(row["occurred_at"]),
            campaign=campaign,
            item=int(row["item_id"]),
            placement=PLACEMENTS[row["position"]],
            clicked=row["click"] == "1",
            segment=row["viewer_segment"],
        )


def choose(views: Sequence[PageView], *, days: int | None, rows: int | None) -> list[PageView]:
    """The first `days` days of them, and of these `rows`, evenly spread."""
    last = views[0].day + timedelta(days=days - 1) if days else views[-1].day
    kept = [view for view in views if view.day <= last]
    if rows is None or rows >= len(kept):
        return kept
    return [kept[n * len(kept) // rows] for n in range(rows)]


def shift(views: Iterable[PageView], *, after: datetime) -> list[PageView]:
    """Move all by the same number of whole weeks, the smallest that puts the first one's midnight behind `after`."""
    moved = list(views)
    midnight = moved[0].at.replace(hour=0, minute=0, second=0, microsecond=0)
    weeks = (after - midnight) // WEEK + 1
    return [replace(view, at=view.at + weeks * WEEK) for view in moved]


def windows(views: Iterable[PageView], *, minutes: int) -> list[Window]:
    """Cut sorted views at every multiple of `minutes` past midnight; stretches without views are left out."""

    def start(view: PageView) -> datetime:
        minute = (view.at.hour * 60 + view.at.minute) // minutes * minutes
        return view.at.replace(hour=minute // 60, minute=minute % 60, second=0, microsecond=0)

    return [Window(starts_at, list(group)) for starts_at, group in groupby(views, key=start)]
