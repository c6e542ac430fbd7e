"""What is in a log line, and what never is."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from ops.logs import bind, configure_logs, request_id


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    out = capsys.readouterr()
    assert out.out == ""
    return [json.loads(line) for line in out.err.splitlines()]


def test_line_has_the_ids_of_its_context(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(level="info", format_="json")
    token = request_id.set("r-1")
    with bind(event_id="e-1"):
        structlog.get_logger().info("happened", order_id="o-1")
    request_id.reset(token)
    (line,) = lines(capsys)
    assert {"event": "happened", "request_id": "r-1", "event_id": "e-1", "order_id": "o-1"}.items() <= line.items()
    assert line["level"] == "info"


def test_secrets_are_never_written(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(level="info", format_="json")
    names = ("password", "access_token", "refresh_token", "invite_token", "authorization", "email")
    structlog.get_logger().warning("careless", **dict.fromkeys(names, "hunter2"))
    assert "hunter2" not in json.dumps(lines(capsys))


@pytest.mark.parametrize("format_", ["json", "console"])
def test_traceback_tells_no_values(capsys: pytest.CaptureFixture[str], format_: str) -> None:
    configure_logs(level="info", format_="json" if format_ == "json" else "console")
    try:
        held = "".join(["hun", "ter2"])
        raise KeyError(len(held))
    except KeyError:
        structlog.get_logger().exception("failed")
    written = capsys.readouterr().err
    assert "KeyError" in written
    assert "hunter2" not in written


def test_standard_loggers_come_out_the_same_way(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(level="warning", format_="json")
    logging.getLogger("uvicorn.error").warning("port %d is taken", 80)
    logging.getLogger("uvicorn.error").info("quiet")
    (line,) = lines(capsys)
    assert (line["event"], line["level"], line["logger"]) == ("port 80 is taken", "warning", "uvicorn.error")


def test_what_is_no_text_is_written_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(level="info", format_="json")
    structlog.get_logger().info("odd", value={1, 2}, text="lone \ud800")
    assert [line["event"] for line in lines(capsys)] == ["odd"]
