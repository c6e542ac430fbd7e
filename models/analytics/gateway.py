"""The door to BigQuery, and to its emulator: tables and views, appends to committed streams, parameterised queries.

Google's clients are synchronous, so each call runs in a thread of its own pool, with a deadline. Nothing here tries
again by itself: whoever calls knows what a second try means.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date, datetime
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import google.auth.exceptions
import requests
import structlog
from google.api_core import exceptions as google_errors
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import BigQueryWriteClient, types

from models.analytics.encoding import encoder
from models.errors import Unavailable
from schemas.warehouse_tables import TABLES, Column, Table

DEADLINE_S: Final = 20.0
THREADS: Final = 16
IDS_AT_ONCE: Final = 5_000
ONCE: Final[dict[str, Any]] = {"retry": None, "timeout": DEADLINE_S}  #: Google's clients would retry for minutes

log = structlog.get_logger(__name__)

T = TypeVar("T")

Parameter = str | int | datetime | date | Sequence[str]
Row = Mapping[str, Any]

NO_WAREHOUSE: Final = "no warehouse is configured: set BIGQUERY_PROJECT, or BIGQUERY_ENDPOINT of an emulator"

PASSING: Final = (
    google_errors.ServerError,
    google_errors.TooManyRequests,
    google_errors.Cancelled,
    google_errors.Aborted,
    google_errors.RetryError,
    google.auth.exceptions.TransportError,
    requests.RequestException,
    OSError,
    TimeoutError,
)
# StorageError.StorageErrorCode
STREAM_ENDED: Final = frozenset({3, 4, 6})  #: STREAM_NOT_FOUND, INVALID_STREAM_TYPE, STREAM_FINALIZED
NOT_FOUND, ALREADY_EXISTS, OUT_OF_RANGE, FAILED_PRECONDITION = 5, 6, 11, 9  #: google.rpc.Code


class NotReady(Unavailable):
    """The warehouse answers, but is not as schemas/warehouse/ says: `packstream warehouse check` names what differs."""


class StreamGoneError(Exception):
    """The stream takes no rows any more, or its offsets are not what they were thought to be.

    Whether the last rows are in the table has to be asked of the table.
    """


class RowsRefusedError(Exception):
    """Nothing was written, since these rows of the request are refused: index → why."""

    def __init__(self, refused: Mapping[int, str]) -> None:
        super().__init__(f"{len(refused)} rows refused")
        self.refused = refused


class StoredTable(NamedTuple):
    """A table as the warehouse has it."""

    description: str
    partition: str | None
    cluster: tuple[str, ...]
    columns: tuple[Column, ...]


class Warehouse(Protocol):
    """What analytics needs of a warehouse. All raise Unavailable when it does not answer, NotReady when it is wrong."""

    async def query(self, sql: str, **parameters: Parameter) -> list[Row]:
        """`{name}` in the SQL is a table or a view of ours; `@name` is a parameter."""

    async def present(self, table: str, row_ids: Sequence[str]) -> set[str]:
        """Which of these rows the table has."""

    async def open_stream(self, table: str) -> str:
        """A new committed stream, at offset 0."""

    async def end_stream(self, stream: str) -> None:
        """Nobody can append to it any more. One that is gone already is no error."""

    async def append(self, table: str, stream: str, rows: Sequence[bytes], *, offset: int) -> None:
        """Append encoded rows at this offset; at once readable. Rows that are there at this offset already count as
        appended. Raises StreamGoneError, RowsRefusedError."""


class NoWarehouse:
    """Where none is configured: everything but analytics works, and analytics says so."""

    def close(self) -> None:
        """Nothing is open."""

    async def query(self, sql: str, **parameters: Parameter) -> list[Row]:
        raise Unavailable(NO_WAREHOUSE)

    async def present(self, table: str, row_ids: Sequence[str]) -> set[str]:
        raise Unavailable(NO_WAREHOUSE)

    async def open_stream(self, table: str) -> str:
        raise Unavailable(NO_WAREHOUSE)

    async def end_stream(self, stream: str) -> None:
        raise Unavailable(NO_WAREHOUSE)

    async def append(self, table: str, stream: str, rows: Sequence[bytes], *, offset: int) -> None:
        raise Unavailable(NO_WAREHOUSE)


class BigQuery:
    """One dataset. `make_writer` connects to the Storage Write API when the first row is written."""

    def __init__(
        self, client: bigquery.Client, dataset: str, *, make_writer: Callable[[], BigQueryWriteClient], location: str
    ) -> None:
        self._client, self._make_writer, self._location = client, make_writer, location
        self.dataset = f"{client.project}.{dataset}"
        self._parent = f"projects/{client.project}/datasets/{dataset}/tables"
        self._writer: BigQueryWriteClient | None = None
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="bigquery")
        self._names = {
            name: f"`{self.dataset}.{name}`" for t in TABLES.values() for name in (t.name, t.view, t.duplicates)
        }

    def close(self) -> None:
        """Let calls under way end, and close."""
        self._threads.shutdown(wait=True)
        self._client.close()  # type: ignore[no-untyped-call]

    async def _call(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, _translated(call))

    # -- reading ----------------------------------------------------------------------------------------------------

    async def query(self, sql: str, **parameters: Parameter) -> list[Row]:
        named = [_parameter(name, value) for name, value in parameters.items()]
        return await self._call(lambda: self._query(sql.format(**self._names), named))

    def _query(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        config = bigquery.QueryJobConfig(query_parameters=parameters)
        job = self._client.query(sql, job_config=config, job_retry=None, location=self._location, **ONCE)
        return [dict(row.items()) for row in job.result(job_retry=None, **ONCE)]

    async def present(self, table: str, row_ids: Sequence[str]) -> set[str]:
        sql = f"SELECT {TABLES[table].unique} AS id FROM {{{table}}} WHERE {TABLES[table].unique} IN UNNEST(@ids)"
        parts = [row_ids[n : n + IDS_AT_ONCE] for n in range(0, len(row_ids), IDS_AT_ONCE)]
        return {row["id"] for part in parts for row in await self.query(sql, ids=list(part))}

    # -- writing ----------------------------------------------------------------------------------------------------

    async def open_stream(self, table: str) -> str:
        return await self._call(lambda: self._open_stream(table))

    def _open_stream(self, table: str) -> str:
        wanted = types.WriteStream(type_=types.WriteStream.Type.COMMITTED)
        parent = f"{self._parent}/{table}"
        return str(self._connected().create_write_stream(parent=parent, write_stream=wanted, **ONCE).name)

    async def end_stream(self, stream: str) -> None:
        await self._call(lambda: self._end_stream(stream))

    def _end_stream(self, stream: str) -> None:
        try:
            self._connected().finalize_write_stream(name=stream, **ONCE)
        except google_errors.NotFound:
            return

    async def append(self, table: str, stream: str, rows: Sequence[bytes], *, offset: int) -> None:
        await self._call(lambda: self._append(table, stream, rows, offset))

    def _append(self, table: str, stream: str, rows: Sequence[bytes], offset: int) -> None:
        schema = types.ProtoSchema(proto_descriptor=encoder(table).descriptor)
        data = types.AppendRowsRequest.ProtoData(writer_schema=schema, rows=types.ProtoRows(serialized_rows=rows))
        request = types.AppendRowsRequest(write_stream=stream, offset=offset, proto_rows=data)
        try:
            answer = next(iter(self._connected().append_rows(iter([request]), **ONCE)))
        except google_errors.AlreadyExists:
            return
        except (google_errors.NotFound, google_errors.OutOfRange, google_errors.FailedPrecondition) as exc:
            raise StreamGoneError(str(exc)) from exc
        if answer.row_errors:
            raise RowsRefusedError({error.index: error.message for error in answer.row_errors})
        _check(answer.error)

    def _connected(self) -> BigQueryWriteClient:
        if self._writer is None:
            self._writer = self._make_writer()
        return self._writer

    # -- tables -----------------------------------------------------------------------------------------------------

    async def stored_table(self, name: str) -> StoredTable | None:
        """None when there is no such table."""
        return await self._call(lambda: self._stored_table(name))

    def _stored_table(self, name: str) -> StoredTable | None:
        try:
            found = self._client.get_table(f"{self.dataset}.{name}", **ONCE)
        except google_errors.NotFound:
            return None
        partition = found.time_partitioning
        return StoredTable(
            found.description or "",
            partition.field if partition is not None and partition.type_ == "DAY" else None,
            tuple(found.clustering_fields or ()),
            tuple(_column(field) for field in found.schema),
        )

    async def make_dataset(self) -> None:
        """Make it when it is missing."""

        def make() -> None:
            dataset = bigquery.Dataset(self.dataset)
            dataset.location = self._location
            self._client.create_dataset(dataset, exists_ok=True, **ONCE)

        await self._call(make)

    async def make_table(self, table: Table) -> None:
        """Make it when it is missing."""

        def make() -> None:
            wanted = bigquery.Table(f"{self.dataset}.{table.name}", [_field(column) for column in table.columns])
            wanted.description = table.description
            wanted.time_partitioning = bigquery.TimePartitioning(field=table.partition, type_="DAY")
            wanted.clustering_fields = list(table.cluster)
            self._client.create_table(wanted, exists_ok=True, **ONCE)

        await self._call(make)

    async def add_columns(self, table: Table, columns: Sequence[Column]) -> None:
        """Add columns at the table's end, and make its descriptions those of `table`. REQUIRED ones cannot be added."""

        def add() -> None:
            for column in columns:
                kind = _sql_type(column)
                self._query(f"ALTER TABLE {self._names[table.name]} ADD COLUMN IF NOT EXISTS {column.name} {kind}")
            stored = self._client.get_table(f"{self.dataset}.{table.name}", **ONCE)
            wanted = {column.name: column for column in table.columns}
            kept = [_field(wanted[f.name]) if f.name in wanted else f for f in stored.schema]
            there = {field.name for field in kept}
            stored.schema = [*kept, *(_field(column) for column in columns if column.name not in there)]
            stored.description = table.description
            self._client.update_table(stored, ["schema", "description"], **ONCE)

        await self._call(add)

    async def stored_views(self) -> dict[str, str]:
        """Queries of the dataset's views by name."""
        sql = f"SELECT table_name, view_definition FROM `{self.dataset}`.INFORMATION_SCHEMA.VIEWS"
        return {row["table_name"]: row["view_definition"] for row in await self._call(lambda: self._query(sql))}

    async def put_view(self, name: str, sql: str) -> None:
        """Make the view, or replace it."""
        await self._call(lambda: self._query(f"CREATE OR REPLACE VIEW `{self.dataset}.{name}` AS {sql}"))


