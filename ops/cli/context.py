"""How a command finds its stack and its settings, and how it fails: one clear line, exit status 1."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Concatenate, ParamSpec, TypeVar

import click

from ops.settings import Settings, load_settings
from ops.stack.errors import StackError
from ops.stack.paths import DataDir

P = ParamSpec("P")
R = TypeVar("R")

data_option = click.option(
    "--data",
    "data_path",
    metavar="DIR",
    default=".packstream",
    envvar="DATA_DIR",
    show_default=True,
    help="Directory of the local stack.",
)


def adopt_addresses(data: DataDir) -> None:
    """Take the addresses of the stack in ``data`` into the environment, where they are not set already."""
    for key, value in data.read_env().items():
        os.environ.setdefault(key, value)
    os.environ["DATA_DIR"] = str(data.root)


def with_data(command: Callable[Concatenate[DataDir, P], R]) -> Callable[..., R]:
    """Add ``--data DIR`` to a command and hand it the directory first; a StackError ends it with one line."""

    @data_option
    @functools.wraps(command)
    def run(data_path: str, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(DataDir.at(data_path), *args, **kwargs)
        except StackError as exc:
            raise click.ClickException(str(exc)) from exc

    return run


def with_settings(command: Callable[Concatenate[Settings, P], R]) -> Callable[..., R]:
    """Add ``--data DIR`` to a command and hand it the settings first.

    Addresses come from the environment, else from DIR/stack.env. Wrong settings end the command by name.
    """

    @functools.wraps(command)
    def run(data: DataDir, /, *args: P.args, **kwargs: P.kwargs) -> R:
        adopt_addresses(data)
        return command(load_settings(), *args, **kwargs)

    return with_data(run)


def utc_text(time: datetime) -> str:
    """A time as the API writes it: RFC 3339 in UTC, ending in ``Z``."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")
