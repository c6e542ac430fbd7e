"""`packstream migrate|topics|api|relay|worker`: one process of the system at a time, in the foreground."""

from __future__ import annotations

import importlib
from typing import Any

import click

from ops.cli.context import with_settings
from ops.settings import Settings


def call(target: str, *args: Any) -> None:
    """Run ``module:function``, loaded only now: each process imports what it needs and nothing of the others."""
    module, _, function = target.partition(":")
    getattr(importlib.import_module(module), function)(*args)


@click.command()
@with_settings
def migrate(settings: Settings) -> None:
    """Bring the database to the newest schema (as its owner, DATABASE_URL)."""
    call("ops.migrate:main", settings)


@click.command()
@with_settings
def topics(settings: Settings) -> None:
    """Make the Kafka topics, or check that they are as they should be."""
    call("ops.topics:main", settings)


@click.command()
@with_settings
def api(settings: Settings) -> None:
    """Run the HTTP API until SIGTERM."""
    call("api.server:main", settings)


@click.command()
@with_settings
def relay(settings: Settings) -> None:
    """Run the outbox relay until SIGTERM."""
    call("agents.relay:main", settings)


@click.command()
@click.option("--agents", metavar="A,B", help="Only these agents; default: all.")
@with_settings
def worker(settings: Settings, agents: str | None) -> None:
    """Run the stream agents until SIGTERM."""
    names = None if agents is None else [name.strip() for name in agents.split(",") if name.strip()]
    call("agents.worker:main", settings, names)
