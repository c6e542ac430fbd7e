"""A click group whose commands are imported when they are called, named here in one table."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click


@dataclass(frozen=True)
class Entry:
    """Where a command is (``module:attribute``) and what it does, for the list of commands."""

    target: str
    summary: str


COMMANDS: dict[str, Entry] = {
    "up": Entry("ops.cli.up:up", "Run the stack and every process under one supervisor."),
    "stack": Entry("ops.cli.stack:stack", "Start, stop and look at the parts of the local stack."),
    "migrate": Entry("ops.cli.processes:migrate", "Bring the database to the newest schema."),
    "topics": Entry("ops.cli.processes:topics", "Make the Kafka topics, or check them."),
    "api": Entry("ops.cli.processes:api", "Run the HTTP API."),
    "relay": Entry("ops.cli.processes:relay", "Run the outbox relay."),
    "worker": Entry("ops.cli.processes:worker", "Run the stream agents."),
    "dlq": Entry("ops.cli.dlq:dlq", "List, show, replay and discard dead letters."),
    "reconcile": Entry("ops.cli.reconcile:reconcile", "Recount a day from the raw topic and compare."),
    "ledger": Entry("ops.cli.ledger:ledger", "Check the books."),
    "rollup": Entry("ops.cli.rollup:rollup", "Show and run the daily ad rollups."),
    "warehouse": Entry("ops.cli.warehouse:warehouse", "Make and check the tables of the warehouse."),
    "billing": Entry("ops.cli.billing:billing", "Hold charges and subscriptions against Stripe."),
    "backfill": Entry("ops.cli.backfill:backfill", "Make the warehouse's rows again from Postgres."),
    "admin": Entry("ops.cli.admin:admin", "Create admins; set a store's state, audited."),
    "bench": Entry("ops.cli.bench:bench", "Run a benchmark."),
    "demo": Entry("ops.cli.demo:demo", "Replay a marketplace week of real impressions and check it."),
}


class LazyGroup(click.Group):
    """Looks commands up in ``commands_at``; listing them imports nothing."""

    def __init__(self, name: str, *, commands_at: Mapping[str, Entry], **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self._commands_at = commands_at

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._commands_at)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self._commands_at.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.target.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in self._commands_at.items()])
