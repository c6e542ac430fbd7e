"""The demo from start to end."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from ops.demo import settling
from ops.demo.audit import Evidence, audit, lines
from ops.demo.billing import compare_with_stripe
from ops.demo.books import Books
from ops.demo.client import Api
from ops.demo.courses import summary
from ops.demo.dashboards import compare_with_warehouse
from ops.demo.opening import Marketplace, open_marketplace
from ops.demo.plan import make_plan
from ops.demo.progress import Progress, say
from ops.demo.purchases import Basket, evenly, fill, read_purchases
from ops.demo.receipts import sales_lines
from ops.demo.replay import replay
from ops.demo.report import Report
from ops.demo.shopping import Shopping
from ops.demo.system import System, running_system
from ops.demo.trade import Trade
from ops.demo.views import PageView, choose, read_all, shift
from ops.reconcile import reconcile_days
from ops.stack.paths import DataDir

HEAD_START: Final = timedelta(minutes=30)  #: the logical clock only moves forward: the week begins well after now
VIEWS_LOGGED: Final = 30_000
CONNECTIONS: Final = 64  #: of the client, and so the requests under way
ADMIN: Final = "admin@demo.test"


@dataclass(frozen=True, slots=True)
class Options:
    """`days` and `rows` bound what is replayed, `parts` what the stack has; None: all. `keep`: run on at the end."""

    data: DataDir
    days: int | None
    rows: int | None
    seed: int
    parts: str | None
    keep: bool


async def run_demo(options: Options, when_done: Callable[[Report], None]) -> None:
    """Run it, report, stop everything.

    StackError, UnexpectedAnswer, ReplayFailed or NotSettled when it gets to no result.
    """
    progress = Progress()
    views = shift(choose(read_all(), days=options.days, rows=options.rows), after=datetime.now(UTC) + HEAD_START)
    say(f"{len(views)} page views of {views[0].day} to {views[-1].day}; the system lives in {options.data.root}")
    async with AsyncExitStack() as stack:
        with progress.stage("starting every process"):
            system = await stack.enter_async_context(running_system(options.data, parts=options.parts))
            api = await stack.enter_async_context(Api(system.api, connections=CONNECTIONS))
            await api.become_admin(email=ADMIN, password=secrets.token_urlsafe(24))
            await settling.gates_open(api, system.settings)
        when_done(await _run(options, system, api, views, progress))
        if options.keep:
            say("still running, until Ctrl-C")
            await asyncio.Event().wait()


async def _run(options: Options, system: System, api: Api, views: Sequence[PageView], progress: Progress) -> Report:
    plan = make_plan(views, seed=options.seed)
    marketplace = await open_marketplace(api, plan, views, progress)
    trade = Trade({one.store_id: one for one in marketplace.vendors.values()}, first_day=views[0].day)
    await trade.appoint_agents(api)
    shopping = Shopping(marketplace, trade)
    shopping.baskets = _baskets(options, views, shopping.customers)
    await shopping.fill_shelves(api, progress)
    evidence = await _replay_and_settle(system, api, marketplace, shopping, views, progress)
    differences = audit(evidence)
    return Report(
        api=system.api,
        data=str(options.data.root),
        stores={"buyer": len(marketplace.buyers), "vendor": len(marketplace.vendors)},
        ads=len(marketplace.ads),
        licenses=marketplace.licenses.totals(),
        offers_refused=await api.metric("packstream_ad_exclusions_total", "budget_exhausted"),
        clicks_without_ad=evidence.books.clicks_without_ad.total(),
        lines=lines(evidence, differences),
        sales=sales_lines(evidence.receipts, evidence.stored.sales),
        products=len(evidence.receipts.shelves),
        carts_with_ads=evidence.receipts.with_ads,
        orders=summary(evidence.orders, evidence.stored.orders),
        reconciled=[one.day for one in evidence.reconciled if one.ok and one.closed],
        billing=evidence.billing,
        dashboards=evidence.dashboards,
        differences=differences,
        seconds={**progress.seconds, "in all": progress.total_seconds()},
        client_cpu_s=round(time.process_time(), 2),
    )


async def _replay_and_settle(
    system: System,
    api: Api,
    marketplace: Marketplace,
    shopping: Shopping,
    views: Sequence[PageView],
    progress: Progress,
) -> Evidence:
    """Everything from the first page view to the last word of the reconciliation."""
    books, settings = Books(marketplace.ads), system.settings
    days = sorted({view.day for view in views})
    title = f"replaying page views, {len(shopping.baskets)} checkouts"
    with progress.stage(title, len(views)) as advance:
        await replay(api, shopping, marketplace, views, books, advance)
    await shopping.trade.deliver(api, progress)
    await shopping.trade.pay_out(api, progress)
    with progress.stage("closing days, writing charges", len(days)) as advance:
        now = await settling.close_days(api, settings, days, advance)
    with progress.stage("waiting for orders that nobody answers"):
        await settling.orders_settled(settings, shopping.trade.book.errands, now)
        await settling.outbox_drained(settings)
    with progress.stage("reconciling with the raw topic"):
        reconciled = await reconcile_days(settings, days)
        stored = await settling.read(settings, days, now=now)
    with progress.stage("billing, and comparing with Stripe"):
        await settling.billed(settings)
        billing = await compare_with_stripe(settings)
    with progress.stage("comparing dashboards with Postgres"):
        sellers = {planned.name: account for planned, account in marketplace.vendors.items()}
        dashboards = await compare_with_warehouse(api, settings, sellers, days)
    vendors = {account.store_id for account in marketplace.vendors.values()}
    baskets, receipts, orders = shopping.baskets, shopping.receipts, shopping.trade.book
    return Evidence(
        views=views,
        books=books,
        licenses=marketplace.licenses,
        vendors=vendors,
        stored=stored,
        reconciled=reconciled,
        baskets=baskets,
        receipts=receipts,
        orders=orders,
        billing=billing,
        dashboards=dashboards,
    )


def _baskets(options: Options, views: Sequence[PageView], stores: int) -> list[Basket]:
    """All purchases of the days, or the same share of them as of page views."""
    if not stores:
        return []
    midnight = views[0].at.replace(hour=0, minute=0, second=0, microsecond=0)
    rows = read_purchases()
    if options.rows is not None:
        rows = evenly(rows, options.rows * len(rows) // VIEWS_LOGGED)
    return fill(rows, starts_at=midnight, stores=stores, days=options.days or 7)
