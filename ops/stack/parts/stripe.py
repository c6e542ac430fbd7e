"""stripe-mock, built from its Go module at set-up: checks the shape of requests, keeps no state."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from ops.stack.errors import PartMissing
from ops.stack.paths import cache_dir
from ops.stack.processes import Command
from ops.stack.units import Unit

MODULE = "github.com/stripe/stripe-mock"
VERSION = "v0.203.0"


def binary() -> Path:
    return cache_dir() / f"stripe-mock-{VERSION}"


class Stripe(Unit):
    """Optional: everything but payments works without it."""

    name = "stripe"
    ports = ("STRIPE_PORT",)
    optional = True

    @classmethod
    def addresses(cls, ports: Mapping[str, int]) -> dict[str, str]:
        return {"STRIPE_API_BASE": f"http://127.0.0.1:{ports['STRIPE_PORT']}"}

    def check(self) -> None:
        if not binary().exists():
            raise PartMissing("stripe: stripe-mock is not built: install Go and run `make setup`")

    def command(self) -> Command:
        # It listens for HTTPS as well, whatever it is told: at a port that no other stack can have.
        http = f"127.0.0.1:{self.port('STRIPE_PORT')}"
        return Command((str(binary()), "-http-addr", http, "-https-addr", "127.0.0.1:0"))

    def ready(self) -> bool:
        """Any answer in HTTP will do: without a key it is 401."""
        request = urllib.request.Request(f"{self.addresses(self.site.ports)['STRIPE_API_BASE']}/v1/charges")
        try:
            with urllib.request.urlopen(request, timeout=2):
                return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
