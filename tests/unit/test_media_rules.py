"""Kinds, types, first bytes, names of objects, and what protects media."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.database import new_id
from models.errors import MediaProtected, StateConflict, ValidationFailed
from models.media import rules
from models.media.rules import (
    CONTENT_TYPES,
    MAGIC,
    ORIGINAL,
    SLOTS,
    TRANSITIONS,
    EntityType,
    Failure,
    MediaKind,
    MediaStatus,
    ObjectFacts,
    ObjectName,
    Slot,
    Step,
)
from tests.media_bucket import CONTENT

GIF = b"GIF89a" + bytes(26)
QUICKTIME = b"\0\0\0\x14ftypqt  " + bytes(20)


def test_every_kind_has_types_and_every_type_a_test_of_its_bytes() -> None:
    assert CONTENT_TYPES.keys() == set(MediaKind)
    assert set().union(*CONTENT_TYPES.values()) == MAGIC.keys()
    assert {rule.kind for rule in SLOTS.values()} == set(MediaKind)


@pytest.mark.parametrize(("announced", "actual"), list(product(MAGIC, [*CONTENT, "image/gif"])))
def test_first_bytes_tell_one_type_from_all_others(announced: str, actual: str) -> None:
    head = GIF if actual == "image/gif" else CONTENT[actual]
    assert MAGIC[announced](head) is (announced == actual)


@pytest.mark.parametrize("head", [b"", b"<", b"\xff\xd8", b"RIFF\0\0\0\0WAVE", QUICKTIME, b"%PDF", b" %PDF-1.4"])
def test_other_bytes_are_of_no_type(head: bytes) -> None:
    assert not any(check(head) for check in MAGIC.values())


@given(st.binary(max_size=64))
def test_no_bytes_disturb_the_check(head: bytes) -> None:
    assert sum(check(head) for check in MAGIC.values()) <= 1


@pytest.mark.parametrize(
    ("facts", "failure"),
    [
        (ObjectFacts(32, "image/png", 1, CONTENT["image/png"]), None),
        (ObjectFacts(31, "image/png", 1, CONTENT["image/png"]), Failure.SIZE),
        (ObjectFacts(32, "text/html", 1, CONTENT["image/png"]), Failure.TYPE),
        (ObjectFacts(32, "image/png", 1, CONTENT["image/jpeg"]), Failure.CONTENT),
        (ObjectFacts(32, "image/png", 1, b""), Failure.CONTENT),
    ],
)
def test_upload_is_what_was_announced_or_fails(facts: ObjectFacts, failure: Failure | None) -> None:
    assert rules.failure_of(facts, content_type="image/png", size_bytes=32) is failure


@pytest.mark.parametrize(("kind", "content_type"), list(product(MediaKind, [*MAGIC, "image/svg+xml", "text/html", ""])))
def test_kind_takes_its_types_alone(kind: MediaKind, content_type: str) -> None:
    if content_type in CONTENT_TYPES[kind]:
        rules.check_announced(kind, content_type)
    else:
        with pytest.raises(ValidationFailed):
            rules.check_announced(kind, content_type)


@pytest.mark.parametrize(("status", "step"), list(product(MediaStatus, Step)))
def test_lifecycle_has_no_other_steps(status: MediaStatus, step: Step) -> None:
    if (status, step) in TRANSITIONS:
        assert rules.next_status(status, step) is TRANSITIONS[status, step]
    else:
        with pytest.raises(StateConflict, match=str(status)):
            rules.next_status(status, step)


def test_name_of_an_object_reads_back() -> None:
    name = ObjectName(new_id(), new_id(), ORIGINAL)
    assert ObjectName.parse(str(name)) == name
    assert str(name).startswith(name.prefix)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "a/b/c",
        "{0}/{1}",
        "{0}/{1}/",
        "/{0}/{1}/original",
        "{0}/{1}/a/b",
        "{0}/{1}/../x",
        "{0}//{1}/x",
        "{u}/{1}/x",
    ],
)
def test_other_names_are_not_ours(text: str) -> None:
    store_id, media_id = UUID(int=0xA << 100), UUID(int=0xB << 100)
    assert ObjectName.parse(text.format(store_id, media_id, u=str(store_id).upper())) is None


@pytest.mark.parametrize(("kind", "status"), list(product(MediaKind, MediaStatus)))
def test_only_media_of_a_licence_must_be_whole_to_be_deleted(kind: MediaKind, status: MediaStatus) -> None:
    whole = status in (MediaStatus.UPLOADED, MediaStatus.READY)
    if kind is MediaKind.LICENSE and not whole:
        with pytest.raises(MediaProtected):
            rules.check_deletable(kind, status, [])
    else:
        rules.check_deletable(kind, status, [])


@pytest.mark.parametrize("place", SLOTS)
def test_licences_and_certificates_protect_and_nothing_else(place: tuple[EntityType, Slot]) -> None:
    protecting = {(EntityType.LICENSE, Slot.DOCUMENT), (EntityType.PRODUCT, Slot.COA)}
    assert SLOTS[place].protects == (place in protecting)
    if place in protecting:
        with pytest.raises(MediaProtected):
            rules.check_deletable(SLOTS[place].kind, MediaStatus.READY, [place])
    else:
        rules.check_deletable(SLOTS[place].kind, MediaStatus.READY, [place])


def test_grace_is_by_the_wall_clock_of_the_id() -> None:
    wall = datetime.now(UTC)
    assert not rules.grace_over(new_id(), wall=wall)
    assert rules.grace_over(new_id(), wall=wall + timedelta(seconds=6))
    assert rules.grace_over(uuid4(), wall=wall)
