"""What makes derived media and drafts of products, as the settings and this machine have it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import structlog
from google.auth.transport.requests import Request

from models.drafts.gateway import ChatReader, DraftReader, LocalReader
from models.media.making import Maker
from models.media.ocr import DocumentAi, Ocr, OpenAi, Tesseract
from models.openai import Chat
from ops.object_store import machine_credentials
from ops.settings import Settings

SCOPES: Final = ("https://www.googleapis.com/auth/cloud-platform",)

log = structlog.get_logger(__name__)


def media_maker(settings: Settings, scratch: Path) -> Maker:
    """Tools that are not there are left out: what they would make is missing, and the log says so."""
    ffmpeg = shutil.which(settings.ffmpeg_program)
    if ffmpeg is None:
        log.warning("no_ffmpeg", hint="install ffmpeg, or set FFMPEG_PROGRAM: videos are not made smaller until then")
    return Maker(scratch, ocr=ocr(settings), ffmpeg=ffmpeg)


def ocr(settings: Settings) -> Ocr | None:
    """Who reads scans; None where nobody does."""
    match settings.ocr_provider:
        case "openai":
            return OpenAi(chat(settings))
        case "documentai":
            assert settings.documentai_processor is not None
            return DocumentAi(settings.documentai_processor, base=_documentai_base(settings), token=_tokens(settings))
        case "none":
            return None
    program = shutil.which(settings.tesseract_program)
    if program is None:
        hint = "install tesseract-ocr, or set OCR_PROVIDER: scanned documents have no text until then"
        log.warning("no_ocr", hint=hint)
        return None
    return Tesseract(program)


def draft_reader(settings: Settings) -> DraftReader:
    """Who makes drafts of what certificates say."""
    return ChatReader(chat(settings)) if settings.draft_reader == "openai" else LocalReader()


def chat(settings: Settings) -> Chat:
    assert settings.openai_api_key is not None  # the settings are refused without it
    return Chat(settings.openai_api_key, base=settings.openai_api_base, model=settings.openai_model)


def _documentai_base(settings: Settings) -> str:
    """The endpoint of the processor's own region: projects/…/locations/REGION/processors/…"""
    assert settings.documentai_processor is not None
    region = settings.documentai_processor.split("/")[3]
    return settings.documentai_api_base or f"https://{region}-documentai.googleapis.com"


def _tokens(settings: Settings) -> Callable[[], str]:
    """Access tokens of the account that the storage is used with, renewed when they expire."""
    found: list[Any] = []

    def token() -> str:
        if not found:
            found.append(machine_credentials(settings, SCOPES)[0])
        if not found[0].valid:
            found[0].refresh(Request())
        return str(found[0].token)

    return token
