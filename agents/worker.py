"""The `packstream worker` process: the Faust app with the agents asked for, and what they need around them."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import faust
import structlog
from faust.types import TP
from prometheus_client import start_http_server
from sqlalchemy.exc import SQLAlchemyError

from agents import billing, kafka, media, notifications, positions
from agents.ad_counters import AdCounters
from agents.analytics import AnalyticsAgent
from agents.app import create_app, own_store, worker_directory
from agents.billing import Biller
from agents.draft_work import DraftWork
from agents.mailer import Mailer
from agents.media_work import SLOTS, MediaWork, empty_scratch
from agents.order_ticker import Ticker
from agents.order_ttl import OrderTtl
from agents.rounds import Rounds, waking
from agents.runtime.bulk import BulkAgent, BulkFold
from agents.runtime.crash import restart
from agents.runtime.effects import After, EffectAgent, Handler
from models import metadata
from models.ads.gateway import CounterSink
from models.billing.gateway import call_bound_s
from models.clock import Clock
from models.database import make_engine, make_sessions
from models.identity.invites import InviteTokens
from models.notifications.deliveries import Composer
from models.notifications.unsubscribing import UnsubscribeTokens
from models.redis import RedisLink
from ops.email_sender import email_sender
from ops.logs import configure_logs
from ops.media_maker import draft_reader, media_maker
from ops.object_store import object_store
from ops.settings import Settings
from ops.stripe_account import stripe_account
from ops.warehouse import warehouse
from streams.topics import (
    AD_COUNTERS,
    AD_EVENTS,
    AD_ROLLUPS,
    ANALYTICS,
    BILLING,
    MEDIA,
    MEDIA_TOPIC,
    NOTIFICATIONS,
    NOTIFICATIONS_TOPIC,
    ORDER_DEADLINES,
    ORDER_TTL,
    ORDERS,
    PARTITION_COUNT,
)
from streams.watermarks import Grace

log = structlog.get_logger(__name__)

AGENTS: Final = (AD_COUNTERS, ORDER_TTL, NOTIFICATIONS, MEDIA, BILLING, ANALYTICS)
CLOCK_POLL_S: Final = 0.1
PACE_S: Final = 0.01  #: between transactions of a bulk agent: fewer, larger ones for a few ms of lag
EFFECTS_BUFFER: Final = 16_384  #: records: more than one fetch, so that an agent that waits holds up no other
STOP_TIMEOUT_S: Final = 15.0
STALLED_S: Final = 60.0  #: a partition that has records but does not move for so long ends the process
WATCH_S: Final = 5.0


class Worker:
    """Everything one worker process has; built in one place."""

    def __init__(self, settings: Settings, agents: Sequence[str]) -> None:
        unknown = set(agents) - set(AGENTS)
        if unknown:
            raise SystemExit(
                f"packstream worker: no such agent: {', '.join(sorted(unknown))}; there are {', '.join(AGENTS)}"
            )
        self.settings = settings
        self.tables = metadata.metadata  # all of them, for their foreign keys
        self.app = create_app(settings)
        self.clock = Clock()
        self.link = RedisLink(settings.redis_url)
        self.engine = make_engine(settings.sqlalchemy_url, pool_size=8, application="packstream-worker")
        self.sessions = make_sessions(self.engine)
        self.grace = Grace(settings.ad_token_ttl_s, settings.clock_skew_s)
        self.bulk: list[BulkAgent] = []
        self.effects: list[EffectAgent | AnalyticsAgent] = []
        if AD_COUNTERS in agents:
            self._ad_counters()
        self.ticker: Ticker | None = None
        if ORDER_TTL in agents:
            self.ticker = self._order_ttl()
        self.rounds: list[Rounds] = []
        if NOTIFICATIONS in agents:
            self._notifications()
        if MEDIA in agents:
            self._media()
        if BILLING in agents:
            self._billing()
        if ANALYTICS in agents:
            self._analytics()
        self.app.task(self._start)
        self.app.task(self._watch)

    def _ad_counters(self) -> None:
        fold = AdCounters(
            sessions=self.sessions,
            sink=CounterSink(self.link),
            grace=self.grace,
            shards=self.settings.ad_shards,
            now=self.clock.now,
        )
        self._table_agent(AD_COUNTERS, AD_EVENTS, AD_COUNTERS, fold, cache_bytes=64 << 20, buffer_bytes=32 << 20)

    def _order_ttl(self) -> Ticker:
        fold = OrderTtl(sessions=self.sessions)
        bulk = self._table_agent(ORDER_TTL, ORDERS, ORDER_DEADLINES, fold, cache_bytes=8 << 20, buffer_bytes=4 << 20)
        return Ticker(self.app, bulk, sessions=self.sessions, follow=self.settings.test_clock)

    def _table_agent(
        self,
        name: str,
        topic_name: str,
        table_name: str,
        fold: BulkFold[Any, Any],
        *,
        cache_bytes: int,
        buffer_bytes: int,
    ) -> BulkAgent:
        """An agent with a table, which is all that its topic amounts to. The sizes are of each partition."""
        topic = self.app.topic(
            topic_name, key_type=bytes, value_type=bytes, value_serializer="raw", key_serializer="raw"
        )
        table = self.app.Table(
            table_name,
            key_type=bytes,
            value_type=bytes,
            partitions=PARTITION_COUNT,
            options={"block_cache_size": cache_bytes, "write_buffer_size": buffer_bytes},
        )
        own_store(table, self.settings)
        agent = BulkAgent(self.app, name, topic, table, fold, pace_s=PACE_S)
        self.app.agent(topic, name=name, concurrency=1)(agent.run)
        self.bulk.append(agent)
        return agent

    def _notifications(self) -> None:
        mailer = Mailer(
            sessions=self.sessions,
            sender=email_sender(self.settings),
            composer=Composer(
                self.settings.public_url,
                InviteTokens(self.settings.jwt_keys),
                UnsubscribeTokens(self.settings.jwt_keys),
            ),
            timeout_s=self.settings.email_timeout_s,
            now=self.clock.now,
        )
        sending = mailer.rounds()
        self.rounds.append(sending)
        found = notifications.handlers(self.clock.now)
        self._effects(NOTIFICATIONS, NOTIFICATIONS_TOPIC, found, {"email_requested": sending.wake})

    def _billing(self) -> None:
        """The agent, and the biller; without it, where no Stripe is configured, charges wait."""
        self._effects(BILLING, AD_ROLLUPS, billing.handlers())
        stripe = stripe_account(self.settings)
        if stripe is None:
            return
        attempt_s = 2 * call_bound_s(self.settings.stripe_timeout_s)
        biller = Biller(sessions=self.sessions, stripe=stripe, attempt_s=attempt_s, now=self.clock.now)
        self.rounds.append(Rounds("biller", biller.round, stripe.close))

    def _analytics(self) -> None:
        agent = AnalyticsAgent(
            self.app,
            sessions=self.sessions,
            warehouse=warehouse(self.settings),
            connection=kafka.connection(self.settings),
        )
        for name, topic_name in ((ANALYTICS, ORDERS), (f"{ANALYTICS}.rollups", AD_ROLLUPS)):
            self.app.agent(self._raw_topic(topic_name), name=name, concurrency=1)(agent.run)
        self.effects.append(agent)

    def _raw_topic(self, name: str) -> faust.TopicT:
        """A topic of a low-rate agent: bytes as they are."""
        return self.app.topic(
            name,
            key_type=bytes,
            value_type=bytes,
            value_serializer="raw",
            key_serializer="raw",
            maxsize=EFFECTS_BUFFER,
        )

    def _media(self) -> None:
        settings, store = self.settings, object_store(self.settings)
        maker = media_maker(settings, empty_scratch(worker_directory(settings) / "media"))
        lease_s, now = settings.media_lease_s, self.clock.now
        work = MediaWork(sessions=self.sessions, store=store, maker=maker, lease_s=lease_s, now=now)
        reader = draft_reader(settings)
        drafting = DraftWork(sessions=self.sessions, store=store, reader=reader, lease_s=lease_s, now=now)
        processing = [Rounds(f"media-{slot}", work.round, maker.close) for slot in range(SLOTS)]
        self.rounds += [*processing, Rounds("drafts", drafting.round, reader.close)]
        self._effects(MEDIA, MEDIA_TOPIC, media.handlers(store, now), {"media_uploaded": waking(processing)})

    def _effects(
        self,
        name: str,
        topic_name: str,
        handlers: Mapping[str, Handler],
        after: Mapping[str, After] | None = None,
    ) -> None:
        """A low-rate agent on one topic."""
        connection = kafka.connection(self.settings)
        agent = EffectAgent(
            self.app, name, sessions=self.sessions, handlers=handlers, after=after, connection=connection
        )
        self.app.agent(self._raw_topic(topic_name), name=name, concurrency=1)(agent.run)
        self.effects.append(agent)

    async def _start(self) -> None:
        await self.link.connect()
        if self.settings.test_clock:
            self.app.add_future(self._follow_clock())
        for rounds in self.rounds:
            self.app.add_future(rounds.run())
        self.app.add_future(positions.report(self.app, [*self.bulk, *self.effects], self.sessions))
        if self.ticker is not None:
            self.app.add_future(self.ticker.run())
        self.app.add_future(self._say_ready())

    async def _follow_clock(self) -> None:
        while not self.app.should_stop:
            try:
                async with self.sessions() as tx:
                    await self.clock.refresh(tx)
            except (SQLAlchemyError, OSError) as exc:
                log.warning("clock_not_read", error=repr(exc))
            await asyncio.sleep(CLOCK_POLL_S)

    async def _say_ready(self) -> None:
        """Once all that is assigned is loaded, write the pid where the supervisor looks."""
        path = os.environ.get("PACKSTREAM_READY_FILE")
        while not self.app.should_stop:
            if self.app.consumer.assignment() and all(
                bulk.store.owned and all(o.ready for o in bulk.store.owned.values()) for bulk in self.bulk
            ):
                log.info("worker_ready", partitions=len(self.app.consumer.assignment()))
                if path:
                    Path(path).write_text(str(os.getpid()))
                return
            await asyncio.sleep(0.05)

    async def _watch(self) -> None:
        """A worker can die quietly: when a partition has records and does not move, start afresh."""
        last: dict[tuple[int, int], tuple[int, float]] = {}
        while not self.app.should_stop:
            await asyncio.sleep(WATCH_S)
            for agent in self.effects:
                if agent.busy_s() > STALLED_S:
                    restart(self.app, f"{agent.name} hangs in one try")
            for n, bulk in enumerate(self.bulk):
                for partition, owner in bulk.owned().items():
                    end = self.app.consumer.highwater(TP(bulk.store.source_topic, partition)) or 0
                    now = time.monotonic()
                    position, since = last.get((n, partition), (None, now))
                    if owner.position != position or owner.position + 1 >= end:
                        last[n, partition] = (owner.position, now)
                    elif now - since > STALLED_S:
                        restart(self.app, f"{bulk.store.source_topic}-{partition} stands at {position} of {end}")


def end_at_latest(timeout_s: float) -> None:
    """Leave by force when an orderly stop hangs: state is safe in the changelog."""

    def end() -> None:
        log.error("stop_timed_out", timeout_s=timeout_s)
        os._exit(1)

    timer = threading.Timer(timeout_s, end)
    timer.daemon = True
    timer.start()


class BoundedStop(faust.Worker):
    """A Faust worker that leaves within STOP_TIMEOUT_S of SIGTERM."""

    def _on_sigterm(self) -> None:
        end_at_latest(STOP_TIMEOUT_S)
        super()._on_sigterm()


def main(settings: Settings, agents: Sequence[str] | None = None) -> None:
    """Run until SIGTERM. Exit status 75: start me again."""
    configure_logs(level=settings.log_level, format_=settings.log_format)
    worker = Worker(settings, agents or [name for name in AGENTS if name != ANALYTICS or settings.has_warehouse])
    if settings.worker_metrics_port:
        start_http_server(settings.worker_metrics_port)
    process = BoundedStop(worker.app, loglevel="WARN", redirect_stdouts=False, quiet=True)
    process.execute_from_commandline()
