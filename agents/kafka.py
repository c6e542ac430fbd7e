"""How every process reaches Kafka."""

from __future__ import annotations

import ssl
from typing import Any

from ops.settings import Settings


def connection(settings: Settings) -> dict[str, Any]:
    """aiokafka's arguments for brokers, TLS and SASL."""
    found: dict[str, Any] = {
        "bootstrap_servers": [broker.strip() for broker in settings.kafka_brokers.split(",")],
        "security_protocol": settings.kafka_security_protocol,
    }
    if "SSL" in settings.kafka_security_protocol:
        found["ssl_context"] = ssl.create_default_context()
    if settings.kafka_sasl_mechanism:
        found["sasl_mechanism"] = settings.kafka_sasl_mechanism
        found["sasl_plain_username"] = settings.kafka_sasl_username
        found["sasl_plain_password"] = settings.kafka_sasl_password
    return found
