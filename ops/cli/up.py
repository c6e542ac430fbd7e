"""`packstream up`: the stack and every process, under one supervisor in the foreground."""

from __future__ import annotations

import asyncio
import json
import os

import click

from ops.cli.context import with_data
from ops.cli.stack import json_option, parts_option
from ops.stack.local import API_PORT, parse_parts
from ops.stack.paths import DataDir
from ops.supervisor.announcer import Announcer
from ops.supervisor.system import run_system


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), help="The API's port; default: PORT, else a free one.")
@parts_option
@json_option
@with_data
def up(data: DataDir, port: int | None, parts: str | None, as_json: bool) -> None:
    """Run the stack and every process until SIGTERM; what dies is started again.

    With --json, one line on standard output once everything is ready.
    """
    environ = {**os.environ, **({API_PORT: str(port)} if port else {})}
    data.make()
    say = Announcer(data.log("up"))

    def when_ready(described: dict[str, object]) -> None:
        click.echo(
            json.dumps(described) if as_json else f"ready at {described['api']}; addresses are in {data.env_file}"
        )

    asyncio.run(run_system(data, parse_parts(parts), environ=environ, say=say, when_ready=when_ready))
