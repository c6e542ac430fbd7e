"""The local stack keeps what it promises."""

from ops.stack.parts.postgres import run_sql


def test_fixture(stack, database, redis_url, own_redis):
    assert run_sql(database.owner, "select count(*) from alembic_version").strip() == "1"
    assert run_sql(database.app, "select current_user").strip() == "packstream_app"
