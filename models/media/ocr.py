"""Who reads pictures of text: tesseract on this machine, OpenAI, Google's Document AI, or nobody."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from models.http_json import JsonCaller, Refused
from models.media import children
from models.openai import Chat

PAGE_TYPE: Final = "image/png"
LAYOUT: Final = "4"  #: tesseract's --psm: one column of text of several sizes; rows of tables stay lines
PROMPT: Final = (
    "Transcribe all text of these pages, exactly as printed, in reading order. Keep each row of a table on one line,"
    " its cells separated by two spaces. Answer with the text alone."
)


class Ocr(Protocol):
    """Reads pages (PNG files). Raises Unavailable when it may work later, Refused when it will not."""

    async def read(self, pages: Sequence[Path]) -> str: ...

    async def close(self) -> None: ...


class Tesseract:
    """The program on this machine, page by page, in a confined process."""

    def __init__(self, program: str) -> None:
        self._program = program

    async def read(self, pages: Sequence[Path]) -> str:
        return "\n\n".join([await self._page(page) for page in pages])

    async def _page(self, page: Path) -> str:
        target = page.with_suffix("")
        ended = await children.run(
            [self._program, page, target, "-l", "eng", "--psm", LAYOUT, "-c", "preserve_interword_spaces=1"],
            directory=page.parent,
        )
        if ended.status != 0:
            raise Refused(f"tesseract ended with {ended.status}: {ended.said}")
        return target.with_suffix(".txt").read_text(errors="replace")

    async def close(self) -> None:
        """Nothing is open."""


class OpenAi:
    """A chat model that looks at all pages at once."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat

    async def read(self, pages: Sequence[Path]) -> str:
        pictures = [await asyncio.to_thread(_encoded, page) for page in pages]
        parts: list[dict[str, Any]] = [{"type": "text", "text": PROMPT}]
        parts += [
            {"type": "image_url", "image_url": {"url": f"data:{PAGE_TYPE};base64,{picture}", "detail": "high"}}
            for picture in pictures
        ]
        return await self._chat.answer(parts)

    async def close(self) -> None:
        await self._chat.close()


class DocumentAi:
    """A processor of Google's Document AI, page by page. `token` gives an access token, and may wait for it."""

    def __init__(self, processor: str, *, base: str, token: Callable[[], str]) -> None:
        self._url, self._token = f"{base.rstrip('/')}/v1/{processor}:process", token
        self._http = JsonCaller("Document AI")

    async def read(self, pages: Sequence[Path]) -> str:
        return "\n\n".join([await self._page(page) for page in pages])

    async def _page(self, page: Path) -> str:
        picture = await asyncio.to_thread(_encoded, page)
        body = {"rawDocument": {"content": picture, "mimeType": PAGE_TYPE}, "skipHumanReview": True}
        answer = await self._http.post(self._url, body, token=await asyncio.to_thread(self._token))
        text = (answer.get("document") or {}).get("text", "") if isinstance(answer, dict) else None
        if not isinstance(text, str):
            raise Refused("Document AI answers in another form")
        return text

    async def close(self) -> None:
        await self._http.close()


def _encoded(page: Path) -> str:
    return base64.b64encode(page.read_bytes()).decode()
