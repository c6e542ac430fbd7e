"""``python -m ops.stack.servers.bigquery``: bqemulator with nine mends, configured by its BQEMU_* variables.

Each mend answers one way in which version 1.4.0 differs from BigQuery or needs the network; they are made
before the server starts. Look at each again when the pin in pyproject.toml moves.
"""

from __future__ import annotations

import threading
from typing import Any

from bqemulator.api.routes import tabledata, upload
from bqemulator.config import Settings
from bqemulator.domain.errors import InternalError
from bqemulator.grpc_api import write_servicer
from bqemulator.jobs import executor
from bqemulator.server import run_forever
from bqemulator.storage.engine import DuckDBEngine
from bqemulator.storage.sql_identifiers import quoted_table_ref
from bqemulator.versioning.snapshots import SnapshotManager


def mend() -> None:
    """Make all nine."""
    replace(DuckDBEngine, "_load_spatial", _no_spatial_extension)
    replace(SnapshotManager, "capture", _capture_when_asked(SnapshotManager.capture))
    replace(write_servicer, "_table_arrow_schema", _nested_arrow_schema)
    handler = write_servicer.BigQueryWriteHandler
    replace(handler, "_ensure_stream_bound", _keep_bound_stream(handler._ensure_stream_bound))
    media_types = (*upload._PERMITTED_MEDIA_CONTENT_TYPES, "*/*")  # what Google's client sends
    replace(upload, "_PERMITTED_MEDIA_CONTENT_TYPES", media_types)
    executor._LOAD_FORMAT_HANDLERS["PARQUET"] = _load_parquet_by_name
    replace(DuckDBEngine, "connection", property(_connection_of_thread))
    replace(handler, "_flush_to_target", _insert)
    replace(handler, "_perform_append", _append_or_nothing(handler._perform_append))


def replace(owner: object, name: str, value: object) -> None:
    """Put ``value`` where the emulator has something of that name; AttributeError when it no longer does."""
    getattr(owner, name)
    setattr(owner, name, value)


def _no_spatial_extension(engine: Any) -> None:
    """The extension would be downloaded, and nothing here is GEOGRAPHY."""


def _capture_when_asked(capture: Any) -> Any:
    """Without this every write copies the whole table, for a time travel that nobody takes."""

    def capture_when_asked(manager: Any, *table: str, kind: str = "AUTO") -> Any:
        return None if kind == "AUTO" else capture(manager, *table, kind=kind)

    return capture_when_asked


def _nested_arrow_schema(table_meta: Any) -> Any:
    """With the fields of RECORD columns, which the emulator's own drops."""
    fields: Any = tabledata._fields_raw_from_schema(table_meta.schema_.fields)
    return tabledata._build_arrow_schema(fields)


def _keep_bound_stream(ensure: Any) -> Any:
    """On an open connection only the first request names its stream; the later ones belong to it too."""

    def keep_bound_stream(handler: Any, stream_name: str, bound: Any, context: Any) -> Any:
        return bound if bound is not None and not stream_name else ensure(handler, stream_name, bound, context)

    return keep_bound_stream


def _load_parquet_by_name(path: str, target_ref: str, ctx: Any) -> None:
    """Columns of a file meet those of the table by name, not by position."""
    ctx.engine.execute(f"INSERT INTO {target_ref} BY NAME SELECT * FROM read_parquet(?)", [path])


_main_thread = threading.get_ident()
_connections = threading.local()


def _connection_of_thread(engine: Any) -> Any:
    """DuckDB refuses a connection that is busy with another call: each thread that takes rows has one of its own."""
    if engine._connection is None:
        raise InternalError("DuckDBEngine not started")
    if threading.get_ident() == _main_thread:
        return engine._connection
    if not hasattr(_connections, "own"):
        _connections.own = engine._connection.cursor()
        _connections.own.execute("SET TimeZone = 'UTC'")
    return _connections.own


def _insert(handler: Any, stream: Any, rows: Any) -> None:
    """Without a row count in the catalogue, whose update can fail when the rows are in already."""
    names = (stream.project_id, stream.dataset_id, stream.table_id)
    with handler._write_lock:
        engine = handler._ctx.engine
        engine.connection.register("appended_rows", rows)
        try:
            engine.execute(f"INSERT INTO {quoted_table_ref(*names)} SELECT * FROM appended_rows")
        finally:
            engine.connection.unregister("appended_rows")
    handler._ctx.snapshots.record_change(*names)


def _append_or_nothing(append: Any) -> Any:
    """Rows that could not be inserted do not count: their offset is still to come."""

    def append_or_nothing(handler: Any, stream: Any, *request: Any) -> Any:
        with stream.lock:
            before = stream.next_offset, stream.row_count
            try:
                return append(handler, stream, *request)
            except Exception:
                stream.next_offset, stream.row_count = before
                raise

    return append_or_nothing


if __name__ == "__main__":
    mend()
    run_forever(Settings())
