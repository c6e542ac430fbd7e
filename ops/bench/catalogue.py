"""Which benches there are, in the order in which all of them run."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Sequence
from typing import Final

from ops.bench.results import Plan, Result
from ops.stack.errors import StackError

BENCHES: Final = {
    "worker": "ops.bench.worker",
    "recovery": "ops.bench.recovery",
    "routes": "ops.bench.routes",
    "quotes": "ops.bench.quotes",
    "checkouts": "ops.bench.checkouts",
    "lag": "ops.bench.lag",
    "gate": "ops.bench.gate",
    "relay": "ops.bench.relay",
    "timers": "ops.bench.timers",
    "facts": "ops.bench.facts",
}


def run(names: Sequence[str], plan: Plan) -> tuple[list[Result], list[str]]:
    """Run benches by name, one after the other, each imported when its turn comes; results, and those that failed."""
    results: list[Result] = []
    failed: list[str] = []
    for name in names:
        plan.say(f"{name}: starting")
        bench = importlib.import_module(BENCHES[name])
        try:
            results += asyncio.run(bench.run(plan))
        except StackError as exc:
            plan.say(f"{name}: {exc}")
            failed.append(name)
    return results, failed
