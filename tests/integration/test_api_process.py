"""The API as a process: a real server on a real socket, and its end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from ops.settings import Settings
from ops.stack.paths import REPOSITORY
from ops.stack.ports import PortBook
from tests.api_driver import registration

READY_S = 90  #: on a machine that does much else

pytestmark = pytest.mark.timeout(240)


@dataclass
class Process:
    """`packstream api`, ready."""

    running: subprocess.Popen[str]
    url: str

    def stop(self) -> float:
        """SIGTERM; the seconds until it had left."""
        started = time.monotonic()
        self.running.send_signal(signal.SIGTERM)
        self.running.wait(25)
        return time.monotonic() - started


def start(settings: Settings) -> Process:
    with PortBook({}) as book:
        port = book.choose(["PORT"], last={})["PORT"]
    environment = {
        **os.environ,
        "PACKSTREAM_ENV": "test",
        "DATABASE_URL": settings.database_url,
        "DATABASE_APP_URL": settings.database_app_url or "",
        "REDIS_URL": settings.redis_url,
        "PORT": str(port),
        "LOG_FORMAT": "json",
    }
    command = [sys.executable, "-m", "ops.cli", "api", "--data", settings.data_dir]
    running = subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    return Process(running, f"http://127.0.0.1:{port}")


@pytest.fixture
def process(api_settings: Settings) -> Iterator[Process]:
    started = start(api_settings)
    try:
        wait_until_ready(started)
        yield started
    finally:
        started.running.kill()
        started.running.communicate()


def wait_until_ready(process: Process) -> None:
    deadline = time.monotonic() + READY_S
    last = ""
    while time.monotonic() < deadline:
        assert process.running.poll() is None, process.running.communicate()
        try:
            answer = httpx.get(process.url + "/readyz")
            if answer.status_code == 200:
                return
            last = answer.text
        except httpx.TransportError as exc:
            last = repr(exc)
        time.sleep(0.1)
    pytest.fail(f"the API did not become ready: {last}")


async def test_requests_under_way_are_answered_before_it_leaves(process: Process) -> None:
    async with httpx.AsyncClient(base_url=process.url, timeout=20) as client:
        pending = [asyncio.create_task(client.post("/api/v1/auth/register", json=registration())) for _ in range(12)]
        await asyncio.sleep(0.15)
        seconds = await asyncio.to_thread(process.stop)
        answers = await asyncio.gather(*pending, return_exceptions=True)
    statuses = [answer.status_code if isinstance(answer, httpx.Response) else repr(answer) for answer in answers]
    assert statuses == [201] * 12
    assert seconds < 20
    assert process.running.returncode in (0, -signal.SIGTERM)


def test_idle_process_leaves_at_once_and_listens_no_more(process: Process) -> None:
    with httpx.Client(base_url=process.url) as client:
        client.get("/healthz")  # a connection that is kept alive must not hold it up
        assert process.stop() < 5
        with pytest.raises(httpx.TransportError):
            client.get("/healthz")


def test_access_log_has_no_secrets_and_names_the_request(process: Process) -> None:
    body = registration()
    answer = httpx.post(process.url + "/api/v1/auth/register", json=body, headers={"x-request-id": "find-me"})
    token = answer.json()["data"]["tokens"]["access_token"]
    httpx.get(process.url + "/api/v1/stores/me", headers={"authorization": f"Bearer {token}"})
    process.stop()
    _, logs = process.running.communicate()
    assert '"request_id":"find-me"' in logs
    for secret in (body["email"], body["password"], token):
        assert secret not in logs


def test_taken_port_ends_it_with_a_reason(process: Process, api_settings: Settings) -> None:
    port = process.url.rpartition(":")[2]
    environment = {
        **os.environ,
        "DATABASE_URL": api_settings.database_url,
        "REDIS_URL": api_settings.redis_url,
        "PORT": port,
    }
    command = [sys.executable, "-m", "ops.cli", "api", "--data", api_settings.data_dir]
    second = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=READY_S)
    assert second.returncode != 0
    assert "address already in use" in second.stderr
