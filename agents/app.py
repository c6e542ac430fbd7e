"""The one Faust app: its settings, for reasons written in ops/decisions/, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import faust
from faust.types.auth import CredentialsT

from agents import kafka
from agents.runtime import assignor
from agents.runtime.store import FencedStore
from ops.settings import Settings
from streams.topics import APP_ID, PARTITION_COUNT

NEVER_S: Final = 10 * 365 * 86_400.0


def create_app(settings: Settings) -> faust.App:
    """An app for one worker process; its data directory is its own."""
    app = faust.App(
        APP_ID,
        broker=[f"kafka://{broker.strip()}" for broker in settings.kafka_brokers.split(",")],
        broker_credentials=credentials(settings),
        store="fenced://",
        datadir=str(worker_directory(settings)),
        topic_partitions=PARTITION_COUNT,
        topic_replication_factor=settings.kafka_replication_factor,
        topic_allow_declare=True,  # changelogs only; packstream.* topics are made by `packstream topics`
        topic_disable_leader=True,
        web_enabled=False,
        table_standby_replicas=0,
        broker_session_timeout=settings.worker_session_s,
        broker_heartbeat_interval=min(2.0, settings.worker_session_s / 3),
        broker_request_timeout=30.0,
        broker_commit_interval=0.5,
        broker_max_poll_records=5000,
        consumer_auto_offset_reset="earliest",
        stream_buffer_maxsize=4096,
        stream_publish_on_commit=False,
        stream_wait_empty=False,
        stream_recovery_delay=0.0,
        stream_processing_timeout=NEVER_S,  # it looks at streams, which nobody reads here; worker.py has its own watch
    )
    assignor.use_for_all(app)
    return app


def credentials(settings: Settings) -> CredentialsT | None:
    """Faust's form of TLS and SASL."""
    found = kafka.connection(settings)
    if "sasl_mechanism" in found:
        return faust.SASLCredentials(
            username=found["sasl_plain_username"],
            password=found["sasl_plain_password"],
            ssl_context=found.get("ssl_context"),
            mechanism=found["sasl_mechanism"],
        )
    return faust.SSLCredentials(found["ssl_context"]) if "ssl_context" in found else None


def worker_directory(settings: Settings) -> Path:
    """Where this worker keeps its tables: RocksDB allows one process a directory."""
    path = Path(settings.data_dir) / "worker" / os.environ.get("PACKSTREAM_WORKER", "0")
    path.mkdir(parents=True, exist_ok=True)
    return path


def own_store(table: Any, settings: Settings) -> FencedStore:
    """The table's fenced store, told how to reach Kafka."""
    store: FencedStore = table.data
    store.connection = kafka.connection(settings)
    return store
