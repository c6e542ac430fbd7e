"""The text of a PDF: ``python -m models.media.papers PDF DIRECTORY``, in a confined process (children.py).

Leaves `ocr.txt` where the PDF has text of its own, rows of tables kept as lines; its pages as pictures for OCR where it
has next to none.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Final

import pdfplumber
import pypdfium2

from models.media.deriving import PAGE_EDGE_PX, PAGES_MAX, SCANNED_PAGES_MAX, TEXT, ExitStatus, cleaned, is_enough

POINTS_PER_INCH: Final = 72
DPI: Final = 200


def text_of(path: Path) -> str:
    """What is written in the PDF, page by page, row by row."""
    pages = []
    with pdfplumber.open(path) as document:
        for page in document.pages[:PAGES_MAX]:
            pages.append(page.extract_text(y_tolerance=4) or "")
            page.close()
    return cleaned("\n\n".join(pages))


def draw(path: Path, directory: Path) -> None:
    """Leave the pages as grey pictures, none larger than PAGE_EDGE_PX."""
    document = pypdfium2.PdfDocument(path)
    for number in range(min(len(document), SCANNED_PAGES_MAX)):
        page = document[number]
        scale = min(DPI / POINTS_PER_INCH, PAGE_EDGE_PX / max(*page.get_size(), 1.0))
        bitmap = page.render(scale=scale, grayscale=True)
        bitmap.to_pil().save(directory / f"page-{number + 1:03}.png", "PNG")
        page.close()


def derive(path: Path, directory: Path) -> None:
    """Leave the text, and what it can be read from where it is too little."""
    text = text_of(path)
    if text:
        (directory / TEXT).write_text(text)
    if not is_enough(text):
        draw(path, directory)


def main(arguments: list[str]) -> int:
    """An ExitStatus."""
    logging.disable(logging.CRITICAL)
    try:
        derive(Path(arguments[0]), Path(arguments[1]))
    except MemoryError:
        raise
    except Exception as exc:  # whatever a parser makes of hostile bytes
        print(repr(exc)[:500], file=sys.stderr)
        return ExitStatus.UNDECODABLE
    return ExitStatus.DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
