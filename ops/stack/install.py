"""``python -m ops.stack.install [debezium]``: brings into the cache what no Python package carries.

Kafka's jars (Maven), their ahead-of-time cache and the feature levels of a new cluster (one training run),
and stripe-mock (Go); with ``debezium`` also Kafka Connect and Debezium. What is there already is checked
and kept, so that a second run takes no time.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from ops.stack.errors import StackError
from ops.stack.parts import connect, kafka, stripe
from ops.stack.paths import REPOSITORY, DataDir, cache_dir
from ops.stack.ports import PortBook
from ops.stack.processes import spawn
from ops.stack.units import Site, last_line, wait_ready

STACK_FILES = REPOSITORY / "ops" / "stack"
TRAINING_S = 60


def run(argv: list[str], *, what: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    """Run a tool; StackError with its last words when it fails."""
    done = subprocess.run(argv, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StackError(f"{what} failed: {last_line(done.stdout + done.stderr)}")


def wrong_jars(directory: Path, checksums: Path) -> list[str]:
    """Names of jars that are missing, changed, or not in the list."""
    expected = {name: digest for digest, name in (line.split() for line in checksums.read_text().splitlines())}
    present = {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in directory.glob("*.jar")}
    return sorted(name for name in expected | present if expected.get(name) != present.get(name))


def fetch_jars(pom: Path, checksums: Path, directory: Path) -> bool:
    """Bring the jars of a POM through Maven, unless they are there; returns whether it had to."""
    if not wrong_jars(directory, checksums):
        return False
    maven = shutil.which("mvn")
    if maven is None:
        raise StackError(
            "Maven is not installed and Kafka's jars come through it: "
            "install it (Debian: `apt-get install maven`) and try again"
        )
    if directory.exists():
        shutil.rmtree(directory)
    options = ["-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={directory}"]
    run([maven, *options], what="fetching jars through Maven")
    if wrong := wrong_jars(directory, checksums):
        raise StackError(f"these jars are not the ones in {checksums.name}: {', '.join(wrong)}")
    return True


def write_bootstrap_checkpoint() -> None:
    """Let Kafka's own tool format a directory, and keep the feature levels that it wrote."""
    with tempfile.TemporaryDirectory() as scratch:
        broker = training_broker(Path(scratch), {"KAFKA_PORT": 9092, "KAFKA_CONTROLLER_PORT": 9093})
        broker.prepare()
        logs = broker.home / "logs"
        (logs / "meta.properties").unlink()
        tool = ("format", "-t", kafka.new_uuid(), "-c", str(broker.home / "server.properties"))
        run(
            list(kafka.java_command(kafka.jars_dir(), "kafka.tools.StorageTool", *tool)),
            what="formatting Kafka's log directory",
        )
        install_file(logs / "bootstrap.checkpoint", kafka.bootstrap_checkpoint())


async def train_aot_cache() -> None:
    """Run a broker once and keep which classes it loads and links."""
    with tempfile.TemporaryDirectory() as scratch, PortBook({}) as book:
        broker = training_broker(Path(scratch), book.choose(kafka.Kafka.ports, last={}))
        broker.prepare()
        draft = Path(scratch) / "broker.aot"
        flags = (*kafka.SMALL_JVM.split(), f"-XX:AOTCacheOutput={draft}")
        process = spawn(broker.broker_command(flags), broker.site.data.log("kafka"), death_signal=signal.SIGKILL)
        await wait_ready(broker, process)
        process.terminate()
        await asyncio.to_thread(process.wait, TRAINING_S)
        if not draft.exists():
            raise StackError(f"Java wrote no AOT cache: {broker.died}")
        install_file(draft, kafka.aot_cache())


def training_broker(scratch: Path, ports: dict[str, int]) -> kafka.Kafka:
    data = DataDir.at(scratch)
    data.make()
    return kafka.Kafka(Site(data, ports))


def install_file(source: Path, target: Path) -> None:
    """Move a finished file into the cache in one step."""
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copy(source, draft)
    draft.replace(target)


def install_kafka() -> None:
    fresh = fetch_jars(STACK_FILES / "pom.xml", STACK_FILES / "kafka-jars.sha256", kafka.jars_dir())
    if fresh or not kafka.bootstrap_checkpoint().exists():
        write_bootstrap_checkpoint()
    if fresh or not kafka.aot_cache().exists():
        asyncio.run(train_aot_cache())


def install_stripe() -> None:
    """Build stripe-mock, which tests hold our requests against; without Go they do without it."""
    if stripe.binary().exists():
        return
    go = shutil.which("go")
    if go is None:
        print("stripe-mock is left out: Go is not installed (one test is skipped without it)", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as scratch:
        run([go, "install", f"{stripe.MODULE}@{stripe.VERSION}"], what="building stripe-mock", env={"GOBIN": scratch})
        install_file(Path(scratch) / "stripe-mock", stripe.binary())


def install_debezium() -> None:
    fetch_jars(STACK_FILES / "connect-pom.xml", STACK_FILES / "connect-jars.sha256", connect.worker_jars())
    fetch_jars(STACK_FILES / "debezium-pom.xml", STACK_FILES / "debezium-jars.sha256", connect.debezium_jars())


def main(extras: list[str]) -> None:
    cache_dir().mkdir(parents=True, exist_ok=True)
    try:
        install_kafka()
        install_stripe()
        if "debezium" in extras:
            install_debezium()
    except StackError as exc:
        raise SystemExit(f"setup: {exc}") from None


if __name__ == "__main__":
    main(sys.argv[1:])
