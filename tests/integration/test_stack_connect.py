"""Kafka Connect comes up with Debezium's connector in it."""

from __future__ import annotations

import json
import urllib.request

import pytest


@pytest.mark.debezium
def test_connect_offers_the_postgres_connector(connect_url: str) -> None:
    with urllib.request.urlopen(f"{connect_url}/connector-plugins") as answer:
        offered = {plugin["class"] for plugin in json.load(answer)}
    assert "io.debezium.connector.postgresql.PostgresConnector" in offered
