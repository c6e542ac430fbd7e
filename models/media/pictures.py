"""Smaller pictures: ``python -m models.media.pictures PICTURE DIRECTORY [page]``, in a confined process (children.py).

Leaves a file for each of EDGES_PX; with `page` also the picture as OCR wants it. The same picture gives the same files.
What a camera writes into a picture (EXIF: place, time, device) is left out; how it was held is applied.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Final

from PIL import Image, ImageOps

from models.media.deriving import EDGES_PX, PAGE_EDGE_PX, PIXELS_MAX, ExitStatus

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF")
QUALITY: Final = 80
EFFORT: Final = 4


class TooManyPixels(Exception):
    """It would take too much memory to open."""


def opened(path: Path) -> Image.Image:
    """The picture (the first of a moving one), upright, in colours that WebP has. TooManyPixels; anything: no picture.

    Its size is read, and refused, before any pixel is.
    """
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the bound below is stricter
    Image.MAX_IMAGE_PIXELS = PIXELS_MAX
    try:
        source = Image.open(path, formats=FORMATS)
    except Image.DecompressionBombError:
        raise TooManyPixels from None
    if source.width * source.height > PIXELS_MAX:
        raise TooManyPixels
    if source.format == "JPEG":  # decoded at half or quarter size where that is enough
        source.draft("RGB", (2 * max(EDGES_PX.values()),) * 2)
    picture = ImageOps.exif_transpose(source)
    clear = picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info
    return picture.convert("RGBA" if clear else "RGB")


def smaller(picture: Image.Image, edge_px: int) -> Image.Image:
    """A copy with no edge longer than `edge_px`."""
    copy = picture.copy()
    copy.thumbnail((edge_px, edge_px), Image.Resampling.LANCZOS)
    return copy


def derive(path: Path, directory: Path, *, page: bool) -> None:
    """Leave what is derived in the directory."""
    picture = opened(path)
    colours = picture.info.get("icc_profile") if picture.mode in ("RGB", "RGBA") else None
    for kind, edge_px in EDGES_PX.items():
        copy = smaller(picture, edge_px)
        copy.info = {}
        copy.save(directory / kind, "WEBP", quality=QUALITY, method=EFFORT, icc_profile=colours, exif=b"")
    if page:
        for_ocr(path).save(directory / "page-001.png", "PNG")


def for_ocr(path: Path) -> Image.Image:
    """The picture as OCR wants it: upright, grey, on white, large."""
    with Image.open(path, formats=FORMATS) as picture:
        upright = ImageOps.exif_transpose(picture).convert("RGBA")
    paper = Image.new("RGBA", upright.size, "white")
    return smaller(Image.alpha_composite(paper, upright).convert("L"), PAGE_EDGE_PX)


def main(arguments: list[str]) -> int:
    """An ExitStatus."""
    path, directory = Path(arguments[0]), Path(arguments[1])
    try:
        derive(path, directory, page="page" in arguments[2:])
    except TooManyPixels:
        return ExitStatus.TOO_MANY_PIXELS
    except MemoryError:
        raise
    except Exception as exc:  # whatever a decoder makes of hostile bytes
        print(repr(exc)[:500], file=sys.stderr)
        return ExitStatus.UNDECODABLE
    return ExitStatus.DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
