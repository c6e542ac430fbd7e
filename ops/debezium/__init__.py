"""Debezium on Kafka Connect as the other relay: `RELAY_KIND=debezium`.

outbox.sql prepares the database, connector.json is what Kafka Connect is given (connector.py fills in the addresses),
and housekeeping's reaper archives what the slot has confirmed. Parking a refused row is our own relay's alone.
"""
