"""The fake Stripe: keeps what it is told and sends signed webhooks to the API. Its state lies in DATA/stripe.

Beside it stripe-mock, built from its Go module at set-up: it keeps no state but knows the shape of every request of
Stripe's API; tests hold ours against it.
"""

from __future__ import annotations

import os
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from ops.stack.paths import cache_dir
from ops.stack.processes import Command
from ops.stack.units import Unit

MODULE = "github.com/stripe/stripe-mock"
VERSION = "v0.203.0"
WEBHOOK_SECRET = "whsec_dev"
"""The default of STRIPE_WEBHOOK_SECRET in development."""


def binary() -> Path:
    """Where stripe-mock is, if it is built."""
    return cache_dir() / f"stripe-mock-{VERSION}"


class Stripe(Unit):
    """Ready at once; webhooks wait until the API takes them."""

    name = "stripe"
    ports = ("STRIPE_PORT",)

    @classmethod
    def addresses(cls, ports: Mapping[str, int]) -> dict[str, str]:
        return {"STRIPE_API_BASE": f"http://127.0.0.1:{ports['STRIPE_PORT']}"}

    def prepare(self) -> None:
        self.site.data.home(self.name).mkdir(parents=True, exist_ok=True)

    def command(self) -> Command:
        settings = {
            "STRIPE_PORT": str(self.port("STRIPE_PORT")),
            "STRIPE_STATE": str(self.site.data.home(self.name) / "state.sqlite"),
            "STRIPE_WEBHOOK_URL": f"{self.site.addresses['API_URL']}/webhooks/stripe",
            "STRIPE_WEBHOOK_SECRET": os.environ.get("STRIPE_WEBHOOK_SECRET") or WEBHOOK_SECRET,
        }
        if database := self.site.addresses.get("DATABASE_URL") or os.environ.get("DATABASE_URL"):
            settings["DATABASE_URL"] = database  # for the logical clock
        return Command((sys.executable, "-m", "ops.stack.servers.stripe"), env=settings)

    def ready(self) -> bool:
        try:
            health = f"{self.addresses(self.site.ports)['STRIPE_API_BASE']}/_fake/health"
            with urllib.request.urlopen(health, timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
