"""Avro single-object encoding: ``C3 01``, the schema's CRC-64-AVRO fingerprint (little endian), the body.

Encoding is by the current schema; decoding by the schema that the bytes name, current or any released one,
resolved to the current one.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

import fastavro
from fastavro.schema import fingerprint, parse_schema, to_parsing_canonical_form

from schemas import records
from schemas.records import RECORDS, Record
from schemas.registry import EVENTS, EVENTS_DIR

MARKER: Final = b"\xc3\x01"
HEADER_BYTES: Final = 10

AvroRecord = dict[str, Any]


class UndecodableError(ValueError):
    """The bytes are not one of our records; `reason` is ``undecodable`` or ``unknown_schema``."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class _Known:
    event_type: str
    writer: Any
    reader: Any


def schema_fingerprint(schema: Any) -> bytes:
    """The 8 bytes by which a record names its schema."""
    canonical = to_parsing_canonical_form(schema)
    return bytes.fromhex(fingerprint(canonical, "CRC-64-AVRO"))


CURRENT: Final = {name: parse_schema(event.schema) for name, event in EVENTS.items()}
HEADERS: Final = {name: MARKER + schema_fingerprint(event.schema) for name, event in EVENTS.items()}


def _known_schemas() -> dict[bytes, _Known]:
    known: dict[bytes, _Known] = {}
    for path in sorted((EVENTS_DIR / "released").glob("*.avsc")):
        name = path.name.split(".v", 1)[0]
        schema = json.loads(path.read_text())
        known[schema_fingerprint(schema)] = _Known(name, parse_schema(schema), CURRENT[name])
    for name, event in EVENTS.items():
        known[schema_fingerprint(event.schema)] = _Known(name, CURRENT[name], None)
    return known


_KNOWN: Final = _known_schemas()


def encode(record: Record) -> bytes:
    """Bytes of a typed record; ValueError when a value does not fit the schema."""
    name = record.event_type
    if name not in CURRENT:
        raise ValueError(f"unknown event type {name!r}")
    out = io.BytesIO()
    out.write(HEADERS[name])
    try:
        fastavro.schemaless_writer(out, CURRENT[name], _as_dict(record))
    except Exception as exc:  # fastavro raises what it meets: TypeError, AttributeError, struct.error …
        raise ValueError(f"{name} does not fit its schema: {exc!r}") from exc
    return out.getvalue()


def decode_dict(data: bytes | None) -> tuple[str, AvroRecord]:
    """(event type, fields) of a payload. Raises UndecodableError."""
    if data is None or len(data) < HEADER_BYTES or data[:2] != MARKER:
        raise UndecodableError("undecodable", "not Avro single-object encoding")
    known = _KNOWN.get(data[2:HEADER_BYTES])
    if known is None:
        raise UndecodableError("unknown_schema", f"no schema has the fingerprint {data[2:HEADER_BYTES].hex()}")
    body = io.BytesIO(data)
    body.seek(HEADER_BYTES)
    try:
        fields = fastavro.schemaless_reader(body, known.writer, known.reader)
    except Exception as exc:  # a body cut short or bent: fastavro raises EOFError, IndexError, UnicodeDecodeError …
        raise UndecodableError("undecodable", f"{known.event_type}: {exc!r}") from exc
    if body.tell() != len(data):
        raise UndecodableError("undecodable", f"{known.event_type}: {len(data) - body.tell()} bytes left over")
    return known.event_type, fields  # type: ignore[return-value]  # the schemas are records


def decode(data: bytes | None) -> Record:
    """The typed record of a payload. Raises UndecodableError."""
    name, fields = decode_dict(data)
    record: Record = _typed(RECORDS[name], fields)
    return record


def _as_dict(record: Any) -> AvroRecord:
    names, values, nested = _FIELDS[type(record)]
    fields = dict(zip(names, values(record), strict=True))
    for name in nested:
        value = fields[name]
        if isinstance(value, list):
            fields[name] = [_as_dict(item) for item in value]
        elif value is not None:
            fields[name] = _as_dict(value)
    return fields


def _typed(cls: Any, fields: AvroRecord) -> Any:
    for name, inner in _NESTED.get(cls, {}).items():
        value = fields[name]
        if isinstance(value, list):
            fields[name] = [_typed(inner, item) for item in value]
        elif value is not None:
            fields[name] = _typed(inner, value)
    return cls(**fields)


def _record_classes() -> list[Any]:
    return [cls for cls in vars(records).values() if hasattr(cls, "__dataclass_fields__")]


def _nested_records() -> dict[Any, dict[str, Any]]:
    """Which fields of a record are records, lists of them, or records that may be missing; at every depth."""
    found: dict[Any, dict[str, Any]] = {}
    for cls in _record_classes():
        for name, item in cls.__dataclass_fields__.items():
            inner = str(item.type).removeprefix("list[").removesuffix("]").removesuffix(" | None")
            if hasattr(getattr(records, inner, None), "__dataclass_fields__"):
                found.setdefault(cls, {})[name] = getattr(records, inner)
    return found


_NESTED: Final = _nested_records()
_FIELDS: Final[dict[Any, tuple[Sequence[str], Callable[[Any], Sequence[Any]], Sequence[str]]]] = {
    cls: (tuple(cls.__dataclass_fields__), attrgetter(*cls.__dataclass_fields__), tuple(_NESTED.get(cls, ())))
    for cls in _record_classes()
}  # each has two fields or more, of which attrgetter gives a tuple
