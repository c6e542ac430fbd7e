"""Media that are what they say: pictures, scans, certificates, and some that are not."""

from __future__ import annotations

import io
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

from PIL import Image
from pypdfium2 import PdfDocument
from reportlab.pdfgen.canvas import Canvas

from tests.api_driver import Api, Person, created
from tests.media_bucket import MEDIA, announcement, object_name, push, put

ORIENTATION, CAMERA = 0x0112, 0x010F

CERTIFICATE = """\
Green Leaf Analytics, LLC
License: C8-0000042-LIC    ISO/IEC 17025:2017
Certificate of Analysis
Product Name: Blue Dream 3.5 g
Batch #: BD-2026-014
Date Sampled: 01/10/2026   Date Received: 01/11/2026
Date Reported: 01/15/2026   Expires: 01/15/2027
Cannabinoids   %   mg/g
THCa   24.10   241.0
Delta-9 THC   0.52   5.2
CBD   <LOQ   <LOQ
Total THC: 21.66 %
Terpenes
beta-Myrcene   0.45 %
Limonene   0.31 %
Pesticides   PASS
Heavy Metals   PASS
Microbials   PASS
Overall Result: PASS"""


def picture(
    size: tuple[int, int] = (400, 200), format_: str = "JPEG", *, colour: str = "navy", **options: Any
) -> bytes:
    """A picture of one colour; `options` are Pillow's."""
    written = io.BytesIO()
    Image.new("RGB", size, colour).save(written, format_, **options)
    return written.getvalue()


def noise(size: tuple[int, int]) -> bytes:
    """A picture with something to compress in it."""
    written = io.BytesIO()
    Image.effect_noise(size, 80).convert("RGB").save(written, "JPEG")
    return written.getvalue()


def photo() -> bytes:
    """A picture as a camera held upright writes it: it lies on its side, and says by whom it was taken."""
    exif = Image.Exif()
    exif[ORIENTATION], exif[CAMERA] = 6, "Spy Camera"
    return picture((2000, 1000), exif=exif)


def bomb(side_px: int = 30_000) -> bytes:
    """A PNG of a few bytes that would be so large."""
    header = struct.pack(">IIBBBBB", side_px, side_px, 8, 6, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def pdf(text: str = CERTIFICATE) -> bytes:
    """A PDF with text of its own, a line a row."""
    written = io.BytesIO()
    canvas = Canvas(written, invariant=1)
    for number, line in enumerate(text.splitlines()):
        canvas.drawString(72, 760 - 18 * number, line)
    canvas.save()
    return written.getvalue()


def scan(text: str = CERTIFICATE, format_: str = "JPEG") -> bytes:
    """The same, as a scanner sees it: a picture, or a PDF with nothing but a picture in it."""
    page = PdfDocument(pdf(text))[0].render(scale=2.5).to_pil().convert("RGB")
    written = io.BytesIO()
    page.save(written, format_)
    return written.getvalue()


def film(path: Path) -> bytes:
    """A second of video, made by ffmpeg at the path."""
    source = ["-f", "lavfi", "-i", "testsrc=duration=1:size=1600x800:rate=5"]
    subprocess.run(["ffmpeg", "-v", "error", *source, "-c:v", "libx264", path], check=True)
    return path.read_bytes()


async def upload(api: Api, person: Person, kind: str, content: bytes, content_type: str) -> dict[str, Any]:
    """Media with this content, of which the API has heard."""
    body = announcement(kind, content_type=content_type, size_bytes=len(content))
    made = created(await api.as_(person).post(MEDIA, json=body))
    assert (await put(made["upload"], content)).status_code == 200
    bucket = api.services.settings.gcs_bucket
    assert (await push(api, object_name(made, person), bucket=bucket)).status_code == 204
    media: dict[str, Any] = made["media"]
    return media
