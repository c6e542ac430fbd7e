"""`packstream demo`: a week of real page views through every process, and proof that the money adds up."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Coroutine
from typing import Any, Final

import click
import uvloop
from rich.console import Console

from ops.cli.stack import json_option, parts_option
from ops.demo.client import UnexpectedAnswer
from ops.demo.plan import SEED
from ops.demo.replay import ReplayFailed
from ops.demo.report import Report, show
from ops.demo.run import Options, run_demo
from ops.demo.settling import NotSettled
from ops.stack.errors import StackError
from ops.stack.paths import DataDir

WIDTH_MIN: Final = 124
STOPPED: Final = 130  #: the exit status of a run that was ended before its result


@click.command()
@click.option("--data", metavar="DIR", default=".packstream/demo", show_default=True, help="Emptied first.")
@click.option("--days", type=click.IntRange(1, 7), help="Only the first days of the week.")
@click.option("--rows", type=click.IntRange(1), help="Only so many page views, evenly spread.")
@click.option("--seed", type=int, default=SEED, show_default=True, help="Of bids and budgets.")
@click.option("--keep", is_flag=True, help="Go on running at the end, until Ctrl-C.")
@parts_option
@json_option
def demo(
    data: str, days: int | None, rows: int | None, seed: int, keep: bool, parts: str | None, as_json: bool
) -> None:
    """Replay a marketplace week of real impressions on a system of its own, and check every number.

    Exit status 0 only if every row is accounted for and all differences are zero.
    """
    options = Options(DataDir.at(data), days=days, rows=rows, seed=seed, parts=parts, keep=keep)
    reports: list[Report] = []

    def when_done(report: Report) -> None:
        reports.append(report)
        if as_json:
            click.echo(json.dumps(report.as_json(), default=str))
        else:
            show(report, Console(width=max(WIDTH_MIN, Console().width), highlight=False))

    try:
        uvloop.run(_until_told_to_stop(run_demo(options, when_done)))
    except (StackError, UnexpectedAnswer, ReplayFailed, NotSettled) as exc:
        raise click.ClickException(str(exc)) from exc
    raise SystemExit(STOPPED if not reports else 0 if reports[0].ok else 1)


async def _until_told_to_stop(work: Coroutine[Any, Any, None]) -> None:
    """Do `work` to its end; SIGINT and SIGTERM cancel it, and it cleans up."""
    task, loop = asyncio.create_task(work), asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, task.cancel)
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
