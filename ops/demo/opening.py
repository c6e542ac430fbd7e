"""Opening the marketplace: stores sign up, vendors subscribe, licences are approved, ads are placed and activated."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from ops.demo.books import PlacedAd
from ops.demo.client import Api
from ops.demo.licensing import LicenseBook, document
from ops.demo.plan import AdPlan, BuyerPlan, Plan, VendorPlan
from ops.demo.progress import Advance, Progress
from ops.demo.views import PageView

AT_ONCE: Final = 8  #: requests; each sign-up costs the API an Argon2 hash
LICENSED_DAYS: Final = 365  #: before and after

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Account:
    """A store, the Authorization header of its owner, and the state it is in."""

    store_id: str
    token: str
    state: str


@dataclass(frozen=True, slots=True)
class Marketplace:
    """Everyone who takes part: buyers by their segment, ads by their id; and how the vendors came by their licences."""

    buyers: dict[str, Account]
    vendors: dict[VendorPlan, Account]
    ads: dict[str, PlacedAd]
    licenses: LicenseBook


async def open_marketplace(api: Api, plan: Plan, views: Sequence[PageView], progress: Progress) -> Marketplace:
    """Sign up, subscribe, hand in licences, place ads for the days of `views`; approve, and only then activate."""
    password, book = secrets.token_urlsafe(24), LicenseBook()

    async def buyer(planned: BuyerPlan) -> Account:
        name = f"Buyer {planned.segment}"
        return await _sign_up(api, f"buyer-{planned.segment}", password, name=name, kind="buyer", state=planned.state)

    async def vendor(planned: VendorPlan) -> Account:
        user = f"vendor-{planned.campaign}-{planned.slot}"
        account = await _sign_up(api, user, password, name=planned.name, kind="vendor", state=planned.state)
        await api.subscribe(account.token)
        book.submitted[await _hand_in(api, account, planned.name)] = account.store_id
        await api.subscribed(account.token)
        return account

    title = f"opening {len(plan.buyers) + len(plan.vendors)} stores, placing {len(plan.ads)} ads"
    with progress.stage(title, len(plan.vendors) + len(plan.buyers) + len(plan.ads)) as advance:
        vendors = dict(zip(plan.vendors, await each(plan.vendors, vendor, advance), strict=True))
        flight = _flight(views)
        buyers, placed = await asyncio.gather(
            each(plan.buyers, buyer, advance),
            each(plan.ads, lambda ad: _place(api, ad, vendors[ad.vendor], flight), advance),
        )
    await _license_and_activate(api, book, {a.store_id: a for a in vendors.values()}, placed, progress)
    segments = {planned.segment: account for planned, account in zip(plan.buyers, buyers, strict=True)}
    return Marketplace(segments, vendors, {ad.ad_id: ad for ad in placed}, book)


async def _license_and_activate(
    api: Api, book: LicenseBook, vendors: Mapping[str, Account], ads: Sequence[PlacedAd], progress: Progress
) -> None:
    """Show that no ad runs without a licence; then an administrator approves them, and all ads are activated."""

    async def approve(license_id: str) -> None:
        if await api.approve_license(license_id) == "verified" and license_id in book.submitted:
            book.approved[license_id] = book.submitted[license_id]

    async def activate(ad: PlacedAd) -> None:
        await api.activate_ad(vendors[ad.store_id].token, ad.ad_id)

    with progress.stage(f"approving {len(vendors)} licences, activating ads", len(vendors) + len(ads)) as advance:
        first = ads[0]
        book.too_early[first.ad_id] = await api.try_to_activate(vendors[first.store_id].token, first.ad_id)
        book.queued = await api.pending_licenses()
        await each(book.queued, approve, advance)
        await each(ads, activate, advance)


async def _sign_up(api: Api, user: str, password: str, *, name: str, kind: str, state: str) -> Account:
    email = f"{user}@demo.test"
    store_id, token = await api.register(email=email, password=password, name=name, kind=kind, state=state)
    return Account(store_id, token, state)


async def _hand_in(api: Api, vendor: Account, name: str) -> str:
    """The vendor's licence, as a document of its own; its id. It waits for a decision."""
    number = f"{vendor.state}-{vendor.store_id[-6:].upper()}"
    media_id = await api.upload(vendor.token, "license", f"{number}.pdf", document(f"{name}: licence {number}"))
    today, term = datetime.now(UTC).date(), timedelta(days=LICENSED_DAYS)
    period = {"issued_on": (today - term).isoformat(), "expires_on": (today + term).isoformat()}
    application = {"media_id": media_id, "type": "merchant", "number": number, "issuing_state": vendor.state}
    return await api.submit_license(vendor.token, application | period)


def _flight(views: Sequence[PageView]) -> dict[str, str]:
    """From the first midnight to the one after the last day."""
    first = views[0].at.replace(hour=0, minute=0, second=0, microsecond=0)
    last = views[-1].at.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return {"starts_at": first.isoformat(), "ends_at": last.isoformat()}


async def _place(api: Api, ad: AdPlan, vendor: Account, flight: dict[str, str]) -> PlacedAd:
    """As a draft."""
    fields: dict[str, Any] = {
        "name": ad.name,
        "headline": f"Item {ad.item} of {ad.vendor.name}",
        "placement": ad.placement,
        "target_type": "store",
        "bid_cpm_cents": ad.bid_cpm_cents,
        "daily_budget_cents": ad.daily_budget_cents,
    }
    ad_id = await api.create_ad(vendor.token, {**fields, **flight})
    return PlacedAd(ad_id, vendor.store_id, vendor.state, ad.placement, ad.bid_cpm_cents, ad.daily_budget_cents)


async def each(items: Sequence[T], work: Callable[[T], Awaitable[R]], advance: Advance) -> list[R]:
    """The results of `work` on each item, in order, AT_ONCE at a time; the first error ends it."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(item: T) -> R:
        async with room:
            result = await work(item)
        advance()
        return result

    tasks = [asyncio.create_task(one(item)) for item in items]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
