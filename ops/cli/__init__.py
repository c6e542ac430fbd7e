"""The `packstream` command. Groups load when they are used, so that the command itself starts at once."""

from __future__ import annotations

from ops.cli.lazy import COMMANDS, LazyGroup

main = LazyGroup(
    "packstream",
    commands_at=COMMANDS,
    help="A B2B marketplace with a streamed ads engine: run it, look at it, repair it.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
