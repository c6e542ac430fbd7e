"""Read URLs of the creatives of active ads, signed before a serve needs them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from time import monotonic
from typing import Final

import structlog

from models.ads.catalog import Candidate
from models.errors import Unavailable
from models.media.gateway import ReadUrls

BATCH: Final = 200  #: signed at most before the catalogue is shown; the others follow, their ads have no picture yet
RENEW_S: Final = 60.0

log = structlog.get_logger(__name__)


class CreativeUrls:
    """`get` is a look-up; `follow` signs."""

    def __init__(self, read_urls: ReadUrls) -> None:
        self._read_urls = read_urls
        self._urls: dict[str, str] = {}
        self._names: Collection[str] = ()
        self._due_at = 0.0

    def get(self, name: str | None) -> str | None:
        """The URL of an object, if there is one."""
        return None if name is None else self._urls.get(name)

    async def follow(self, candidates: Iterable[Candidate]) -> None:
        """Have URLs for these ads' creatives, and for no others."""
        self._names = {ad.creative for ad in candidates if ad.creative is not None}
        await self._sign()

    async def renew(self) -> None:
        """Call it often: it does something when URLs are missing or grow old."""
        if self._names and monotonic() >= self._due_at:
            await self._sign()

    async def _sign(self) -> None:
        urls: dict[str, str] = {}
        left = BATCH
        for name in self._names:
            signed = self._read_urls.kept(name)
            if signed is None and left:
                left -= 1
                try:
                    signed = await self._read_urls.url(name)
                except Unavailable as exc:
                    log.warning("creative_not_signed", error=repr(exc))
                    left = 0
            url = self._urls.get(name) if signed is None else signed.url
            if url is not None:
                urls[name] = url
        self._urls = urls
        self._due_at = monotonic() + (RENEW_S if len(urls) == len(self._names) else 0.0)
