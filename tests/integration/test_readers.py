"""Who reads for us: what OpenAI and Document AI are sent, what comes of their answers; how programs are confined."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from models.drafts.gateway import Answer, ChatReader, answer_schema
from models.errors import Unavailable
from models.http_json import Refused
from models.media import children
from models.media.ocr import DocumentAi, OpenAi
from models.openai import Chat
from ops.media_maker import draft_reader, media_maker, ocr
from ops.settings import Settings
from tests.media_samples import CERTIFICATE, picture

PROCESSOR = "projects/p/locations/eu/processors/abc"
ANSWER = {
    "title": "Blue Dream",
    "category": "flower",
    "labs": [{"name": "Green Leaf", "license": None}],
    "batch": "B-1",
    "potency": [{"name": "thca_percent", "percent": 24.1}],
    "terpenes": [],
    "contaminants": [{"group": "pesticides", "verdict": "pass"}],
    "result": "pass",
    "dates": [{"name": "sampled_on", "day": "2026-01-10"}],
    "confidence": dict.fromkeys(
        ("title", "category", "labs", "batch", "potency", "terpenes", "contaminants", "result", "dates"), 1.7
    ),
}


@dataclass
class Service:
    """Somebody else's service: answers as told, and keeps what it was asked."""

    answer: Any = None
    status: int = 200
    url: str = ""
    asked: list[tuple[str, str | None, Any]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append((request.path, request.headers.get("authorization"), await request.json()))
        return web.json_response(self.answer, status=self.status)


@asynccontextmanager
async def serving() -> AsyncIterator[Service]:
    service = Service()
    app = web.Application(client_max_size=32 << 20)
    app.router.add_post("/{path:.*}", service.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    service.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield service
    finally:
        await runner.cleanup()


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving() as found:
        yield found


@pytest.fixture
async def chat(service: Service) -> AsyncIterator[Chat]:
    made = Chat("sk-test", base=service.url, model="reader")
    yield made
    await made.close()


def said(text: str | None, ending: str = "stop") -> Any:
    """A chat completion."""
    return {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": ending}]}


@pytest.fixture
def pages(tmp_path: Path) -> list[Path]:
    made = [tmp_path / f"page-{number:03}.png" for number in (1, 2)]
    for page in made:
        page.write_bytes(picture((8, 8), "PNG"))
    return made


# -- OCR --------------------------------------------------------------------------------------------------------------


async def test_openai_sees_all_pages_in_one_question(service: Service, chat: Chat, pages: list[Path]) -> None:
    service.answer = said("a page\nand another")
    assert await OpenAi(chat).read(pages) == "a page\nand another"
    ((path, token, body),) = service.asked
    assert (path, token, body["model"]) == ("/v1/chat/completions", "Bearer sk-test", "reader")
    text, *pictures = body["messages"][0]["content"]
    assert "Transcribe" in text["text"]
    urls = [part["image_url"]["url"] for part in pictures]
    assert urls == [f"data:image/png;base64,{base64.b64encode(page.read_bytes()).decode()}" for page in pages]


async def test_document_ai_sees_page_by_page(service: Service, pages: list[Path]) -> None:
    service.answer = {"document": {"text": "a page"}}
    reader = DocumentAi(PROCESSOR, base=service.url, token=lambda: "ya29")
    assert await reader.read(pages) == "a page\n\na page"
    await reader.close()
    assert [(path, token) for path, token, _ in service.asked] == [(f"/v1/{PROCESSOR}:process", "Bearer ya29")] * 2
    document = service.asked[0][2]["rawDocument"]
    assert (document["mimeType"], base64.b64decode(document["content"])) == ("image/png", pages[0].read_bytes())


async def test_a_page_without_text_is_an_empty_one(service: Service, pages: list[Path]) -> None:
    service.answer = {"document": {}}
    reader = DocumentAi(PROCESSOR, base=service.url, token=lambda: "ya29")
    assert (await reader.read(pages)).strip() == ""
    await reader.close()


@pytest.mark.parametrize(
    ("status", "answer", "error"),
    [
        (429, {}, Unavailable),
        (503, {}, Unavailable),
        (400, {}, Refused),
        (401, {}, Refused),
        (200, {"choices": []}, Refused),
        (200, said(None), Refused),
        (200, said("half of", "length"), Refused),
        (200, said("", "content_filter"), Refused),
        (200, [], Refused),
    ],
)
async def test_what_a_service_answers_is_worth_another_try_or_not(
    service: Service, chat: Chat, pages: list[Path], status: int, answer: Any, error: type[Exception]
) -> None:
    service.status, service.answer = status, answer
    with pytest.raises(error):
        await OpenAi(chat).read(pages)


async def test_a_service_that_is_away_is_worth_another_try(pages: list[Path]) -> None:
    away = Chat("k", base="http://127.0.0.1:9", model="m")
    with pytest.raises(Unavailable):
        await OpenAi(away).read(pages)
    await away.close()


# -- drafts -----------------------------------------------------------------------------------------------------------


async def test_a_model_is_asked_in_a_form_and_its_answer_is_a_draft(service: Service, chat: Chat) -> None:
    service.answer = said(json.dumps(ANSWER))
    reading = await ChatReader(chat).read(CERTIFICATE)
    assert reading.fields == {
        "title": "Blue Dream",
        "category": "flower",
        "labs": [{"name": "Green Leaf", "license": None}],
        "batch": "B-1",
        "potency": {"thca_percent": 24.1},
        "contaminants": {"pesticides": "pass"},
        "result": "pass",
        "dates": {"sampled_on": "2026-01-10"},
    }
    assert set(reading.confidence.values()) == {1.0}, "none is more than certain"
    ((_, _, body),) = service.asked
    assert body["messages"][1]["content"] == [{"type": "text", "text": CERTIFICATE}]
    form = body["response_format"]["json_schema"]
    assert (form["strict"], form["schema"]) == (True, answer_schema())


def test_the_form_is_one_that_strict_mode_takes() -> None:
    """Every object is closed and names all of its properties."""

    def objects(schema: Any) -> list[Any]:
        inner = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
        found = [one for value in inner for one in objects(value)]
        return [*found, schema] if isinstance(schema, dict) and schema.get("type") == "object" else found

    found = objects(answer_schema())
    assert len(found) == 7
    for one in found:
        assert one["additionalProperties"] is False
        assert sorted(one["required"]) == sorted(one["properties"])
    assert set(Answer.model_fields) == set(answer_schema()["properties"])


@pytest.mark.parametrize(
    "changes",
    [
        {"result": "maybe"},
        {"terpenes": [{"name": "x", "percent": 300}]},
        {"dates": [{"name": "sampled_on", "day": "soon"}]},
        {"also": 1},
        {"labs": None},
    ],
)
async def test_an_answer_in_another_form_is_refused(service: Service, chat: Chat, changes: dict[str, Any]) -> None:
    service.answer = said(json.dumps(ANSWER | changes))
    with pytest.raises(Refused):
        await ChatReader(chat).read(CERTIFICATE)


# -- settings ---------------------------------------------------------------------------------------------------------

DATABASE = "postgresql://localhost/x"


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"ocr_provider": "openai"}, "OPENAI_API_KEY"),
        ({"draft_reader": "openai"}, "OPENAI_API_KEY"),
        ({"ocr_provider": "documentai"}, "DOCUMENTAI_PROCESSOR"),
        ({"documentai_processor": "abc"}, "documentai_processor"),
    ],
)
def test_a_reader_without_what_it_needs_is_refused_by_name(values: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Settings(database_url=DATABASE, **values)


def test_the_settings_choose_who_reads(tmp_path: Path) -> None:
    with_key = Settings(database_url=DATABASE, ocr_provider="openai", draft_reader="openai", openai_api_key="k")
    assert isinstance(ocr(with_key), OpenAi)
    assert isinstance(draft_reader(with_key), ChatReader)
    google = Settings(database_url=DATABASE, ocr_provider="documentai", documentai_processor=PROCESSOR)
    assert isinstance(ocr(google), DocumentAi)
    bare = Settings(database_url=DATABASE, tesseract_program="no-such-program", ffmpeg_program="no-such-program")
    assert ocr(bare) is None
    media_maker(bare, tmp_path)  # a warning, no more


# -- programs ---------------------------------------------------------------------------------------------------------


async def run(code: str, directory: Path, **options: Any) -> children.Ended:
    return await children.run([sys.executable, "-c", code], directory=directory, **options)


async def test_a_program_has_none_of_our_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://user:password@host/x")
    code = "import os, pathlib; pathlib.Path(os.environ['TMPDIR'], 'seen').write_text(repr(dict(os.environ)))"
    assert (await run(code, tmp_path)).status == 0
    assert "password" not in (tmp_path / "seen").read_text()


async def test_a_program_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    ended = await run("import time; time.sleep(60)", tmp_path, wall_s=0.5)
    assert ended.status is None


@pytest.mark.skipif(sys.platform != "linux", reason="bounds memory on Linux alone")
async def test_a_program_has_so_much_memory_and_no_more(tmp_path: Path) -> None:
    ended = await run("x = bytearray(3 << 30)", tmp_path)
    assert ended.status == 1
    assert "MemoryError" in ended.said


async def test_a_program_writes_no_large_files(tmp_path: Path) -> None:
    code = "import os; f = open(os.environ['TMPDIR'] + '/x', 'wb'); f.truncate(100 << 20)"
    ended = await run(code, tmp_path)
    assert ended.status != 0


def test_a_program_does_not_begin_without_whoever_started_it() -> None:
    """It is told who that is: here it is somebody else."""
    orphan = os.spawnv(os.P_WAIT, sys.executable, [sys.executable, str(children.CONFINE), "1", "9", "9", "9", "true"])
    assert orphan == -9
