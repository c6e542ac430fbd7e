"""A Kafka Connect worker with the outbox connector: started, given its configuration, ready when its slot is read."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from string import Template
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import asyncpg

from models.outbox_reaping import SLOT
from ops.stack.errors import StackError
from ops.stack.parts.connect import Connect
from ops.stack.paths import DataDir
from ops.stack.ports import PortBook
from ops.stack.processes import Identity
from ops.stack.units import Site, start, stop, wait_ready

NAME: Final = "packstream-outbox"
RUNNING_S: Final = 60.0
POLL_S: Final = 0.2
ANSWER_S: Final = 10


async def prepare_database(owner_url: str) -> None:
    """Publication and grants, as the owner; doing it again changes nothing."""
    db = await asyncpg.connect(owner_url)
    try:
        await db.execute(files("ops.debezium").joinpath("outbox.sql").read_text())
    finally:
        await db.close()


def configuration(cdc_url: str, *, slot: str = SLOT) -> dict[str, str]:
    """connector.json for a database, reached as the replication role."""
    url = urlsplit(cdc_url)
    template = Template(files("ops.debezium").joinpath("connector.json").read_text())
    filled = template.safe_substitute(
        host=url.hostname,
        port=url.port or 5432,
        user=unquote(url.username or ""),
        password=unquote(url.password or ""),
        database=url.path.removeprefix("/"),
        slot=slot,
    )
    config: dict[str, str] = json.loads(filled)
    return config


async def put_connector(connect_url: str, config: dict[str, str], *, name: str = NAME) -> None:
    """Give Kafka Connect the connector and wait until its task runs. StackError when it fails, or does not run."""
    await _call(connect_url, "PUT", f"/connectors/{name}/config", config)
    for _ in range(int(RUNNING_S / POLL_S)):
        await asyncio.sleep(POLL_S)
        tasks = (await _call(connect_url, "GET", f"/connectors/{name}/status") or {}).get("tasks", [])
        states = [task["state"] for task in tasks]
        if "FAILED" in states:
            raise StackError(f"debezium: {tasks[0].get('trace', '')[:500]}")
        if states == ["RUNNING"]:
            return
    raise StackError(f"debezium: the connector does not run after {RUNNING_S:.0f} s")


async def delete_connector(connect_url: str, *, name: str = NAME) -> None:
    """Take the connector away; its slot stays."""
    await _call(connect_url, "DELETE", f"/connectors/{name}")


async def _call(connect_url: str, method: str, path: str, body: Any = None) -> Any:
    def call() -> Any:
        request = urllib.request.Request(
            connect_url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
                text = answer.read()
        except urllib.error.HTTPError as exc:
            if exc.code in (404, 409):  # not there yet, or a rebalance is under way
                return None
            raise StackError(f"debezium: {method} {path}: {exc.read().decode(errors='replace')[:500]}") from exc
        return json.loads(text) if text else None

    return await asyncio.to_thread(call)


async def wait_for_slot(owner_url: str, slot: str = SLOT) -> None:
    """Return when the connector reads the slot: rows inserted from now on are published."""
    db = await asyncpg.connect(owner_url)
    try:
        for _ in range(int(RUNNING_S / POLL_S)):
            if await db.fetchval("SELECT active FROM pg_replication_slots WHERE slot_name = $1", slot):
                return
            await asyncio.sleep(POLL_S)
    finally:
        await db.close()
    raise StackError(f"debezium: nobody reads the slot {slot}")


@asynccontextmanager
async def connect_worker(data: DataDir, brokers: str) -> AsyncIterator[str]:
    """A Kafka Connect worker with its data in `data`; yields its REST address."""
    data.make()
    with PortBook({}) as book:
        ports = book.choose(Connect.ports, last={})
        unit = Connect(Site(data, ports, {"KAFKA_BROKERS": brokers}))
        unit.check()
        process = await start(unit, bound=True)
    identity = Identity.of(process.pid)
    try:
        await wait_ready(unit, process)
        yield unit.addresses(ports)["CONNECT_URL"]
    finally:
        if identity is not None:
            await stop(unit, identity)


@asynccontextmanager
async def debezium(
    data: DataDir, brokers: str, *, owner_url: str, cdc_url: str, slot: str = SLOT, name: str = NAME
) -> AsyncIterator[str]:
    """Debezium reading the outbox of a database; its slot is dropped at the end. Yields the worker's REST address.

    A second one on the same brokers needs another `name`: Kafka Connect keeps offsets by it, and with the slot the
    log that they point into is gone.
    """
    await prepare_database(owner_url)
    async with connect_worker(data, brokers) as connect_url:
        await put_connector(connect_url, configuration(cdc_url, slot=slot), name=name)
        await wait_for_slot(owner_url, slot)
        yield connect_url
        await delete_connector(connect_url, name=name)
    await drop_slot(owner_url, slot)


async def drop_slot(owner_url: str, slot: str = SLOT) -> None:
    """Drop a slot that nobody reads any more; one that is not there is no error."""
    db = await asyncpg.connect(owner_url)
    try:
        for _ in range(int(RUNNING_S / POLL_S)):
            active = await db.fetchval("SELECT active FROM pg_replication_slots WHERE slot_name = $1", slot)
            if not active:
                break
            await asyncio.sleep(POLL_S)
        if active is not None:
            await db.execute("SELECT pg_drop_replication_slot($1)", slot)
    finally:
        await db.close()
