"""The relay's process: pumps, housekeeping, metrics. Parts that fail are met with back-off, SIGTERM with an end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog
from aiokafka.errors import KafkaError
from prometheus_client import start_http_server

from agents.housekeeping import housekeeping
from agents.outages import DATABASE_GONE, Backoff, wait_for
from agents.relay.connections import (
    TopicsMissing,
    pump_connection,
    start_producer,
    stop_producer,
)
from agents.relay.metrics import show_backlog
from agents.relay.publish import ProducerBroken, Publisher
from agents.relay.pump import Bustle, Limits, Pump
from models.outbox_commands import backlog
from ops.settings import Settings

PUMPS: Final = 2  #: one publishes while Postgres works for the other
FIRST_PUMP: Final = "pump 0"
STOP_S: Final = 12.0  #: after SIGTERM; what has not ended by then is cut off
BACKLOG_S: Final = 2.0
BACKLOG_ROWS_MAX: Final = 1_000_000

log = structlog.get_logger(__name__)


class Readiness:
    """Writes the file that PACKSTREAM_READY_FILE names, with this process's pid, once all parts have reported."""

    def __init__(self, *parts: str) -> None:
        self._missing = set(parts)

    def report(self, part: str) -> None:
        """A part is ready. Saying it again does nothing."""
        if part not in self._missing:
            return
        self._missing.discard(part)
        if not self._missing:
            log.info("relay_ready", pid=os.getpid())
            if path := os.environ.get("PACKSTREAM_READY_FILE"):
                Path(path).write_text(f"{os.getpid()}\n")


def limits_of(settings: Settings) -> Limits:
    """What a pump may do, from the settings."""
    return Limits(
        batch_rows=settings.relay_batch_rows,
        attempts_max=settings.relay_max_attempts,
        sleep_min_s=settings.relay_sleep_min_ms / 1000,
        sleep_max_s=max(settings.relay_sleep_min_ms, settings.relay_sleep_max_ms) / 1000,
        unarchived=() if settings.archive_ad_batches else ("ad_events",),
    )


async def run(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT. With Debezium as the relay, only the housekeeping runs."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if settings.relay_metrics_port:
        start_http_server(settings.relay_metrics_port)
    pumps = [f"pump {n}" for n in range(PUMPS)] if settings.relay_kind == "packstream" else []
    readiness, bustle = Readiness("housekeeping", *pumps), Bustle()
    await until_stopped(
        [
            housekeeping(settings, stop, partial(readiness.report, "housekeeping")),
            watch_backlog(settings, stop),
            *(pump(settings, stop, name, readiness, bustle) for name in pumps),
        ],
        stop,
    )
    log.info("relay_stopped")


async def until_stopped(jobs: list[Coroutine[Any, Any, None]], stop: asyncio.Event) -> None:
    """Run `jobs` until `stop`, then give them STOP_S to end. What one of them raises ends all, and is raised."""
    tasks = [asyncio.create_task(job) for job in jobs]
    for task in tasks:
        task.add_done_callback(lambda _: stop.set())
    await stop.wait()
    _, late = await asyncio.wait(tasks, timeout=STOP_S)
    for task in late:
        task.cancel()
    if late:
        log.warning("relay_cut_off", jobs=len(late))
    for task in tasks:
        if task.done():
            task.result()


async def pump(settings: Settings, stop: asyncio.Event, name: str, readiness: Readiness, bustle: Bustle) -> None:
    """One pump, with a new producer whenever the last one broke."""
    backoff = Backoff()
    while not stop.is_set():
        try:
            producer = await start_producer(settings)
        except (KafkaError, OSError, TopicsMissing) as exc:
            log.warning("relay_broker_unreachable", error=str(exc) or repr(exc))
            await backoff.pause(stop)
            continue
        try:
            readiness.report(name)
            mover = Pump(Publisher(producer), limits_of(settings), bustle, helper=name != FIRST_PUMP)
            await _run_pump(mover, settings, stop)
        except ProducerBroken as exc:
            log.warning("relay_producer_broken", error=str(exc))
            await backoff.pause(stop)
        else:
            backoff.reset()
        finally:
            await stop_producer(producer)


async def _run_pump(mover: Pump, settings: Settings, stop: asyncio.Event) -> None:
    """One producer's life, over as many connections to Postgres as it takes."""
    backoff = Backoff()
    while not stop.is_set():
        try:
            async with pump_connection(settings) as db:
                backoff.reset()
                await mover.run(db, stop)
        except DATABASE_GONE as exc:
            log.warning("relay_database_gone", error=repr(exc))
            await backoff.pause(stop)


async def watch_backlog(settings: Settings, stop: asyncio.Event) -> None:
    """Keep the gauges fresh."""
    backoff = Backoff()
    while not stop.is_set():
        try:
            async with pump_connection(settings) as db:
                backoff.reset()
                while not stop.is_set():
                    show_backlog(await backlog(db, count_max=BACKLOG_ROWS_MAX))
                    await wait_for(stop, BACKLOG_S)
        except DATABASE_GONE as exc:
            log.warning("relay_database_gone", error=repr(exc))
            await backoff.pause(stop)
