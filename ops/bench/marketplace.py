"""The running system of a bench: API, relay and worker on a stack of its own, with buyers and ads."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from models.ads.rules import EventKind, Placement, TargetType
from models.ads.tokens import VERSION, AdClaims, TokenKeys
from models.database import new_id
from ops.bench.ad_rows import COST_MICROS, STATE, make_ads
from ops.bench.http_client import get, post
from ops.bench.site import BenchSite, Process, site
from ops.stack.errors import StackError

PLACEMENT: Final = Placement.HOME
ADDRESS: Final = {"line1": "1 Main St", "city": "Portland", "state": STATE, "postal_code": "97201", "country": "US"}
OPEN_S: Final = 60.0
TIMEOUT_S: Final = 20.0
ERROR_BYTES: Final = 1000


@dataclass(frozen=True)
class Marketplace:
    """Ready: the gate is open and serves."""

    site: BenchSite
    ads: Sequence[UUID]
    stores: Sequence[UUID]  #: of the ads
    tokens: Sequence[str]  #: access tokens, a buyer each
    processes: Mapping[str, Process]

    @property
    def port(self) -> int:
        return int(self.site.addresses["PORT"])

    def serves(self) -> list[bytes]:
        """A request to serve for each buyer."""
        path = f"/ads/serve?placement={PLACEMENT}"
        return [get(path, {"authorization": f"Bearer {token}"}) for token in self.tokens]

    def impressions(self, count: int, *, ads: Sequence[int] | None = None) -> list[bytes]:
        """Requests with fresh impression tokens, as serve signs them; `ads` says of which ad each is."""
        settings, buyer = self.site.settings, new_id()
        keys, iat = TokenKeys(settings.ad_token_keys), int(time.time()) - 1
        chosen = range(count) if ads is None else ads
        claims = (self._claims(n % len(self.ads), buyer, iat, iat + settings.ad_token_ttl_s) for n in chosen)
        return [post("/ads/impression", {"token": keys.sign(claim)}) for claim in claims]

    def _claims(self, ad: int, buyer: UUID, iat: int, exp: int) -> AdClaims:
        return AdClaims(
            typ="ad",
            v=VERSION,
            jti=new_id(),
            request_id=new_id(),
            kind=EventKind.IMPRESSION,
            ad_id=self.ads[ad],
            store_id=self.stores[ad],
            target_type=TargetType.STORE,
            target_id=self.stores[ad],
            buyer_store_id=buyer,
            placement=PLACEMENT,
            cost_micros=COST_MICROS,
            iat=iat,
            exp=exp,
        )


@asynccontextmanager
async def marketplace(*, ads: int, buyers: int) -> AsyncIterator[Marketplace]:
    """Start everything; gone afterwards."""
    async with site("postgres", "kafka", "redis") as found:
        ids = [new_id() for _ in range(ads)]
        stores = await make_ads(found.settings, ids)
        processes = {
            "api": found.process("api", "api", environment={"LOG_LEVEL": "warning"}),
            "relay": found.process("relay", "relay"),
            "worker": found.process("worker", "worker"),
        }
        try:
            for process in processes.values():
                process.start()
            await asyncio.gather(processes["relay"].ready(), processes["worker"].ready(), api_ready(found, processes))
            tokens = [await asyncio.to_thread(_register, found, n) for n in range(buyers)]
            await _gate_open(found, tokens[0])
            yield Marketplace(found, ids, stores, tokens, processes)
        finally:
            await asyncio.gather(*(process.stop() for process in processes.values()))


async def api_ready(found: BenchSite, processes: Mapping[str, Process]) -> None:
    """Return when the process "api" answers; StackError when it ended, or takes too long."""
    deadline = time.monotonic() + OPEN_S
    while True:
        processes["api"].check()
        try:
            await asyncio.to_thread(_call, found, "/readyz")
        except (StackError, OSError) as exc:
            if time.monotonic() > deadline:
                raise StackError(f"the API is not ready: {exc}") from exc
            await asyncio.sleep(0.1)
        else:
            return


async def _gate_open(found: BenchSite, token: str) -> None:
    """Return when an ad is served: ticks have gone the whole way round."""
    deadline, answer = time.monotonic() + OPEN_S, {}
    while time.monotonic() < deadline:
        headers = {"authorization": f"Bearer {token}"}
        answer = await asyncio.to_thread(_call, found, f"/ads/serve?placement={PLACEMENT}", headers=headers)
        if answer["ad"] is not None:
            return
        await asyncio.sleep(0.2)
    raise StackError(f"no ad is served: {answer['reason']}")


def _register(found: BenchSite, number: int) -> str:
    """A buyer's access token."""
    body = {
        "email": f"buyer-{number}@bench.test",
        "password": "a long enough password",
        "first_name": "Bench",
        "last_name": "Buyer",
        "store": {"name": f"buyer {number}", "type": "buyer", "address": ADDRESS},
    }
    return str(_call(found, "/api/v1/auth/register", body=body)["tokens"]["access_token"])


def _call(
    found: BenchSite,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: Mapping[str, object] | None = None,
) -> Any:
    data = None if body is None else json.dumps(body).encode()
    kind = {} if body is None else {"content-type": "application/json"}
    request = urllib.request.Request(found.addresses["API_URL"] + path, data=data, headers={**kind, **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return json.loads(answer.read())["data"]
    except urllib.error.HTTPError as exc:
        raise StackError(f"{path}: {exc.code} {exc.read(ERROR_BYTES).decode(errors='replace')}") from exc
