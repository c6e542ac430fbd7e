"""The Kafka Streams contender: its jars through Maven, its classes by Eclipse's compiler, both in the cache."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Final

from ops.stack.install import fetch_jars
from ops.stack.install import run as run_tool
from ops.stack.parts.kafka import java
from ops.stack.paths import REPOSITORY, cache_dir

SOURCES: Final = REPOSITORY / "ops" / "bench" / "kafka_streams"
MAIN: Final = "packstream.bench.AdCounts"
COMPILER: Final = "org.eclipse.jdt.internal.compiler.batch.Main"
JVM: Final = ("-Xms1g", "-Xmx1g", "-XX:+UseSerialGC", "--enable-native-access=ALL-UNNAMED")
LEVEL: Final = "21"


async def command(*arguments: str) -> tuple[str, ...]:
    """What to execute; built first where it is not in the cache."""
    jars = cache_dir() / "kafka-streams-bench" / "jars"
    await asyncio.to_thread(fetch_jars, SOURCES / "pom.xml", SOURCES / "jars.sha256", jars)
    classes = await asyncio.to_thread(_compiled, jars)
    return (str(java()), *JVM, "-cp", _classpath(classes, jars), MAIN, *arguments)


def _compiled(jars: Path) -> Path:
    """The directory of the classes of the sources as they are now."""
    sources = sorted(SOURCES.rglob("*.java"))
    digest = hashlib.sha256(b"\0".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    classes = cache_dir() / "kafka-streams-bench" / f"classes-{digest}"
    if not classes.exists():
        classes.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=classes.parent) as scratch:
            options = ("-source", LEVEL, "-target", LEVEL, "-nowarn", "-encoding", "UTF-8", "-d", scratch)
            compiler = (str(java()), "-cp", str(next(jars.glob("ecj-*.jar"))), COMPILER, *options)
            run_tool([*compiler, "-cp", _classpath(jars), str(SOURCES)], what="compiling the Kafka Streams contender")
            shutil.copytree(scratch, classes)
    return classes


def _classpath(*places: Path) -> str:
    jars = [jar for place in places for jar in sorted(place.glob("*.jar"))]
    return ":".join(str(entry) for entry in (*places, *jars))
