"""Alembic's `upgrade head` over the migrations of this checkout."""

from __future__ import annotations

import os

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy.exc import SQLAlchemyError

from ops.settings import Settings
from ops.stack.paths import REPOSITORY


def alembic_config(settings: Settings) -> Config:
    """Alembic's configuration for the owner's database."""
    os.environ["DATABASE_URL"] = settings.database_url
    config = Config()
    config.set_main_option("script_location", str(REPOSITORY / "migrations"))
    config.set_main_option("sqlalchemy.url", settings.sqlalchemy_url.replace("%", "%%"))
    return config


def upgrade(settings: Settings) -> None:
    """Bring the database to the newest schema."""
    command.upgrade(alembic_config(settings), "head")


def main(settings: Settings) -> None:
    """Upgrade, or exit with one line that says why not."""
    try:
        upgrade(settings)
    except (CommandError, SQLAlchemyError, OSError) as exc:
        raise SystemExit(f"migrate: {' '.join(str(exc).split())[:500]}") from exc
