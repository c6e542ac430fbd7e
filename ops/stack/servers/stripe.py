"""``python -m ops.stack.servers.stripe``: as much of Stripe's API as packstream uses, with a memory.

Customers, payment methods, subscriptions, invoices and invoice items are kept in a file; a request with an
idempotency key has its effect once; news goes to the API as signed webhooks, signed anew and sent again until they are
taken. A new subscription is `incomplete` and becomes `active` a moment later. Payment methods: any ``pm_…``; one whose
name ends in ``chargeDeclined`` is declined, with ``chargeCustomerFail`` the first payment fails. Under ``/_fake``: what
no client of Stripe can do (see `Controls`).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from pathlib import Path

from aiohttp import ClientError, ClientSession, ClientTimeout, web

from ops.stack.servers.business_clock import BusinessClock
from ops.stack.servers.stripe_account import Account, Refused
from ops.stack.servers.stripe_memory import Memory, parse_form
from ops.stack.servers.stripe_news import News

ACTIVATION_S = 0.3
HOLD_S = 3600.0
PUSH_TIMEOUT_S = 10.0

Now = Callable[[], Awaitable[datetime]]


class Faults:
    """What goes wrong at the next requests like ``POST /v1/customers``: ``lose`` or ``hold`` the answer, be ``away``,
    ``decline``."""

    def __init__(self) -> None:
        self._next: dict[str, list[str]] = {}

    def plan(self, asked: str, kind: str, times: int) -> None:
        self._next.setdefault(asked, []).extend([kind] * times)

    def take(self, asked: str) -> str | None:
        planned = self._next.get(asked)
        return planned.pop(0) if planned else None


class FakeStripe:
    """The HTTP side. `now`: the time of everything that happens; `activation_s`: what a first payment takes."""

    def __init__(self, memory: Memory, now: Now, news: News, *, activation_s: float = ACTIVATION_S) -> None:
        self._memory, self._now, self.news = memory, now, news
        self._activation_s = activation_s
        self.account = Account(memory)
        self.faults = Faults()
        self.held = asyncio.Event()
        self._waiting: set[asyncio.Task[None]] = set()
        self.app = web.Application()
        self.app.router.add_route("*", "/v1/{rest:.*}", self._v1)
        self.app.router.add_get("/_fake/health", self._health)
        Controls(self).add_to(self.app)
        self.app.on_startup.append(self._start)
        self.app.on_cleanup.append(self._stop)

    async def _start(self, _: web.Application) -> None:
        self.news.send_all()
        for subscription_id in self.account.incomplete():
            self.activate_soon(subscription_id)

    async def _stop(self, _: web.Application) -> None:
        for task in self._waiting:
            task.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)
        await self.news.close()

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _v1(self, request: web.Request) -> web.StreamResponse:
        if not request.headers.get("authorization", "").startswith(("Bearer sk_", "Bearer rk_")):
            return refusal(Refused(401, "invalid_request_error", "You did not provide an API key."))
        form = parse_form(await request.text() if request.method == "POST" else request.query_string)
        fault = self.faults.take(f"{request.method} {request.path}")
        if fault == "away":
            return refusal(Refused(503, "api_error", "Try again."))
        if fault == "decline":
            return refusal(Refused(402, "card_error", "Your card was declined.", code="card_declined"))
        now = await self._now()
        answer = self._answer(request, form, now)
        self.news.send_all()
        if fault == "hold":
            self.held.set()
            await asyncio.sleep(HOLD_S)
        if fault == "lose" and request.transport is not None:
            request.transport.close()
        return answer

    def _answer(self, request: web.Request, form: dict[str, object], now: datetime) -> web.Response:
        """The effect, its news and its answer are committed together."""
        key = request.headers.get("idempotency-key") if request.method == "POST" else None
        asked = f"{request.method} {request.path}"
        with self._memory.transaction():
            try:
                kept = self._memory.kept_answer(key, asked, form) if key else None
                if kept is not None:
                    return web.json_response(text=kept, headers={"Idempotent-Replayed": "true"})
                body = self.account.do(request.method, request.path, form, now)
            except Refused as exc:
                return refusal(exc)
            text = self._memory.dump(body)
            if key:
                self._memory.keep_answer(key, asked, form, text)
        if asked == "POST /v1/subscriptions" and body["status"] == "incomplete":
            self.activate_soon(str(body["id"]))
        return web.json_response(text=text)

    def activate_soon(self, subscription_id: str) -> None:
        """The first payment goes through after a moment."""
        task = asyncio.create_task(self._activate(subscription_id))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _activate(self, subscription_id: str) -> None:
        await asyncio.sleep(self._activation_s)
        now = await self._now()
        with self._memory.transaction():
            self.account.activate(subscription_id, now)
        self.news.send_all()

    async def settle(self) -> None:
        """Until first payments are made and all news is taken."""
        while self._waiting:
            await asyncio.gather(*self._waiting, return_exceptions=True)
        await self.news.settle()

    async def set_status(self, subscription_id: str, status: str) -> None:
        """As when a payment fails, or comes in after all."""
        now = await self._now()
        with self._memory.transaction():
            self.account.set_status(subscription_id, status, now)
        self.news.send_all()


class Controls:
    """``POST /_fake/subscriptions/ID {"status"}`` · ``/_fake/faults {"asked","kind","times"}`` · ``/_fake/forget_keys``
    · ``GET /_fake/objects/KIND``."""

    def __init__(self, fake: FakeStripe) -> None:
        self._fake = fake

    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/_fake/subscriptions/{id}", self._status)
        app.router.add_post("/_fake/faults", self._faults)
        app.router.add_post("/_fake/forget_keys", self._forget)
        app.router.add_get("/_fake/objects/{kind}", self._objects)

    async def _status(self, request: web.Request) -> web.Response:
        await self._fake.set_status(request.match_info["id"], (await request.json())["status"])
        return web.Response(status=204)

    async def _faults(self, request: web.Request) -> web.Response:
        fault = await request.json()
        self._fake.faults.plan(fault["asked"], fault["kind"], fault.get("times", 1))
        return web.Response(status=204)

    async def _forget(self, _: web.Request) -> web.Response:
        with self._fake.account.memory.transaction():
            self._fake.account.memory.forget_answers()
        return web.Response(status=204)

    async def _objects(self, request: web.Request) -> web.Response:
        return web.json_response(self._fake.account.memory.all(request.match_info["kind"]))


def refusal(exc: Refused) -> web.Response:
    return web.json_response({"error": exc.error}, status=exc.status)


class Pushes:
    """Makes one webhook request."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._http: ClientSession | None = None

    async def __call__(self, payload: bytes, signature: str) -> str | None:
        """None when it was taken, else why not."""
        if self._http is None:
            self._http = ClientSession(timeout=ClientTimeout(total=PUSH_TIMEOUT_S))
        headers = {"content-type": "application/json", "stripe-signature": signature}
        try:
            async with self._http.post(self._url, data=payload, headers=headers) as answer:
                return None if answer.status < 300 else f"{answer.status} {(await answer.text())[:200]}"
        except (ClientError, OSError, TimeoutError) as exc:
            return repr(exc)

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()


async def serve(environ: Mapping[str, str]) -> None:
    """Listen until SIGTERM."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    memory = Memory(Path(environ["STRIPE_STATE"]))
    clock = BusinessClock(environ.get("DATABASE_URL"))
    pushes = Pushes(environ["STRIPE_WEBHOOK_URL"])
    news = News(memory, pushes, environ["STRIPE_WEBHOOK_SECRET"], clock.now)
    runner = web.AppRunner(FakeStripe(memory, clock.now, news).app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    host = environ.get("STRIPE_HOST", "127.0.0.1")
    await web.TCPSite(runner, host, int(environ["STRIPE_PORT"])).start()
    await stopped.wait()
    await runner.cleanup()
    await pushes.close()
    await clock.close()
    memory.close()


if __name__ == "__main__":
    sys.exit(asyncio.run(serve(os.environ)))
