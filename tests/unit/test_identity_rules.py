"""Which store is active, who may give and take roles."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from models.errors import Conflict, Forbidden, NotFound
from models.identity.rules import ActiveStore, StoreMembership, check_grant, check_removal, choose_store, keep_store

FIRST = StoreMembership(uuid4(), "First", "buyer", "owner")
SECOND = StoreMembership(uuid4(), "Second", "vendor", "staff")


@pytest.mark.parametrize(
    ("stores", "wanted", "chosen"),
    [([], None, None), ([FIRST], None, FIRST), ([FIRST, SECOND], None, None), ([FIRST, SECOND], SECOND.id, SECOND)],
)
def test_store_is_active_when_chosen_or_the_only_one(
    stores: list[StoreMembership], wanted: UUID | None, chosen: StoreMembership | None
) -> None:
    expected = ActiveStore(chosen.id, chosen.type, chosen.role) if chosen else None
    assert choose_store(stores, wanted) == expected


def test_foreign_store_cannot_be_chosen() -> None:
    with pytest.raises(NotFound):
        choose_store([FIRST], SECOND.id)


def test_session_loses_a_store_that_its_user_left() -> None:
    assert keep_store([FIRST], SECOND.id) is None
    assert keep_store([FIRST], None) is None
    assert keep_store([FIRST, SECOND], SECOND.id) == ActiveStore(SECOND.id, "vendor", "staff")


@pytest.mark.parametrize(("granter", "role"), [("staff", "staff"), ("manager", "owner"), ("staff", "owner")])
def test_role_beyond_reach_is_not_given(granter: str, role: str) -> None:
    with pytest.raises(Forbidden):
        check_grant(granter, role)


@pytest.mark.parametrize(("granter", "role"), [("manager", "manager"), ("manager", "staff"), ("owner", "owner")])
def test_role_within_reach_is_given(granter: str, role: str) -> None:
    check_grant(granter, role)


def test_last_owner_is_not_removed() -> None:
    with pytest.raises(Conflict):
        check_removal("owner", "owner", owners=1)
    check_removal("owner", "owner", owners=2)
    check_removal("manager", "staff", owners=1)


def test_manager_does_not_remove_an_owner() -> None:
    with pytest.raises(Forbidden):
        check_removal("manager", "owner", owners=2)
