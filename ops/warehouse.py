"""The warehouse as the settings describe it, and `packstream warehouse apply|check`: making it what
schemas/warehouse/ says, and naming each difference.

Credentials in production are those that the machine has (Application Default Credentials). The account needs
roles/bigquery.dataEditor on the dataset and roles/bigquery.jobUser on the project.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import google.auth
import grpc
from google.auth.credentials import AnonymousCredentials, Credentials
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import BigQueryWriteClient
from google.cloud.bigquery_storage_v1.services.big_query_write.transports import BigQueryWriteGrpcTransport

from models.analytics.gateway import BigQuery, NotReady, NoWarehouse, StoredTable
from ops.settings import Settings
from schemas.warehouse_tables import TABLES, Column, Table, views

SCOPES: Final = ("https://www.googleapis.com/auth/bigquery",)


def warehouse(settings: Settings) -> BigQuery | NoWarehouse:
    """The warehouse. It connects with the first call."""
    if not settings.has_warehouse:
        return NoWarehouse()
    return connected_warehouse(settings)


def connected_warehouse(settings: Settings) -> BigQuery:
    """The warehouse of settings that name one."""
    endpoint = settings.bigquery_endpoint
    credentials = _credentials(settings)
    client = bigquery.Client(
        settings.warehouse_project,
        credentials=credentials,
        location=settings.bigquery_location,
        client_options=None if endpoint is None else {"api_endpoint": endpoint},
    )

    def make_writer() -> BigQueryWriteClient:
        if endpoint is None:
            return BigQueryWriteClient(credentials=credentials)  # type: ignore[no-untyped-call]
        if settings.bigquery_grpc_endpoint is None:
            raise NotReady("BIGQUERY_ENDPOINT without BIGQUERY_GRPC_ENDPOINT: the emulator takes rows there")
        channel = grpc.insecure_channel(settings.bigquery_grpc_endpoint)
        transport = BigQueryWriteGrpcTransport(channel=channel)
        return BigQueryWriteClient(transport=transport)  # type: ignore[no-untyped-call]

    return BigQuery(client, settings.bigquery_dataset, make_writer=make_writer, location=settings.bigquery_location)


def _credentials(settings: Settings) -> Credentials:
    if settings.bigquery_endpoint is not None:
        return AnonymousCredentials()  # type: ignore[no-untyped-call]
    credentials, _ = google.auth.default(scopes=SCOPES)
    return credentials


class Difference(NamedTuple):
    """Something that is not as it should be. `object`: a table, a column of it, or a view."""

    object: str
    expected: str
    found: str


async def apply(store: BigQuery) -> list[str]:
    """Make what is missing: dataset, tables, columns, views. What was done; nothing when all was there.

    A table that differs otherwise is left as it is: `check` names it.
    """
    await store.make_dataset()
    done = [name for table in TABLES.values() for name in await _apply_table(store, table)]
    sound = [table for table in TABLES.values() if not _differences(table, await store.stored_table(table.name))]
    stored = await store.stored_views()
    for name, sql in views(store.dataset, sound).items():
        if done or _plain(stored.get(name)) != _plain(sql):  # a view keeps the columns that it was made with
            await store.put_view(name, sql)
            done.append(f"view {name}")
    return done


async def _apply_table(store: BigQuery, table: Table) -> list[str]:
    stored = await store.stored_table(table.name)
    if stored is None:
        await store.make_table(table)
        return [f"table {table.name}"]
    known = {column.name for column in stored.columns}
    new = [column for column in table.columns if column.name not in known and column.mode != "REQUIRED"]
    if new and not _conflicts(table, stored):
        await store.add_columns(table, new)
        return [f"column {table.name}.{column.name}" for column in new]
    return []


async def check(store: BigQuery) -> list[Difference]:
    """Every way in which the warehouse differs from schemas/warehouse/, rows that are there twice included."""
    tables = {table.name: await store.stored_table(table.name) for table in TABLES.values()}
    found = [d for table in TABLES.values() for d in _differences(table, tables[table.name])]
    stored = await store.stored_views() if any(tables.values()) else {}
    for name, sql in views(store.dataset).items():
        if _plain(stored.get(name)) != _plain(sql):
            found.append(Difference(name, "the view of schemas/warehouse_tables.py", "missing or another"))
    if not found:
        found += await _duplicates(store)
    return found


async def _duplicates(store: BigQuery) -> list[Difference]:
    found = []
    for table in TABLES.values():
        [row] = await store.query(f"SELECT COUNT(*) AS n FROM {{{table.duplicates}}}")
        if row["n"]:
            found.append(Difference(table.name, "each row once", f"{row['n']} row ids more than once"))
    return found


def _differences(table: Table, stored: StoredTable | None) -> list[Difference]:
    if stored is None:
        return [Difference(table.name, "a table", "missing")]
    known = {column.name: column for column in stored.columns}
    missing = [
        Difference(f"{table.name}.{column.name}", _shape(column), "missing")
        for column in table.columns
        if column.name not in known
    ]
    return [*_conflicts(table, stored), *missing]


def _conflicts(table: Table, stored: StoredTable) -> list[Difference]:
    """Differences that no addition mends."""
    pairs: list[tuple[str, object, object]] = [
        ("partition", table.partition, stored.partition),
        ("cluster", list(table.cluster), list(stored.cluster)),
    ]
    known = {column.name: column for column in stored.columns}
    pairs += [
        (column.name, _shape(column), _shape(known[column.name])) for column in table.columns if column.name in known
    ]
    return [Difference(f"{table.name}.{what}", str(due), str(had)) for what, due, had in pairs if due != had]


def _shape(column: Column) -> str:
    inner = f"({', '.join(f'{field.name} {_shape(field)}' for field in column.fields)})" if column.fields else ""
    return f"{column.type} {column.mode}{inner}"


def _plain(sql: str | None) -> str:
    """A query without what a warehouse may write differently."""
    return "".join((sql or "").split()).rstrip(";")


def lines(differences: Sequence[Difference]) -> list[str]:
    return [f"{d.object}: expected {d.expected}, found {d.found}" for d in differences]
