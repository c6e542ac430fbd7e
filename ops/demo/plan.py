"""Who takes part in the demo: buyer stores, vendor stores, and the ads that they buy. Pure, and the same for a seed."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from models.ads.rules import Placement
from ops.demo.views import PageView

SEED: Final = 1
STATES: Final = ("CA", "CO", "OR")  #: ads are shown in their vendor's state only
VENDORS_PER_CAMPAIGN: Final = 8
BIDS_CPM_CENTS: Final = (1_550, 2_025, 2_650, 3_475)  #: a view costs 1.55 to 3.475 cents: charges have to be rounded
BUDGETS_CENTS: Final = range(100, 300, 25)
RARE_EVERY: Final = 16  #: one ad in so many outbids all others, and can pay for a handful of views a day
RARE_BID_CPM_CENTS: Final = range(20_000, 60_000, 1_250)
RARE_BUDGET_CENTS: Final = 100


@dataclass(frozen=True, slots=True)
class VendorPlan:
    """A store that sells the items of one campaign file whose number leaves `slot` when divided."""

    campaign: str
    slot: int

    @property
    def state(self) -> str:
        return STATES[self.slot % len(STATES)]

    @property
    def name(self) -> str:
        return f"Vendor {self.campaign} {self.slot}"


@dataclass(frozen=True, slots=True)
class BuyerPlan:
    """A store that views what one segment of viewers viewed."""

    segment: str

    @property
    def state(self) -> str:
        return STATES[zlib.crc32(self.segment.encode()) % len(STATES)]


@dataclass(frozen=True, slots=True)
class AdPlan:
    """An ad of one item on one placement."""

    vendor: VendorPlan
    item: int
    placement: Placement
    bid_cpm_cents: int
    daily_budget_cents: int

    @property
    def name(self) -> str:
        return f"{self.vendor.campaign} item {self.item} on {self.placement}"


@dataclass(frozen=True, slots=True)
class Plan:
    """Everyone and everything."""

    vendors: Sequence[VendorPlan]
    buyers: Sequence[BuyerPlan]
    ads: Sequence[AdPlan]


def make_plan(views: Iterable[PageView], *, seed: int) -> Plan:
    """A buyer store for each segment, and for each item of each file an ad on each placement."""
    views = list(views)
    items = sorted({(view.campaign, view.item) for view in views})
    ads = [_ad(campaign, item, placement, seed) for campaign, item in items for placement in Placement]
    vendors = {ad.vendor: None for ad in ads}
    segments = sorted({view.segment for view in views})
    return Plan(list(vendors), [BuyerPlan(segment) for segment in segments], ads)


def _ad(campaign: str, item: int, placement: Placement, seed: int) -> AdPlan:
    dice = random.Random(f"{seed}:{campaign}:{item}:{placement}")
    rare = dice.randrange(RARE_EVERY) == 0
    return AdPlan(
        vendor=VendorPlan(campaign, item % VENDORS_PER_CAMPAIGN),
        item=item,
        placement=placement,
        bid_cpm_cents=dice.choice(RARE_BID_CPM_CENTS if rare else BIDS_CPM_CENTS),
        daily_budget_cents=RARE_BUDGET_CENTS if rare else dice.choice(BUDGETS_CENTS),
    )
