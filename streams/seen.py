"""Which events of a shard were counted, exactly and in little memory. Pure.

Marks are packed: one table entry a record and minute of `exp`, its value the ids, 16 bytes each. Minutes in which
events may still come are sets in memory; older ones are read back only when a repeat asks for them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Final

ID_BYTES: Final = 16
THAWED_MAX: Final = 4  #: old minutes that stay in memory from tick to tick

_KEY = struct.Struct(">sHIQ")
_PREFIX = struct.Struct(">sHI")
_SHARD = struct.Struct(">sH")
_IDS: dict[int, struct.Struct] = {}

Scan = Callable[[bytes], Iterable[tuple[bytes, bytes]]]
"""Table entries by key prefix, in key order."""


def mark_key(shard: int, bucket: int, offset: int) -> bytes:
    """The table key of the marks that the record at `offset` made."""
    return _KEY.pack(b"s", shard, bucket, offset)


def shard_prefix(shard: int) -> bytes:
    """What all mark keys of a shard begin with."""
    return _SHARD.pack(b"s", shard)


def bucket_prefix(shard: int, bucket: int) -> bytes:
    """What the mark keys of one minute begin with; in key order of minutes."""
    return _PREFIX.pack(b"s", shard, bucket)


def split_ids(packed: bytes) -> tuple[bytes, ...]:
    """The ids of a packed value."""
    count = len(packed) // ID_BYTES
    layout = _IDS.get(count)
    if layout is None:
        layout = _IDS[count] = struct.Struct("16s" * count)
    return layout.unpack(packed)


class Seen:
    """One shard's marks. `live_bucket` moves with the watermark."""

    def __init__(self, shard: int, scan: Scan) -> None:
        self._shard = shard
        self._scan = scan
        self._live: dict[int, set[bytes]] = {}
        self._thawed: dict[int, set[bytes]] = {}

    def bucket(self, bucket: int, live_bucket: int) -> set[bytes]:
        """The ids seen in one minute of `exp`; the caller adds to it what it marks."""
        found = self._live.get(bucket)
        if found is None:
            found = self._thawed.get(bucket)
        if found is None:
            found = self._read(bucket)
            if bucket >= live_bucket:
                self._live[bucket] = found
            else:
                self._thawed[bucket] = found
        return found

    def freeze(self, live_bucket: int) -> None:
        """Forget minutes behind `live_bucket`, but for the THAWED_MAX read back last.

        Call it at the end of a batch only: from then on the table has what was marked.
        """
        for bucket in [b for b in self._live if b < live_bucket]:
            del self._live[bucket]
        for bucket in list(self._thawed)[:-THAWED_MAX]:
            del self._thawed[bucket]

    def _read(self, bucket: int) -> set[bytes]:
        ids: set[bytes] = set()
        for _, packed in self._scan(bucket_prefix(self._shard, bucket)):
            ids.update(split_ids(packed))
        return ids
