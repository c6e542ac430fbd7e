"""The BigQuery emulator (bqemulator), started through a launcher that mends it."""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Mapping
from importlib.util import find_spec

from ops.stack.errors import PartMissing
from ops.stack.processes import Command
from ops.stack.units import Unit

PROJECT = "packstream-local"


class BigQuery(Unit):
    """REST and the Storage Write API (gRPC); tables are kept in DATA/bigquery, write streams are not."""

    name = "bigquery"
    ports = ("BIGQUERY_PORT", "BIGQUERY_GRPC_PORT")
    ready_timeout_s = 60.0

    @classmethod
    def addresses(cls, ports: Mapping[str, int]) -> dict[str, str]:
        return {
            "BIGQUERY_ENDPOINT": f"http://127.0.0.1:{ports['BIGQUERY_PORT']}",
            "BIGQUERY_GRPC_ENDPOINT": f"127.0.0.1:{ports['BIGQUERY_GRPC_PORT']}",
        }

    def check(self) -> None:
        if find_spec("bqemulator") is None:
            raise PartMissing("bigquery: the bqemulator package is not installed: run `make setup`")

    def prepare(self) -> None:
        self.site.data.home(self.name).mkdir(parents=True, exist_ok=True)

    def command(self) -> Command:
        settings = {
            "BQEMU_REST_PORT": str(self.port("BIGQUERY_PORT")),
            "BQEMU_GRPC_PORT": str(self.port("BIGQUERY_GRPC_PORT")),
            "BQEMU_PERSISTENCE_MODE": "persistent",
            "BQEMU_DATA_DIR": str(self.site.data.home(self.name)),
            "BQEMU_DEFAULT_PROJECT_ID": PROJECT,
            "BQEMU_ENABLE_FORMAT_EXTENSIONS": "false",  # Avro's would be downloaded
            "BQEMU_LOG_LEVEL": "warning",
        }
        return Command((sys.executable, "-m", "ops.stack.servers.bigquery"), env=settings)

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port('BIGQUERY_PORT')}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
