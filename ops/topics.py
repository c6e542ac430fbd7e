"""`packstream topics`: make what schemas.registry.TOPICS names, and refuse what cannot be mended."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import click
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from agents.kafka import connection
from ops.settings import Settings
from schemas.registry import PARTITIONS, TOPICS, Topic

MESSAGE_BYTES_MAX: Final = 1 << 20  #: a row's payload has 900,000 at most
TRIES: Final = 40
PAUSE_S: Final = 0.25


class TopicsError(click.ClickException):
    """The topics cannot be as they should."""


def main(settings: Settings) -> None:
    """Make the topics that are missing and mend the settings of the others. TopicsError when that is not possible."""
    try:
        made = asyncio.run(ensure_topics(settings))
    except (KafkaError, OSError) as exc:
        raise TopicsError(f"topics: {settings.kafka_brokers}: {exc}") from exc
    click.echo(f"topics: {len(TOPICS)} with {PARTITIONS} partitions each, {len(made)} of them new", err=True)


async def ensure_topics(settings: Settings) -> list[str]:
    """The names of the topics that this call made."""
    admin = AIOKafkaAdminClient(**connection(settings), client_id="packstream-topics", request_timeout_ms=10_000)
    try:
        await admin.start()
        return await _ensure(admin, settings.kafka_replication_factor)
    finally:
        await admin.close()


async def _ensure(admin: Any, replication: int) -> list[str]:
    found = await _partition_counts(admin)
    wrong = {name: count for name, count in found.items() if count != PARTITIONS}
    if wrong:
        raise TopicsError(
            f"topics: partitions are for life, but not {PARTITIONS}: {wrong}: delete them or start afresh"
        )
    missing = [topic for topic in TOPICS.values() if topic.name not in found]
    await _create(admin, missing, replication)
    await _configure(admin, [topic for topic in TOPICS.values() if topic.name in found])
    await _until_known(admin)
    return [topic.name for topic in missing]


async def _partition_counts(admin: Any) -> dict[str, int]:
    """Partitions of those topics of ours that exist."""
    names = {topic.name for topic in TOPICS.values()} & set(await admin.list_topics())
    described = await admin.describe_topics(sorted(names)) if names else []
    return {topic["topic"]: len(topic["partitions"]) for topic in described}


def options(topic: Topic, replication: int) -> dict[str, str]:
    """The topic's settings: the broker's append time, since logical time is in the payload."""
    return {
        "message.timestamp.type": "LogAppendTime",
        "retention.ms": str(topic.retention_ms),
        "max.message.bytes": str(MESSAGE_BYTES_MAX),
        "cleanup.policy": "delete",
        "min.insync.replicas": "2" if replication >= 3 else "1",
    }


async def _create(admin: Any, topics: list[Topic], replication: int) -> None:
    new = [NewTopic(topic.name, PARTITIONS, replication, topic_configs=options(topic, replication)) for topic in topics]
    if not new:
        return
    answer = await admin.create_topics(new)
    for name, code, *_ in answer.topic_errors:
        if code and for_code(code) is not TopicAlreadyExistsError:
            raise TopicsError(f"topics: {name}: {for_code(code).__name__}")


async def _configure(admin: Any, topics: list[Topic]) -> None:
    """Set what differs on topics that exist already (their replication stays as it is)."""
    for topic in topics:
        wanted = {key: value for key, value in options(topic, 1).items() if key != "min.insync.replicas"}
        current = await _current(admin, topic.name)
        if any(current.get(key) != value for key, value in wanted.items()):
            await admin.alter_configs(
                [ConfigResource(ConfigResourceType.TOPIC, topic.name, configs={**current, **wanted})]
            )


async def _current(admin: Any, name: str) -> Mapping[str, str]:
    """Settings of a topic that were set on it."""
    (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
    ((*_, entries),) = answer.resources
    topic_config = 1
    return {entry[0]: entry[1] for entry in entries if entry[3] == topic_config}


async def _until_known(admin: Any) -> None:
    """Wait until every broker's answer has all partitions, so that the next command finds them."""
    for _ in range(TRIES):
        counts = await _partition_counts(admin)
        if len(counts) == len(TOPICS) and all(count == PARTITIONS for count in counts.values()):
            return
        await asyncio.sleep(PAUSE_S)
    raise TopicsError("topics: the broker made them but does not show them: look at its log")
