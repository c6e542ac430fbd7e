"""What is derived from media: kinds, names, sizes, bounds. Pure, and cheap to import: child processes do.

Everything derived is a file of one directory, called by its kind; a child process that made it leaves it there.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

THUMBNAIL: Final = "thumbnail"
WEB: Final = "web"
TEXT: Final = "ocr.txt"
VIDEO: Final = "video"
POSTER: Final = "poster"

TYPES: Final[Mapping[str, str]] = {
    THUMBNAIL: "image/webp",
    WEB: "image/webp",
    TEXT: "text/plain; charset=utf-8",
    VIDEO: "video/mp4",
    POSTER: "image/jpeg",
}
"""Everything that can be derived, with its content type."""

EDGES_PX: Final[Mapping[str, int]] = {WEB: 1600, THUMBNAIL: 320}  #: the longer edge, at most; nothing is enlarged
VIDEO_EDGE_PX: Final = 1280
PIXELS_MAX: Final = 50_000_000  #: of a picture or a video's frame that anybody opens
PAGES_MAX: Final = 30  #: of a document whose text is read
SCANNED_PAGES_MAX: Final = 10  #: of those, pages that have to be looked at
PAGE_EDGE_PX: Final = 3300  #: of a page that OCR looks at: letter at 300 dpi
TEXT_CHARS_MAX: Final = 200_000
TEXT_CHARS_MIN: Final = 40  #: with less, a PDF is taken for a scan

PAGES: Final = "page-*.png"  #: files that a child leaves for OCR


class ExitStatus:
    """How a child process says what came of it; anything else is a crash, or the end of its means."""

    DONE: Final = 0
    UNDECODABLE: Final = 3
    TOO_MANY_PIXELS: Final = 4


class Shortfall(StrEnum):
    """Why something was not derived from media that are good."""

    NO_TEXT = "no_text"  #: there is nothing to read on it
    NO_OCR = "no_ocr"  #: it is a picture of text, and nothing reads those here
    NO_FFMPEG = "no_ffmpeg"


class Made(NamedTuple):
    """Something derived."""

    kind: str
    content: bytes

    @property
    def content_type(self) -> str:
        return TYPES[self.kind]


def cleaned(text: str) -> str:
    """Text as it is kept: no NUL, no blanks at the ends of lines, at most TEXT_CHARS_MAX characters."""
    lines = (line.rstrip() for line in text.replace("\0", "").splitlines())
    return "\n".join(lines).strip()[:TEXT_CHARS_MAX]


def is_enough(text: str) -> bool:
    """Whether a PDF with this text is no scan."""
    return sum(not char.isspace() for char in text) >= TEXT_CHARS_MIN
