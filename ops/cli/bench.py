"""`packstream bench`: measures, and compares with what each measure is named against."""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console

from ops.bench.catalogue import BENCHES, run
from ops.bench.results import Plan, Result, to_json, to_table

ALL = "all"
TABLE_WIDTH = 250


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1, type=click.Choice([ALL, *BENCHES]))
@click.option("--quick", is_flag=True, help="As small as shows that it works; the numbers mean nothing.")
@click.option("--keep", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Keep them, as JSON.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def bench(names: tuple[str, ...], quick: bool, keep: Path | None, as_json: bool) -> None:
    """Run benchmarks, all or those named, on parts of their own; exit status 0 also where a target is missed.

    Close what else runs on the machine: a busy machine makes the numbers, ratios included, worth less.
    """
    started = time.monotonic()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it warns of what it retries

    def say(line: str) -> None:
        click.echo(f"[{time.monotonic() - started:6.1f} s] {line}", err=True)

    wanted = list(BENCHES) if not names or ALL in names else list(dict.fromkeys(names))
    results, failed = run(wanted, Plan(quick=quick, say=say))
    document = json.dumps(report(results, quick=quick), indent=1)
    if keep:
        keep.write_text(document + "\n")
    if as_json:
        click.echo(document)
    else:
        show(results, time.monotonic() - started)
    if failed:
        raise click.ClickException(f"could not be measured: {', '.join(failed)}")


def show(results: list[Result], took_s: float) -> None:
    """The results as a table, and how many are beside their target."""
    Console(width=TABLE_WIDTH).print(to_table(results), soft_wrap=True)
    missed = [result for result in results if result.met is False]
    click.echo(f"{len(results)} measures, {len(missed)} of them beside their target, {took_s:.0f} s")


def report(results: list[Result], *, quick: bool) -> dict[str, object]:
    """The JSON document: the results, and on what they were measured."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "machine": {"system": platform.platform(), "cores": os.cpu_count(), "load": os.getloadavg()},
        "results": to_json(results),
    }