def _translated(call: Callable[[], T]) -> Callable[[], T]:
    def run() -> T:
        with _google_errors():
            return call()

    return run


@contextmanager
def _google_errors() -> Iterator[None]:
    try:
        yield
    except PASSING as exc:
        log.warning("warehouse_away", error=repr(exc)[:500])
        raise Unavailable("the warehouse does not answer") from exc
    except (google_errors.GoogleAPICallError, google_errors.GoogleAPIError) as exc:
        log.error("warehouse_refuses", error=repr(exc)[:1000])
        raise NotReady("the warehouse is not as it should be: see `packstream warehouse check`") from exc


def _check(error: Any) -> None:
    """Raise what an append's error stands for."""
    if not error.code or error.code == ALREADY_EXISTS:
        return
    if error.code in (NOT_FOUND, OUT_OF_RANGE, FAILED_PRECONDITION) or _storage_codes(error) & STREAM_ENDED:
        raise StreamGoneError(error.message)
    raise google_errors.from_grpc_status(error.code, error.message)  # type: ignore[no-untyped-call]


def _storage_codes(error: Any) -> set[int]:
    codes = set()
    for detail in error.details:
        storage = types.StorageError.pb(types.StorageError())
        if detail.Is(storage.DESCRIPTOR) and detail.Unpack(storage):
            codes.add(storage.code)
    return codes


