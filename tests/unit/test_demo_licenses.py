"""The demo's book of licences: what it accepts, and that it notices what is missing or too much."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from models.media.rules import MAGIC
from ops.demo.licensing import TOO_EARLY, LicenseBook, StoredLicense, check_licenses, document

Rows = dict[str, StoredLicense]


def opened() -> tuple[LicenseBook, Rows, set[str]]:
    """A book in which everything went well, the rows of the licences and the verified stores."""
    held = {"l1": "s1", "l2": "s2"}
    book = LicenseBook(submitted=dict(held), queued=["l1", "l2"], approved=dict(held), too_early={"ad": TOO_EARLY})
    return book, {key: StoredLicense(store, "verified", True) for key, store in held.items()}, {"s1", "s2"}


def test_licences_that_were_approved_and_are_stored_add_up() -> None:
    book, rows, verified = opened()
    assert check_licenses(book, rows, verified, {"s1", "s2"}) == []
    assert book.totals() == {"uploaded": 2, "approved": 2, "activations_refused": 1}


@pytest.mark.parametrize(
    ("level", "spoil"),
    [
        ("activated too early", lambda book, rows, verified: book.too_early.update(ad="200")),
        ("activated too early", lambda book, rows, verified: book.too_early.clear()),
        ("licences in the queue", lambda book, rows, verified: book.queued.pop()),
        ("licences in the queue", lambda book, rows, verified: book.queued.append("l3")),
        ("licences", lambda book, rows, verified: rows.pop("l1")),
        ("licences", lambda book, rows, verified: rows.update(l3=StoredLicense("s1", "pending", True))),
        ("licences", lambda book, rows, verified: rows.update(l1=StoredLicense("s1", "expired", True))),
        ("licences", lambda book, rows, verified: rows.update(l1=StoredLicense("s1", "verified", False))),
        ("licences", lambda book, rows, verified: rows.update(l1=StoredLicense("s2", "verified", True))),
        ("vendors with a licence", lambda book, rows, verified: (book.approved.pop("l1"), rows.pop("l1"))),
        ("verified stores", lambda book, rows, verified: verified.remove("s1")),
        ("verified stores", lambda book, rows, verified: verified.add("s3")),
    ],
)
def test_what_is_not_as_it_should_be_is_named(
    level: str, spoil: Callable[[LicenseBook, Rows, set[str]], object]
) -> None:
    book, rows, verified = opened()
    spoil(book, rows, verified)
    assert {difference.level for difference in check_licenses(book, rows, verified, {"s1", "s2"})} == {level}


def test_a_document_is_a_pdf_whose_table_leads_to_its_objects() -> None:
    made = document("Vendor 1: licence OR-1")
    assert MAGIC["application/pdf"](made)
    assert b"(Vendor 1: licence OR-1) Tj" in made
    table = int(made.rsplit(b"startxref\n", 1)[1].split(b"\n")[0])
    assert made[table:].startswith(b"xref\n0 6\n")
    for number in range(1, 6):
        offset = int(made[table:].split(b"\n")[2 + number][:10])
        assert made[offset:].startswith(b"%d 0 obj" % number)
