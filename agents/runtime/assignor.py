"""One way of assigning partitions for all workers of the group, whatever agents they run.

Faust's driver takes its own assignor only where the app has tables, and aiokafka's otherwise. Kafka admits to a group
only members that agree, so a worker without a table (`--agents notifications`) could not join one that counts ads.
Faust's assignor deals with members that subscribe to different topics.
"""

from __future__ import annotations

from typing import Any

from faust.transport.drivers import aiokafka as driver


def use_for_all(app: Any) -> None:
    """Give the driver the app's assignor in place of the one it would choose without tables. One app a process."""
    driver.RoundRobinPartitionAssignor = app.assignor  # type: ignore[attr-defined]  # it imports the name
