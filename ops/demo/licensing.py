"""What the demo did about licences, from HTTP answers alone, and how it is held against the system's rows. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ops.demo.books import Difference, both_ways

TOO_EARLY: Final = "403 vendor_not_eligible"  #: what an activation gets before the licence is approved
PDF: Final = (
    b"<</Type/Catalog/Pages 2 0 R>>",
    b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
    b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
)
FONT: Final = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"


class StoredLicense(NamedTuple):
    """A licence as Postgres has it; `whole`: its document was uploaded, passed its checks and is attached."""

    store_id: str
    status: str
    whole: bool


@dataclass(slots=True)
class LicenseBook:
    """Licences by id, each with its store; and what ads got that were activated too early."""

    submitted: dict[str, str] = field(default_factory=dict)
    queued: list[str] = field(default_factory=list)  #: as the administrator found them, the oldest first
    approved: dict[str, str] = field(default_factory=dict)
    too_early: dict[str, str] = field(default_factory=dict)  #: by ad: the answer

    def totals(self) -> dict[str, int]:
        """For the report."""
        refused = sum(answer == TOO_EARLY for answer in self.too_early.values())
        return {"uploaded": len(self.submitted), "approved": len(self.approved), "activations_refused": refused}


def check_licenses(
    book: LicenseBook, stored: Mapping[str, StoredLicense], verified: set[str], vendors: set[str]
) -> list[Difference]:
    """Each licence in both directions; every vendor, and nobody else, stands verified; too early was too early.

    `verified` are the stores that the system has as verified, `vendors` those that the demo has opened.
    """
    due = {license_id: StoredLicense(store_id, "verified", True) for license_id, store_id in book.approved.items()}
    return [
        *(
            Difference("activated too early", ad, TOO_EARLY, got)
            for ad, got in book.too_early.items()
            if got != TOO_EARLY
        ),
        *([] if book.too_early else [Difference("activated too early", "tries", "at least 1", 0)]),
        *_members("licences in the queue", set(book.submitted), set(book.queued)),
        *both_ways("licences", due, stored),
        *_members("vendors with a licence", vendors, set(book.approved.values())),
        *_members("verified stores", vendors, verified),
    ]


def _members(level: str, expected: set[str], found: set[str]) -> list[Difference]:
    return [Difference(level, key, key in expected, key in found) for key in sorted(expected ^ found)]


def document(text: str) -> bytes:
    """A page of PDF that says `text` (ASCII without parentheses)."""
    stream = f"BT /F1 18 Tf 72 700 Td ({text}) Tj ET".encode("ascii")
    objects = (*PDF, b"<</Length %d>>stream\n%s\nendstream" % (len(stream), stream), FONT)
    body, offsets = b"%PDF-1.7\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(body))
        body += b"%d 0 obj%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size, start = len(objects) + 1, len(body)
    body += b"xref\n0 %d\n0000000000 65535 f \n%s" % (size, table)
    return body + b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (size, start)
