"""Structured logs of every process, on standard error: JSON, or coloured lines on a terminal.

``structlog.get_logger()`` everywhere; the standard library's loggers (uvicorn, SQLAlchemy, Faust) come out the same
way. Ids travel in the context (`bind`, `request_id`). Values under a secret's name are never written.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any, Final, Literal

import orjson
import structlog
from structlog.typing import Processor

Format = Literal["auto", "json", "console"]
EventDict = MutableMapping[str, Any]

SECRET_NAMES: Final = frozenset(
    ("password", "password_hash", "token", "access_token", "refresh_token", "invite_token", "authorization", "email")
)
HIDDEN: Final = "[hidden]"

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
bind = structlog.contextvars.bound_contextvars


def add_request_id(logger: Any, method: str, event: EventDict) -> EventDict:
    """Name the request during which something was logged."""
    current = request_id.get()
    if current is not None:
        event.setdefault("request_id", current)
    return event


def hide_secrets(logger: Any, method: str, event: EventDict) -> EventDict:
    """Replace what must not be in a log, whoever passed it."""
    for name in SECRET_NAMES & event.keys():
        event[name] = HIDDEN
    return event


def to_json(logger: Any, method: str, event: EventDict) -> str:
    """One line of JSON; what JSON does not know is written as its repr."""
    try:
        return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # text that is no UTF-8, or an integer over 64 bits
        return json.dumps(event, default=repr, skipkeys=True)


def for_people() -> list[Processor]:
    """Coloured lines; tracebacks without the values of variables, which may be anything."""
    return [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]


def for_programs() -> list[Processor]:
    """JSON; tracebacks without the values of variables."""
    tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return [structlog.processors.ExceptionRenderer(tracebacks), to_json]


def configure_logs(*, level: str, format_: Format = "auto") -> None:
    """Set up the logs of this process; the last call counts."""
    console = format_ == "console" or (format_ == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        add_request_id,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        hide_secrets,
    ]
    last = for_people() if console else for_programs()
    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    _configure_standard_library(shared, last, threshold)


def _configure_standard_library(shared: list[Processor], last: list[Processor], threshold: int) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(threshold)
