"""`packstream stack up|down|status`: the parts of the local stack, by themselves."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict

import click

from ops.cli.context import with_data
from ops.stack.local import parse_parts, records, stack_down, stack_status, stack_up
from ops.stack.paths import DataDir

parts_option = click.option("--parts", metavar="A,B", help="Only these parts; default: all.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


@click.group()
def stack() -> None:
    """Start, stop and look at the parts of the local stack."""


@stack.command()
@parts_option
@json_option
@with_data
def up(data: DataDir, parts: str | None, as_json: bool) -> None:
    """Start the parts in the background; those that run already stay."""
    planned = asyncio.run(stack_up(data, parse_parts(parts), say=lambda line: click.echo(line, err=True)))
    for line in planned.left_out:
        click.echo(f"{line}; going on without it", err=True)
    if as_json:
        click.echo(json.dumps({**planned.site.addresses, "data": str(data.root), "pids": records(data).pids()}))
    else:
        click.echo(f"addresses are in {data.env_file}")


@stack.command()
@parts_option
@json_option
@with_data
def down(data: DataDir, parts: str | None, as_json: bool) -> None:
    """Stop the parts; their data stay."""
    stopped = asyncio.run(stack_down(data, parse_parts(parts)))
    click.echo(json.dumps({"stopped": stopped}) if as_json else f"stopped {', '.join(stopped) or 'nothing: none ran'}")


@stack.command()
@json_option
@with_data
def status(data: DataDir, as_json: bool) -> None:
    """Ask each part; exit status 1 when one that should run is not ready."""
    parts = stack_status(data)
    if as_json:
        click.echo(json.dumps({part.name: asdict(part) for part in parts}))
    else:
        for part in parts:
            ports = " ".join(f"{name}={port}" for name, port in part.ports.items())
            click.echo(f"{part.name:10} {part.state:9} {part.pid or '':>8}  {ports}".rstrip())
    if all(part.state == "down" for part in parts) or any(part.state == "starting" for part in parts):
        raise SystemExit(1)