def _parameter(name: str, value: Parameter) -> bigquery.ScalarQueryParameter | bigquery.ArrayQueryParameter:
    match value:
        case str():
            return bigquery.ScalarQueryParameter(name, "STRING", value)
        case int():
            return bigquery.ScalarQueryParameter(name, "INT64", value)
        case datetime():
            return bigquery.ScalarQueryParameter(name, "TIMESTAMP", value)
        case date():
            return bigquery.ScalarQueryParameter(name, "DATE", value)
    return bigquery.ArrayQueryParameter(name, "STRING", value)


SAME_TYPES: Final = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL", "STRUCT": "RECORD"}


def _column(field: Any) -> Column:
    kind = SAME_TYPES.get(field.field_type, field.field_type)
    return Column(field.name, kind, field.mode, field.description or "", tuple(_column(f) for f in field.fields))


def _field(column: Column) -> bigquery.SchemaField:
    fields = [_field(field) for field in column.fields]
    return bigquery.SchemaField(column.name, column.type, column.mode, description=column.description, fields=fields)


def _sql_type(column: Column) -> str:
    kind = column.type
    if column.fields:
        kind = f"STRUCT<{', '.join(f'{field.name} {_sql_type(field)}' for field in column.fields)}>"
    return f"ARRAY<{kind}>" if column.mode == "REPEATED" else kind
