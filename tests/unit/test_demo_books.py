"""The demo's own books: what they accept, and that they notice what is missing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest

from models.ads.rules import Placement
from ops.demo.books import (
    AdDayKey,
    Books,
    PlacedAd,
    Totals,
    cents_of,
    check_budgets,
    check_charges,
    check_rollups,
    check_views,
    split_cents,
)
from ops.demo.plan import make_plan
from ops.demo.views import PageView, choose, read_all, shift, windows

DAY = date(2026, 11, 29)
AD = PlacedAd("ad", "store", "CA", "home", bid_cpm_cents=1_550, daily_budget_cents=100)
KEY = AdDayKey(DAY, "ad")


def view(**changes: object) -> PageView:
    at = datetime(2026, 11, 29, 10, 20, tzinfo=UTC)
    one = PageView(at=at, campaign="bts-all", item=1, placement=Placement.HOME, clicked=True, segment="s")
    return replace(one, **changes)  # type: ignore[arg-type]


def books_of(*views: PageView) -> Books:
    """Books in which everything went well."""
    books = Books({"ad": AD})
    for one in views:
        books.take_served(one, "ad", "CA")
        books.impressions[KEY] += 1
        books.clicks[KEY] += one.clicked
    return books


def test_the_fixtures_have_thirty_thousand_rows_in_order() -> None:
    views = read_all()
    assert len(views) == 30_000
    assert all(a.at <= b.at for a, b in pairwise(views))
    assert sum(one.clicked for one in views) == 149


def test_views_move_by_whole_weeks_behind_now() -> None:
    first = view(at=datetime(2019, 11, 24, 0, 0, 17, tzinfo=UTC))
    for now in (datetime(2026, 11, 24, 16, tzinfo=UTC), datetime(2026, 11, 29, tzinfo=UTC)):
        [moved] = shift([first], after=now)
        midnight = moved.at - timedelta(seconds=17)
        assert (moved.at - first.at) % timedelta(weeks=1) == timedelta(0)
        assert now < midnight <= now + timedelta(weeks=1)


def test_chosen_views_are_spread_evenly_over_the_days_asked_for() -> None:
    views = choose(read_all(), days=2, rows=600)
    assert len(views) == len(set(views)) == 600
    assert len({one.day for one in views}) == 2


def test_windows_hold_every_view_once_and_begin_before_it() -> None:
    views = read_all()[:5_000]
    cut = windows(views, minutes=30)
    assert [one for window in cut for one in window.views] == views
    assert all(timedelta(0) <= one.at - w.starts_at < timedelta(minutes=30) for w in cut for one in w.views)


def test_a_plan_is_the_same_for_a_seed_and_has_an_ad_of_each_item_on_each_placement() -> None:
    views = read_all()
    plan = make_plan(views, seed=1)
    assert plan == make_plan(views, seed=1) != make_plan(views, seed=2)
    assert len(plan.ads) == 3 * len({(one.campaign, one.item) for one in views})


@pytest.mark.parametrize(("micros", "cents"), [(15_000, 2), (25_000, 2), (25_001, 3), (24_999, 2), (0, 0)])
def test_cents_are_rounded_half_to_even(micros: int, cents: int) -> None:
    assert cents_of(micros) == cents


def test_split_cents_add_up_and_the_largest_remainder_gets_the_rest() -> None:
    assert split_cents(100, {"a": 1, "b": 1, "c": 1}) == {"a": 34, "b": 33, "c": 33}
    assert split_cents(3, {"a": 10, "b": 19}) == {"a": 1, "b": 2}


def test_right_books_have_no_difference() -> None:
    books = books_of(view(), view(clicked=False))
    stored = {KEY: Totals(2, 1, 31_000)}
    assert check_views([view(), view(clicked=False)], books) == []
    assert check_rollups(books, stored) == check_budgets(books, stored) == []
    assert check_charges(books, {(DAY, "store"): (31_000, 3)}) == []
    assert books.misplaced == []


def test_a_row_without_an_answer_a_lost_impression_and_a_lost_click_are_noticed() -> None:
    lost = check_views([view(), view()], books_of(view()))
    assert {one.level for one in lost} == {"rows = served + refused", "clicks in the file"}
    books = books_of(view())
    books.impressions.clear()
    assert [one.level for one in check_views([view()], books)] == ["served = impressions"]


def test_a_refused_click_is_accounted_for() -> None:
    books = Books({"ad": AD})
    books.take_refused(view(), "budget_exhausted")
    assert check_views([view()], books) == []


@pytest.mark.parametrize(
    "stored", [{}, {KEY: Totals(1, 1, 15_501)}, {KEY: Totals(1, 1, 15_500), KEY._replace(ad_id="x"): Totals(1, 0, 1)}]
)
def test_rollups_are_compared_in_both_directions(stored: dict[AdDayKey, Totals]) -> None:
    assert len(check_rollups(books_of(view()), stored)) == 1


@pytest.mark.parametrize(
    "stored", [{}, {(DAY, "store"): (15_500, 1)}, {(DAY, "store"): (15_500, 2), (DAY, "x"): (1, 0)}]
)
def test_charges_are_compared_in_both_directions(stored: dict[tuple[date, str], tuple[int, int]]) -> None:
    assert len(check_charges(books_of(view()), stored)) == 1


def test_a_budget_exceeded_by_one_micro_is_noticed() -> None:
    assert check_budgets(books_of(view()), {KEY: Totals(64, 0, 1_000_000)}) == []
    assert len(check_budgets(books_of(view()), {KEY: Totals(64, 0, 1_000_001)})) == 1


def test_an_ad_that_was_served_in_the_wrong_state_is_noticed() -> None:
    books = Books({"ad": AD})
    books.take_served(view(), "ad", "OR")
    books.take_served(view(), "unknown", "CA")
    assert len(books.misplaced) == 2
