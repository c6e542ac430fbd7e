-- What Debezium needs in the database, as its owner; doing it again changes nothing. The role is REPLICATION LOGIN.
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_publication WHERE pubname = 'packstream_outbox') THEN
    CREATE PUBLICATION packstream_outbox FOR TABLE outbox_events
      WITH (publish = 'insert', publish_via_partition_root = true);
  END IF;
END $$;
GRANT USAGE ON SCHEMA public TO packstream_cdc;
GRANT SELECT ON outbox_events TO packstream_cdc;
