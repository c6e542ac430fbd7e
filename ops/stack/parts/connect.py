"""Kafka Connect with Debezium: the other relay, for its contract test and for benchmarks.

No part of a stack by default: it needs Postgres and Kafka to be up. The connector's configuration is
posted to its REST address by whoever starts it.
"""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from ops.stack.errors import PartMissing
from ops.stack.parts.kafka import LOG4J, SMALL_JVM, VERSION, java_command
from ops.stack.paths import cache_dir, write_atomically
from ops.stack.processes import Command
from ops.stack.units import Unit

DEBEZIUM = "3.6.3.Final"

PROPERTIES = """\
bootstrap.servers={brokers}
listeners=http://127.0.0.1:{port}
group.id=packstream-outbox
config.storage.topic=packstream.connect.configs
offset.storage.topic=packstream.connect.offsets
status.storage.topic=packstream.connect.status
config.storage.replication.factor=1
offset.storage.replication.factor=1
offset.storage.partitions=1
status.storage.replication.factor=1
status.storage.partitions=1
key.converter=org.apache.kafka.connect.storage.StringConverter
value.converter=org.apache.kafka.connect.converters.ByteArrayConverter
plugin.path={plugins}
plugin.discovery=service_load
offset.flush.interval.ms=1000
scheduled.rebalance.max.delay.ms=0
"""


def connect_cache() -> Path:
    return cache_dir() / f"connect-{VERSION}"


def worker_jars() -> Path:
    return connect_cache() / "worker"


def plugins_dir() -> Path:
    return connect_cache() / "plugins"


def debezium_jars() -> Path:
    return plugins_dir() / f"debezium-{DEBEZIUM}"


class Connect(Unit):
    """One distributed worker; its REST address is CONNECT_URL."""

    name = "connect"
    ports = ("CONNECT_PORT",)
    ready_timeout_s = 60.0

    @classmethod
    def addresses(cls, ports: Mapping[str, int]) -> dict[str, str]:
        return {"CONNECT_URL": f"http://127.0.0.1:{ports['CONNECT_PORT']}"}

    @property
    def home(self) -> Path:
        return self.site.data.home(self.name)

    def check(self) -> None:
        if not any(debezium_jars().glob("debezium-connector-postgres-*.jar")):
            raise PartMissing("connect: Debezium's jars are not in the cache: run `make setup-debezium`")

    def prepare(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        settings = {"brokers": self.site.addresses["KAFKA_BROKERS"], "port": self.port("CONNECT_PORT")}
        write_atomically(self.home / "connect.properties", PROPERTIES.format(plugins=plugins_dir(), **settings))
        write_atomically(self.home / "log4j2.properties", LOG4J)

    def command(self) -> Command:
        flags = (os.environ.get("CONNECT_JVM_OPTS") or SMALL_JVM).split()
        logging = f"-Dlog4j2.configurationFile={self.home / 'log4j2.properties'}"
        main = "org.apache.kafka.connect.cli.ConnectDistributed"
        properties = str(self.home / "connect.properties")
        return Command(java_command(worker_jars(), main, properties, flags=(*flags, logging)))

    def ready(self) -> bool:
        """The list of connectors is answered once the worker has joined its group."""
        try:
            address = f"{self.addresses(self.site.ports)['CONNECT_URL']}/connectors"
            with urllib.request.urlopen(address, timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
