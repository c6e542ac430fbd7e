"""Rows of the warehouse as the Storage Write API takes them: protocol buffers whose shape follows from the table.

A row that its table cannot hold is refused here, by name, before it is sent. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from schemas.warehouse_tables import TABLES, Column, Table

_Proto = descriptor_pb2.FieldDescriptorProto

PROTO_TYPES: Final = {
    "STRING": _Proto.TYPE_STRING,
    "INT64": _Proto.TYPE_INT64,
    "FLOAT64": _Proto.TYPE_DOUBLE,
    "BOOL": _Proto.TYPE_BOOL,
    "TIMESTAMP": _Proto.TYPE_INT64,
    "DATE": _Proto.TYPE_INT32,
    "RECORD": _Proto.TYPE_MESSAGE,
}
LABELS: Final = {
    "NULLABLE": _Proto.LABEL_OPTIONAL,
    "REQUIRED": _Proto.LABEL_OPTIONAL,  # checked here, so that the refusal can name it
    "REPEATED": _Proto.LABEL_REPEATED,
}
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
FIRST_DAY, LAST_DAY = date(1960, 1, 1), date(2159, 12, 31)  #: rows of other days have no partition of their own
INT64_SPAN: Final = 1 << 63
ROW_BYTES_MAX: Final = 1 << 20  #: far below BigQuery's 10 MB, and above any event of ours


class RowRefusedError(ValueError):
    """A row that its table cannot hold."""


class RowEncoder:
    """Encodes the rows of one table."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.descriptor = _message("Row", table.columns)
        file = descriptor_pb2.FileDescriptorProto(
            name=f"{table.name}.proto", package=table.name, syntax="proto2", message_type=[self.descriptor]
        )
        pool = descriptor_pool.DescriptorPool()
        pool.Add(file)
        self._message = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{table.name}.Row"))

    def encode(self, row: Mapping[str, Any]) -> bytes:
        """The row's bytes. RowRefusedError names the first column that does not fit."""
        values = _values(self.table.columns, row, "")
        day = row[self.table.partition].astimezone(UTC).date()
        if not FIRST_DAY <= day <= LAST_DAY:
            raise RowRefusedError(f"{self.table.partition}: {day} has no partition")
        data: bytes = self._message(**values).SerializeToString()
        if len(data) > ROW_BYTES_MAX:
            raise RowRefusedError(f"{len(data)} bytes, the limit is {ROW_BYTES_MAX}")
        return data


@cache
def encoder(table: str) -> RowEncoder:
    """The encoder of a table by name."""
    return RowEncoder(TABLES[table])


def _message(name: str, columns: Sequence[Column]) -> descriptor_pb2.DescriptorProto:
    message = descriptor_pb2.DescriptorProto(name=name)
    for number, column in enumerate(columns, start=1):
        field = message.field.add(
            name=column.name, number=number, type=PROTO_TYPES[column.type], label=LABELS[column.mode]
        )
        if column.fields:
            field.type_name = f"{column.name}_row"
            message.nested_type.append(_message(field.type_name, column.fields))
    return message


def _values(columns: Sequence[Column], row: Mapping[str, Any], path: str) -> dict[str, Any]:
    unknown = row.keys() - {column.name for column in columns}
    if unknown:
        raise RowRefusedError(f"{path}{min(unknown)}: there is no such column")
    values = {}
    for column in columns:
        value = row.get(column.name)
        if value is not None:
            values[column.name] = _value(column, value, path)
        elif column.mode == "REQUIRED":
            raise RowRefusedError(f"{path}{column.name}: is required")
    return values


def _value(column: Column, value: Any, path: str) -> Any:
    match column.type, value:
        case "RECORD", list():
            inner = f"{path}{column.name}."
            return [_values(column.fields, item, inner) for item in value]
        case "TIMESTAMP", datetime() if value.tzinfo is not None:
            return (value - EPOCH) // MICROSECOND
        case "DATE", date():
            return (value - EPOCH.date()).days
        case ("STRING", str()) | ("FLOAT64", int() | float()) | ("BOOL", bool()):
            return value
        case "INT64", int() if not isinstance(value, bool) and -INT64_SPAN <= value < INT64_SPAN:
            return value
    raise RowRefusedError(f"{path}{column.name}: {value!r:.100} is no {column.type}")
