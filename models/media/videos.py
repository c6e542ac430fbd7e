"""Smaller videos, by ffmpeg in a confined process: H.264 and AAC that browsers play from the start, and a still."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from models.media import children
from models.media.children import Ended
from models.media.deriving import PIXELS_MAX, POSTER, VIDEO, VIDEO_EDGE_PX, ExitStatus

QUIET: Final = ("-nostdin", "-v", "error", "-y", "-threads", "1")
INPUT: Final = ("-protocol_whitelist", "file", "-max_pixels", str(PIXELS_MAX), "-f", "mp4", "-i")
SCALE: Final = (
    f"scale='trunc(iw*min(1,{VIDEO_EDGE_PX}/max(iw,ih))/2)*2':'trunc(ih*min(1,{VIDEO_EDGE_PX}/max(iw,ih))/2)*2'"
)
SECONDS_MAX: Final = 180
BARE: Final = ("-map_metadata", "-1", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact")
FILM: Final = (
    *("-map", "0:v:0", "-map", "0:a:0?", "-t", str(SECONDS_MAX), "-vf", SCALE),
    *("-c:v", "libx264", "-preset", "veryfast", "-crf", "28", "-pix_fmt", "yuv420p", "-threads", "1"),
    *("-c:a", "aac", "-b:a", "96k", "-movflags", "+faststart", "-f", "mp4"),
)
STILL: Final = ("-map", "0:v:0", "-vf", SCALE, "-frames:v", "1", "-c:v", "mjpeg", "-q:v", "4", "-f", "image2")


async def derive(ffmpeg: str, original: Path, directory: Path) -> Ended:
    """Leave the video and a still of its beginning; the first that goes wrong is the outcome."""
    for options, target in ((STILL, POSTER), (FILM, VIDEO)):
        argv = [ffmpeg, *QUIET, *INPUT, original, *BARE, *options, directory / target]
        ended = await children.run(argv, directory=directory)
        if ended.status is None or ended.status < 0:
            return ended
        if ended.status != 0 or not (directory / target).exists():
            return Ended(ExitStatus.UNDECODABLE, ended.said)
    return ended
