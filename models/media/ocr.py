"""Who reads pictures of text: tesseract on this machine, OpenAI, Google's Document AI, or nobody."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import aiohttp

from models.errors import Unavailable
from models.media import children

PAGE_TYPE: Final = "image/png"
TIMEOUT_S: Final = 90.0  #: of one call to somebody else's service
RETRIED: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
LAYOUT: Final = "4"  #: tesseract's --psm: one column of text of several sizes; rows of tables stay lines
PROMPT: Final = (
    "Transcribe all text of these pages, exactly as printed, in reading order. Keep each row of a table on one line,"
    " its cells separated by two spaces. Answer with the text alone."
)


class OcrRefused(Exception):
    """The provider will not read this, however often it is asked."""


class Ocr(Protocol):
    """Reads pages (PNG files). Raises Unavailable when it may work later, OcrRefused when it will not."""

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
            raise OcrRefused(f"tesseract ended with {ended.status}: {ended.said}")
        return target.with_suffix(".txt").read_text(errors="replace")

    async def close(self) -> None:
        """Nothing is open."""


class HttpCaller:
    """POSTs JSON to somebody else's service; what it says becomes Unavailable, or OcrRefused."""

    def __init__(self, who: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._who = who
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def post(self, url: str, body: Any, *, token: str) -> Any:
        """The JSON of a 200."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout)
        try:
            async with self._session.post(url, json=body, headers={"Authorization": f"Bearer {token}"}) as answer:
                if answer.status in RETRIED:
                    raise Unavailable(f"{self._who} answers {answer.status}")
                if answer.status != 200:
                    raise OcrRefused(f"{self._who} answers {answer.status}")
                return await answer.json()
        except (aiohttp.ClientError, TimeoutError, ValueError) as exc:
            raise Unavailable(f"{self._who} does not answer: {type(exc).__name__}") from exc

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


class OpenAi:
    """A chat model that looks at all pages at once."""

    def __init__(self, key: str, *, base: str, model: str) -> None:
        self._key, self._url, self._model = key, f"{base.rstrip('/')}/v1/chat/completions", model
        self._http = HttpCaller("OpenAI")

    async def read(self, pages: Sequence[Path]) -> str:
        pictures = [await asyncio.to_thread(_encoded, page) for page in pages]
        parts: list[dict[str, Any]] = [{"type": "text", "text": PROMPT}]
        parts += [
            {"type": "image_url", "image_url": {"url": f"data:{PAGE_TYPE};base64,{picture}", "detail": "high"}}
            for picture in pictures
        ]
        body = {"model": self._model, "messages": [{"role": "user", "content": parts}]}
        return answer_of(await self._http.post(self._url, body, token=self._key))

    async def close(self) -> None:
        await self._http.close()


def answer_of(completion: Any) -> str:
    """The text of a chat completion; OcrRefused for a refusal, or what is cut off."""
    try:
        choice = completion["choices"][0]
        text, ending = choice["message"]["content"], choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise OcrRefused("OpenAI answers in another form") from None
    if not isinstance(text, str) or ending not in (None, "stop"):
        raise OcrRefused(f"OpenAI gives no whole answer: {ending}")
    return text


class DocumentAi:
    """A processor of Google's Document AI, page by page. `token` gives an access token, and may wait for it."""

    def __init__(self, processor: str, *, base: str, token: Callable[[], str]) -> None:
        self._url, self._token = f"{base.rstrip('/')}/v1/{processor}:process", token
        self._http = HttpCaller("Document AI")

    async def read(self, pages: Sequence[Path]) -> str:
        return "\n\n".join([await self._page(page) for page in pages])

    async def _page(self, page: Path) -> str:
        picture = await asyncio.to_thread(_encoded, page)
        body = {"rawDocument": {"content": picture, "mimeType": PAGE_TYPE}, "skipHumanReview": True}
        answer = await self._http.post(self._url, body, token=await asyncio.to_thread(self._token))
        text = (answer.get("document") or {}).get("text", "") if isinstance(answer, dict) else None
        if not isinstance(text, str):
            raise OcrRefused("Document AI answers in another form")
        return text

    async def close(self) -> None:
        await self._http.close()


def _encoded(page: Path) -> str:
    return base64.b64encode(page.read_bytes()).decode()
