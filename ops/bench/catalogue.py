"""Which benches there are, in the order in which all of them run."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Sequence
from typing import Final

from ops.bench.results import Plan, Result

BENCHES: Final = {
    "worker": "ops.bench.worker",
    "recovery": "ops.bench.recovery",
    "routes": "ops.bench.routes",
    "lag": "ops.bench.lag",
    "gate": "ops.bench.gate",
    "relay": "ops.bench.relay",
}


def run(names: Sequence[str], plan: Plan) -> list[Result]:
    """Run benches by name, one after the other, each imported when its turn comes."""
    results: list[Result] = []
    for name in names:
        plan.say(f"{name}: starting")
        bench = importlib.import_module(BENCHES[name])
        results += asyncio.run(bench.run(plan))
    return results
