"""What can go wrong with the local stack, said in one line."""

from __future__ import annotations


class StackError(Exception):
    """A part cannot run; the message is one line and says what to do."""


class PartMissing(StackError):
    """What a part needs is not installed; an optional part is then left out."""
