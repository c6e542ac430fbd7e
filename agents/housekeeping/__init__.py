"""The work that one process at a time does for all: ticks, partitions, and what is due by the calendar."""

from agents.housekeeping.leader import housekeeping

__all__ = ["housekeeping"]
