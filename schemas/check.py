"""`python -m schemas.check`: the schemas may change only in ways that every reader and writer survives.

FULL_TRANSITIVE: the current schema reads what each released version wrote, and each released version reads what the
current one writes. `--release` keeps the current schemas as new released versions.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from avro.schema import Schema, parse

from schemas.codec import schema_fingerprint
from schemas.generate import TARGET, render
from schemas.registry import EVENTS, EVENTS_DIR

RELEASED = EVENTS_DIR / "released"
VERSION = re.compile(r"(?P<name>\w+)\.v(?P<version>\d+)\.avsc")


def released(name: str, directory: Path = RELEASED) -> dict[int, Path]:
    """The released versions of an event's schema."""
    found = (VERSION.fullmatch(path.name) for path in directory.glob(f"{name}.v*.avsc"))
    return {int(m["version"]): directory / m[0] for m in found if m and m["name"] == name}


def problems(directory: Path = RELEASED) -> Iterator[str]:
    """What is wrong, a sentence each."""
    if TARGET.read_text() != render():
        yield "schemas/records.py differs from schemas/events/: run `python -m schemas.generate`"
    for path in sorted(directory.glob("*.avsc")):
        match = VERSION.fullmatch(path.name)
        if match is None or match["name"] not in EVENTS:
            yield f"{path.name}: no such event is registered; a released schema stays"
    for name, event in EVENTS.items():
        for version, path in sorted(released(name, directory).items()):
            yield from incompatibilities(name, version, json.loads(path.read_text()), event.schema)


def incompatibilities(name: str, version: int, old: object, new: object) -> Iterator[str]:
    """Why a released schema and the current one cannot read each other."""
    ours, theirs = parse(json.dumps(new)), parse(json.dumps(old))
    for reader, writer, what in (
        (ours, theirs, f"the current schema cannot read version {version}"),
        (theirs, ours, f"version {version} cannot read the current schema"),
    ):
        for message in unreadable(reader, writer):
            yield f"{name}: {what}: {message}"


def unreadable(reader: Schema, writer: Schema) -> set[str]:
    """Why `reader` cannot read what `writer` wrote; empty when it can."""
    found = ReaderWriterCompatibilityChecker().get_compatibility(reader, writer)  # type: ignore[no-untyped-call]
    if found.compatibility is SchemaCompatibilityType.compatible:
        return set()
    return set(found.messages) or {"incompatible"}


def release() -> list[str]:
    """Keep every schema that differs from its newest released version as the next one."""
    made = []
    for name, event in EVENTS.items():
        versions = released(name)
        newest = json.loads(versions[max(versions)].read_text()) if versions else None
        if newest is None or schema_fingerprint(newest) != schema_fingerprint(event.schema):
            path = RELEASED / f"{name}.v{max(versions, default=0) + 1}.avsc"
            path.write_text((EVENTS_DIR / f"{name}.avsc").read_text())
            made.append(path.name)
    return made


def main() -> None:
    """Exit status 1, with the reasons, when a schema broke its promise."""
    found = list(problems())
    if found:
        sys.exit("\n".join(found))
    if "--release" in sys.argv:
        print("\n".join(release()) or "nothing to release")


if __name__ == "__main__":
    main()
