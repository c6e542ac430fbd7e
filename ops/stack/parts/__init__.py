"""The parts of the local stack, one module each; ``PARTS`` names them in the order they are shown."""

from __future__ import annotations

from ops.stack.parts.bigquery import BigQuery
from ops.stack.parts.gcs import Gcs
from ops.stack.parts.kafka import Kafka
from ops.stack.parts.postgres import Postgres
from ops.stack.parts.redis import Redis
from ops.stack.parts.smtp import Smtp
from ops.stack.parts.stripe import Stripe
from ops.stack.units import Unit

PARTS: dict[str, type[Unit]] = {part.name: part for part in (Postgres, Kafka, Redis, Gcs, BigQuery, Stripe, Smtp)}
