-- The roles that ops/stack/parts/postgres.py makes; the image has made the owner and the database.
CREATE ROLE packstream_app LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS PASSWORD 'packstream_app';
CREATE ROLE packstream_cdc LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE REPLICATION PASSWORD 'packstream_cdc';
