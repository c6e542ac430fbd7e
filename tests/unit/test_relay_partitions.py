"""Which archive partitions are made and which are dropped."""

from __future__ import annotations

from datetime import date, timedelta

from models.outbox_partitions import AHEAD_DAYS, KEPT_DAYS, to_create, to_drop

TODAY = date(2026, 3, 1)


def test_partitions_are_made_ahead_and_once() -> None:
    wanted = [TODAY + timedelta(days=n) for n in range(AHEAD_DAYS + 1)]
    assert to_create([], TODAY) == wanted
    assert to_create(wanted[:2], TODAY) == wanted[2:]
    assert to_create(wanted, TODAY) == []


def test_a_partition_is_dropped_when_its_last_row_is_older_than_thirty_days() -> None:
    edge = TODAY - timedelta(days=KEPT_DAYS)
    assert to_drop([edge - timedelta(days=1), edge, TODAY], TODAY) == [edge - timedelta(days=1)]
