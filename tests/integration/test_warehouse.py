"""The warehouse on the emulator: made, upgraded and checked by the command, written and read through the gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from click.testing import CliRunner
from google.cloud import bigquery

from models.analytics.encoding import encoder
from models.analytics.gateway import BigQuery, NotReady, StreamGoneError
from models.errors import Unavailable
from ops.cli import main
from ops.settings import Settings
from ops.stack.local import stack_down, stack_up
from ops.stack.paths import DataDir
from ops.warehouse import apply, check, connected_warehouse, warehouse
from schemas.warehouse_tables import TABLES

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
ROLLUPS = "ad_daily_rollups"


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    data = DataDir.at(tmp_path_factory.mktemp("warehouse"))
    yield dict(asyncio.run(stack_up(data, ("bigquery",), bound=True)).site.addresses)
    asyncio.run(stack_down(data, ("bigquery",)))


def settings(addresses: dict[str, str], dataset: str) -> Settings:
    names = ("BIGQUERY_ENDPOINT", "BIGQUERY_GRPC_ENDPOINT")
    return Settings(
        packstream_env="test",
        database_url="postgresql://nowhere/none",
        bigquery_dataset=dataset,
        **{name.lower(): addresses[name] for name in names},  # type: ignore[arg-type]
    )


@pytest.fixture
async def store(addresses: dict[str, str], request: pytest.FixtureRequest) -> AsyncIterator[BigQuery]:
    """A dataset of this test alone."""
    store = connected_warehouse(settings(addresses, request.node.name))
    await apply(store)
    yield store
    store.close()


def rollup(row_id: str, **changes: Any) -> bytes:
    row = {
        "row_id": row_id, "occurred_at": NOW, "store_id": "s", "ad_id": "a", "impressions": 3, "clicks": 1,
        "spend_micros": 5, "source": "stream", "ingested_at": NOW,
    }  # fmt: skip
    return encoder(ROLLUPS).encode(row | changes)


async def count(store: BigQuery, table: str = ROLLUPS) -> int:
    [row] = await store.query(f"SELECT COUNT(*) AS n FROM {{{table}}}")
    return int(row["n"])


async def test_tables_are_partitioned_by_day_clustered_by_store_and_documented(store: BigQuery) -> None:
    for table in TABLES.values():
        stored = await store.stored_table(table.name)
        assert stored is not None
        assert (stored.partition, stored.cluster) == ("occurred_at", table.cluster)
        assert table.cluster[0].endswith("store_id")
        assert (stored.description, stored.columns) == (table.description, table.columns)
    assert await apply(store) == []
    assert await check(store) == []


async def test_apply_adds_columns_and_check_names_what_it_cannot_mend(addresses: dict[str, str]) -> None:
    store = connected_warehouse(settings(addresses, "old"))
    await store.make_dataset()
    table = TABLES[ROLLUPS]
    old = bigquery.Table(f"{store.dataset}.{ROLLUPS}", [bigquery.SchemaField("row_id", "STRING", "REQUIRED")])
    for column in table.columns[1:]:
        if column.name != "event_id":
            old.schema = [*old.schema, bigquery.SchemaField(column.name, column.type, column.mode)]
    old.time_partitioning, old.clustering_fields = bigquery.TimePartitioning(field="occurred_at"), list(table.cluster)
    store._client.create_table(old)
    wrong = bigquery.Table(f"{store.dataset}.ad_event_facts", [bigquery.SchemaField("row_id", "INT64", "REQUIRED")])
    store._client.create_table(wrong)
    done = await apply(store)
    assert f"column {ROLLUPS}.event_id" in done
    await store.append(ROLLUPS, await store.open_stream(ROLLUPS), [rollup("a", event_id="e")], offset=0)
    assert await store.query("SELECT event_id, ingested_at, source FROM {ad_daily_rollups_unique}") == [
        {"event_id": "e", "ingested_at": NOW, "source": "stream"}
    ]
    objects = {difference.object for difference in await check(store)}
    assert {"ad_event_facts.row_id", "ad_event_facts.partition", "ad_event_facts.type"} <= objects
    assert {name for name in objects if name.startswith((ROLLUPS, "marketplace_events"))} == set()
    store.close()


def test_the_command_says_what_it_did_and_what_differs(addresses: dict[str, str], tmp_path: Any) -> None:
    names = ("BIGQUERY_ENDPOINT", "BIGQUERY_GRPC_ENDPOINT")
    environment = {name: addresses[name] for name in names}
    environment |= {"DATABASE_URL": "postgresql://nowhere/none", "BIGQUERY_DATASET": "command"}

    def run(*arguments: str) -> tuple[int, Any]:
        arguments = ("warehouse", *arguments, "--json", "--data", str(tmp_path))
        result = CliRunner().invoke(main, arguments, env=environment)
        return result.exit_code, json.loads(result.stdout)

    status, found = run("check")
    assert status == 1
    assert {"object": "marketplace_events", "expected": "a table", "found": "missing"} in found["differences"]
    status, found = run("apply")
    assert (status, found["ok"]) == (0, True)
    assert "table marketplace_events" in found["done"]
    assert run("apply") == (0, {"ok": True, "done": []})
    assert run("check") == (0, {"ok": True, "differences": []})


async def test_rows_at_an_offset_are_taken_once(store: BigQuery) -> None:
    stream = await store.open_stream(ROLLUPS)
    await store.append(ROLLUPS, stream, [rollup("a"), rollup("b")], offset=0)
    await store.append(ROLLUPS, stream, [rollup("a"), rollup("b")], offset=0)  # the answer was lost
    await store.append(ROLLUPS, stream, [rollup("c")], offset=2)
    assert await count(store) == 3
    assert await store.present(ROLLUPS, ["a", "c", "x"]) == {"a", "c"}


async def test_a_gap_an_ended_and_a_forgotten_stream_are_told_from_an_outage(store: BigQuery) -> None:
    stream = await store.open_stream(ROLLUPS)
    forgotten = stream[:-4] + "beef"
    with pytest.raises(StreamGoneError):
        await store.append(ROLLUPS, stream, [rollup("a")], offset=9)
    await store.end_stream(stream)
    await store.end_stream(forgotten)
    for one in (stream, forgotten):
        with pytest.raises(StreamGoneError):
            await store.append(ROLLUPS, one, [rollup("a")], offset=0)
    assert await count(store) == 0


async def test_rows_that_are_there_twice_are_once_in_the_view_and_named_by_check(store: BigQuery) -> None:
    for _ in range(2):
        await store.append(ROLLUPS, await store.open_stream(ROLLUPS), [rollup("a"), rollup("b")], offset=0)
    assert (await count(store), await count(store, f"{ROLLUPS}_unique")) == (4, 2)
    [difference] = await check(store)
    assert (difference.object, difference.found) == (ROLLUPS, "2 row ids more than once")


async def test_parameters_are_values_and_wrong_queries_are_told(store: BigQuery) -> None:
    await store.append(
        ROLLUPS, await store.open_stream(ROLLUPS), [rollup("a", store_id="o'hara"), rollup("b")], offset=0
    )
    sql = "SELECT row_id FROM {ad_daily_rollups} WHERE store_id = @store AND DATE(occurred_at) = @day"
    assert await store.query(sql, store="o'hara", day=NOW.date()) == [{"row_id": "a"}]
    assert await store.query(sql, store="s' OR '1'='1", day=NOW.date()) == []
    with pytest.raises(NotReady):
        await store.query("SELECT nothing FROM {ad_daily_rollups}")


async def test_a_warehouse_that_is_away_or_not_configured_is_unavailable() -> None:
    away = {"BIGQUERY_ENDPOINT": "http://127.0.0.1:9", "BIGQUERY_GRPC_ENDPOINT": "127.0.0.1:9"}
    store = connected_warehouse(settings(away, "none"))
    for call in (store.query("SELECT 1"), store.open_stream(ROLLUPS), store.append(ROLLUPS, "s", [b""], offset=0)):
        with pytest.raises(Unavailable):
            await call
    store.close()
    nowhere = Settings(packstream_env="test", database_url="postgresql://nowhere/none")
    with pytest.raises(Unavailable, match="BIGQUERY_PROJECT"):
        await warehouse(nowhere).query("SELECT 1")
