"""``python -m ops.stack.servers.gcs``: fake-gcs-server, with its Pub/Sub events pushed over HTTP.

fake-gcs-server publishes bucket events to a Pub/Sub emulator. This process is that emulator, as far as
``Publish`` goes: it keeps each message as a file, makes the push request that Cloud Pub/Sub would make,
and tries again until it is answered with 2xx. It starts the storage server and ends with it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from ops.stack.parts.gcs import binary
from ops.stack.paths import write_atomically
from ops.stack.processes import die_with_parent
from ops.stack.servers.pubsub_messages import PublishRequest, PublishResponse

PROJECT = "local"
TOPIC = "gcs-events"
SUBSCRIPTION = f"projects/{PROJECT}/subscriptions/{TOPIC}"
RETRY_FIRST_S = 0.25
RETRY_MAX_S = 10.0
PUSHES_AT_ONCE = 8
WATCH_S = 0.1


class PushQueue:
    """Messages as files, each pushed until it is taken; those left from before are pushed too."""

    def __init__(self, directory: Path, url: str) -> None:
        self._directory = directory
        self._url = url
        self._slots = asyncio.Semaphore(PUSHES_AT_ONCE)
        self._pushing: set[asyncio.Task[None]] = set()
        directory.mkdir(parents=True, exist_ok=True)
        for path in sorted(directory.glob("*.json")):
            self._push_soon(path)

    def add(self, message: Any) -> str:
        """Keep one message and start to push it; returns its id."""
        message_id = uuid.uuid4().hex
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        body = {
            "message": {
                "attributes": dict(message.attributes),
                "data": base64.b64encode(message.data).decode(),
                "messageId": message_id,
                "message_id": message_id,
                "publishTime": now,
                "publish_time": now,
            },
            "subscription": SUBSCRIPTION,
        }
        path = self._directory / f"{now}-{message_id}.json"
        write_atomically(path, json.dumps(body))
        self._push_soon(path)
        return message_id

    def _push_soon(self, path: Path) -> None:
        task = asyncio.get_running_loop().create_task(self._push(path))
        self._pushing.add(task)
        task.add_done_callback(self._pushing.discard)

    async def _push(self, path: Path) -> None:
        wait_s = RETRY_FIRST_S
        while True:
            async with self._slots:
                refused = await asyncio.to_thread(push_file, self._url, path)
            if refused is None:
                return
            print(f"{path.name} not taken ({refused}): again in {wait_s:g} s", flush=True)
            await asyncio.sleep(wait_s)
            wait_s = min(RETRY_MAX_S, wait_s * 2)


def push_file(url: str, path: Path) -> str | None:
    """Make one push request and take the file away; None when it was taken, else why not."""
    request = urllib.request.Request(url, data=path.read_bytes(), headers={"Content-Type": "application/json"})
    try:
        urllib.request.urlopen(request, timeout=10).close()
    except OSError as exc:
        return str(exc)
    path.unlink()
    return None


async def start_publisher(port: int, queue: PushQueue) -> grpc.aio.Server:
    """The one method of google.pubsub.v1.Publisher that the storage server calls."""

    async def publish(request: Any, context: grpc.aio.ServicerContext) -> Any:
        return PublishResponse(message_ids=[queue.add(message) for message in request.messages])

    handler = grpc.unary_unary_rpc_method_handler(
        publish, request_deserializer=PublishRequest.FromString, response_serializer=PublishResponse.SerializeToString
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("google.pubsub.v1.Publisher", {"Publish": handler}),)
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    return server


def start_storage(environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """The storage server as a child that ends with this process."""
    port, host = environ["GCS_PORT"], environ.get("GCS_HOST", "127.0.0.1")
    public = environ.get("GCS_PUBLIC_HOST", f"{host}:{port}")
    options = {
        "-backend": "filesystem",
        "-filesystem-root": environ["GCS_OBJECTS"],
        "-scheme": "http",
        "-host": host,
        "-port": port,
        "-public-host": public,
        "-external-url": f"http://{public}",
        "-event.pubsub-project-id": PROJECT,
        "-event.pubsub-topic": TOPIC,
        "-event.list": "finalize",
        "-log-level": "warn",
    }
    return subprocess.Popen(
        [str(binary()), *(part for pair in options.items() for part in pair)],
        env={**environ, "PUBSUB_EMULATOR_HOST": f"127.0.0.1:{environ['GCS_PUBSUB_PORT']}"},
        preexec_fn=partial(die_with_parent, signal.SIGKILL, os.getpid()),
    )


async def serve(environ: Mapping[str, str]) -> int:
    """Run until SIGTERM (0) or until the storage server ends (1)."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    storage = start_storage(environ)  # before gRPC has threads: a fork would disturb them
    queue = PushQueue(Path(environ["GCS_EVENTS"]), environ["GCS_PUSH_URL"])
    publisher = await start_publisher(int(environ["GCS_PUBSUB_PORT"]), queue)
    while storage.poll() is None and not stopping.is_set():
        await asyncio.sleep(WATCH_S)
    storage.terminate()
    await publisher.stop(grace=0.5)
    storage.wait()
    return 0 if stopping.is_set() else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(serve(os.environ)))
