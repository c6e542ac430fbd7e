"""Makes what can be derived from media: smaller pictures, text, a smaller video. Files and processes, no rows.

What strangers uploaded is opened in confined processes alone (children.py).
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from models.http_json import Refused
from models.media import children, videos
from models.media.children import Ended
from models.media.deriving import PAGES, TEXT, TYPES, ExitStatus, Made, Shortfall, cleaned
from models.media.ocr import Ocr
from models.media.rules import DOCUMENTS, ORIGINAL, Failure, MediaKind

Reason = Failure | Shortfall

PDF: Final = "application/pdf"
FAILURES: Final = {ExitStatus.UNDECODABLE: Failure.UNDECODABLE, ExitStatus.TOO_MANY_PIXELS: Failure.PIXELS}


class Result(NamedTuple):
    """What was made, and why not more; `detail` is for the log."""

    made: Sequence[Made]
    reason: Reason | None = None
    detail: str = ""


class Maker:
    """`ocr`: None where nobody reads pictures of text; `ffmpeg`: the program, None where there is none."""

    def __init__(self, scratch: Path, *, ocr: Ocr | None, ffmpeg: str | None) -> None:
        self._scratch, self._ocr, self._ffmpeg = scratch, ocr, ffmpeg

    async def close(self) -> None:
        if self._ocr is not None:
            await self._ocr.close()

    async def make(self, content: bytes, *, kind: MediaKind, content_type: str) -> Result:
        """Everything that media of this kind and type have. Unavailable when OCR does not answer now."""
        with tempfile.TemporaryDirectory(dir=self._scratch) as directory:
            place = Path(directory)
            await asyncio.to_thread((place / ORIGINAL).write_bytes, content)
            ended = await self._derive(place, kind, content_type)
            if ended is None:
                return Result([], Shortfall.NO_FFMPEG)
            if ended.status != ExitStatus.DONE:
                return Result([], FAILURES.get(ended.status or -1, Failure.GAVE_UP), f"{ended.status}: {ended.said}")
            reason, detail = await self._read(place) if kind in DOCUMENTS else (None, "")
            return Result(await asyncio.to_thread(_collected, place), reason, detail)

    async def _derive(self, place: Path, kind: MediaKind, content_type: str) -> Ended | None:
        original = place / ORIGINAL
        if content_type.startswith("video/"):
            return None if self._ffmpeg is None else await videos.derive(self._ffmpeg, original, place)
        if content_type == PDF:
            return await children.run([sys.executable, "-m", "models.media.papers", original, place], directory=place)
        page = ["page"] if kind in DOCUMENTS else []
        argv: list[str | Path] = [sys.executable, "-m", "models.media.pictures", original, place, *page]
        return await children.run(argv, directory=place)

    async def _read(self, place: Path) -> tuple[Reason | None, str]:
        """Leave what is read on pages, where there are any, if it is more than the text there is; why there is none."""
        target, reason, detail = place / TEXT, Shortfall.NO_TEXT, ""
        pages = sorted(place.glob(PAGES))
        if pages and self._ocr is None:
            reason = Shortfall.NO_OCR
        elif pages and self._ocr is not None:
            try:
                seen = cleaned(await self._ocr.read(pages))
            except Refused as exc:
                seen, detail = "", str(exc)
            if len(seen) > (len(target.read_text()) if target.exists() else 0):
                target.write_text(seen)
        return (None if target.exists() else reason), detail


def _collected(place: Path) -> list[Made]:
    return [Made(kind, (place / kind).read_bytes()) for kind in TYPES if (place / kind).exists()]
