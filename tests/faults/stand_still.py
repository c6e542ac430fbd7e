"""A worker that stands still for longer than its session, while another takes over, and then goes on."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from pathlib import Path
from uuid import UUID

from aiokafka import AIOKafkaProducer

from models.ads.rules import shard_of
from models.database import new_id
from schemas.ad_columns import CLICK, AdEvent, pack
from schemas.codec import encode
from streams.topics import AD_EVENTS
from tests.faults.load import Event, Load, Market
from tests.faults.system import SHARDS, ExtraWorker, System, until

ALL_LOADED = ('"event":"table_loaded"', '"partitions":[0,1,2,3,4,5,6,7,8,9,10,11]')
TICKS_S = 2.0  #: every shard has ticked meanwhile
BURST_RECORDS = 1_500
BURST_CLICKS = 60  #: in each record
BUSY_WINDOW_S = 0.06
BUSY_LIMIT_S = 5.0
BUSY_SHARE = 0.6  #: of a core within the window: it is in the midst of the burst


async def stand_still(market: Market, second: ExtraWorker, load: Load) -> None:
    """SIGSTOP for the supervised worker, until `second` has counted for it for a while; then SIGCONT. Load included.

    A worker that is stopped while it waits gives its partitions up as soon as it wakes, and harms nobody. What makes a
    zombie dangerous is arranged: it is stopped in the midst of counting a burst, so that it wakes with something to
    write; and by then the load is over, so that no later event of the new owner covers up what it wrote.
    """
    system = market.system
    async with load.running():
        await load.goes_on()
        before = system.log_lines(second.log_name, *ALL_LOADED)
        records = await burst(market, load)
        async with AIOKafkaProducer(bootstrap_servers=system.settings.kafka_brokers) as producer:
            sending = asyncio.create_task(send_all(producer, records))
            pid = await system.signal("worker", 0)
            await busy(pid)
            os.kill(pid, signal.SIGSTOP)
            try:
                await sending

                async def taken_over() -> bool:
                    return system.log_lines(second.log_name, *ALL_LOADED) > before

                await until("the second worker has taken all partitions over", taken_over)
                await load.goes_on()
            except BaseException:
                os.kill(pid, signal.SIGCONT)
                raise
    try:
        await system.outbox_drained()
        await asyncio.sleep(TICKS_S)
    finally:
        os.kill(pid, signal.SIGCONT)
    await both_count(system, second)


async def send_all(producer: AIOKafkaProducer, records: list[tuple[bytes, bytes]]) -> None:
    """Until the broker has all of them."""
    sent = [await producer.send(AD_EVENTS, value, key=key) for key, value in records]
    await asyncio.gather(*sent)


def cpu_s(pid: int) -> float:
    """Time that a process has computed so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def busy(pid: int) -> None:
    """Wait until the process computes most of the time; not for longer than a burst can last."""
    deadline = time.monotonic() + BUSY_LIMIT_S
    while time.monotonic() < deadline:
        since, before = time.monotonic(), cpu_s(pid)
        await asyncio.sleep(BUSY_WINDOW_S)
        if cpu_s(pid) - before >= BUSY_SHARE * (time.monotonic() - since):
            return


async def burst(market: Market, load: Load) -> list[tuple[bytes, bytes]]:
    """Records of clicks, as the relay would send them, key and value; they are tallied, and cost nothing."""
    now = await market.system.now()
    iat_s, day = int(now.timestamp()), now.date()
    shards: dict[int, list[UUID]] = {}
    for ad_id in market.budgets_micros:
        shards.setdefault(shard_of(ad_id, SHARDS), []).append(ad_id)
    click = Event(b"", UUID(int=0), "click", 0, day)
    records = []
    for n in range(BURST_RECORDS):
        shard = sorted(shards)[n % len(shards)]
        ads = random.choices(shards[shard], k=BURST_CLICKS)
        events = [AdEvent(random.randbytes(16), ad.bytes, CLICK, iat_s, iat_s + 1800, 0) for ad in ads]
        load.tally.sent.update((event.jti, click) for event in events)
        load.tally.accepted.update(event.jti for event in events)
        record = pack(events, event_id=new_id(), shard=shard, occurred_at=now, actor="test")
        records.append((str(shard).encode(), encode(record)))
    return records


async def both_count(system: System, second: ExtraWorker) -> None:
    """Wait until the group is at rest again: nobody has loaded anything for a while."""
    logs = ("worker", second.log_name)
    loads, since = [-1, -1], 0.0
    clock = asyncio.get_running_loop().time
    while clock() - since < TICKS_S:
        now = [system.log_lines(log, '"event":"table_loaded"') for log in logs]
        if now != loads:
            loads, since = now, clock()
        await asyncio.sleep(0.1)
