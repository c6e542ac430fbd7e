"""``python -m ops.bench.quix_streams BROKERS TOPIC count|dedupe EVENTS STATE_DIR``: the same with Quix Streams.

At least once, its state on RocksDB with a changelog topic, keyed as Quix has it: by the message's key, which is the
shard. Values are read and written event by event; `dedupe` keeps a mark an event beside them.
"""

from __future__ import annotations

import sys
import uuid
from typing import Any

from quixstreams import Application, State

from ops.bench.progress import Progress
from schemas.ad_columns import Columns, unpack
from schemas.codec import decode_dict
from streams.watermarks import DAY_S


class Counting:
    """The stateful step."""

    def __init__(self, app: Application, *, dedupe: bool, events: int) -> None:
        self._app, self._dedupe, self._events = app, dedupe, events
        self._progress = Progress()

    def __call__(self, record: bytes, state: State[str, Any]) -> None:
        columns = unpack(decode_dict(record)[1])
        self._progress.add(len(columns.kind), self._count(columns, state))
        self._progress.say()
        if self._progress.seen >= self._events:
            self._progress.end()
            self._app.stop()

    def _count(self, columns: Columns, state: State[str, Any]) -> int:
        new = 0
        for jti, ad, kind, iat_s, cost in zip(
            columns.jti, columns.ad, columns.kind, columns.iat_s, columns.cost_micros, strict=True
        ):
            if self._dedupe:
                mark = jti.hex()
                if state.exists(mark):
                    continue
                state.set(mark, 1)
            key = f"{columns.ads[ad].hex()}:{iat_s // DAY_S}"
            found = state.get(key) or [0, 0, 0]
            found[kind] += 1
            found[2] += cost
            state.set(key, found)
            new += 1
        return new


def main(brokers: str, topic: str, mode: str, events: str, state_dir: str) -> None:
    """Read the topic from its beginning until `events` are counted."""
    app = Application(
        broker_address=brokers,
        consumer_group=f"quix-{uuid.uuid4()}",
        auto_offset_reset="earliest",
        state_dir=state_dir,
        loglevel="WARNING",
        processing_guarantee="at-least-once",
    )
    events_topic: Any = app.topic(topic, value_deserializer="bytes", key_deserializer="bytes")
    counting = Counting(app, dedupe=mode == "dedupe", events=int(events))
    app.dataframe(events_topic).update(counting, stateful=True)
    app.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
