"""How long carts and checkouts are loaded, and the load itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from models.ads.tokens import TokenKeys
from models.cart.attribution import TokenRules
from ops.bench.http_client import join
from ops.bench.http_load import Job, Load, apply
from ops.bench.shop import BenchShop
from ops.settings import Settings


class Size(NamedTuple):
    """How long each side is loaded, how often in turn, and over how many connections."""

    rounds: int
    warm_up_s: float
    seconds: float
    prepared: int  #: requests and transactions for saturation, each good once; if they run out, it ends early
    connections: int = 24


FULL: Final = Size(rounds=5, warm_up_s=0.5, seconds=3.0, prepared=2_000)
QUICK: Final = Size(rounds=1, warm_up_s=0.1, seconds=2.0, prepared=200)


async def load(market: BenchShop, requests: Sequence[bytes], size: Size, *, status: int, rate: float | None) -> Load:
    """Each request once, at saturation or at a rate; StackError when one gets another status."""
    path = market.site.root / "requests"
    path.write_bytes(join(requests))
    job = Job(
        port=market.port,
        requests=str(path),
        cycle=False,
        status=status,
        connections=size.connections,
        warm_up_s=size.warm_up_s,
        seconds=size.seconds,
        rate=rate,
    )
    return await apply(job, market.site.root)


def token_rules(settings: Settings) -> TokenRules:
    """As the API has them."""
    keys = TokenKeys(settings.ad_token_keys)
    return TokenRules(keys, ttl_s=settings.ad_attribution_ttl_s, skew_s=settings.clock_skew_s)
