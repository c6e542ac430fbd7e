"""Shopping in the demo: shelves are filled, then baskets go through the cart and the checkout at their times."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from ops.demo.client import Api, UnexpectedAnswer
from ops.demo.opening import Account, Marketplace, each
from ops.demo.progress import Progress
from ops.demo.purchases import FREE, Basket
from ops.demo.receipts import AdSeen, Receipts, seen_in
from ops.demo.trade import Trade

SHOPS_A_STATE: Final = 3
SEEN_WITHIN: Final = timedelta(hours=3)  #: a cart says which ads its buyer has seen so long before
TOKENS_MAX: Final = 20
ACH_EVERY: Final = 9  #: one buyer store in so many pays by bank transfer
LIST_PRICE_OF_FREE: Final = 1_000
ADDRESS: Final = {"line1": "1 Market Street", "city": "Springfield", "postal_code": "00001", "country": "US"}


@dataclass(frozen=True, slots=True)
class Product:
    """A list price in a state: who sells it, and how many units are there."""

    state: str
    price_cents: int
    vendor: Account
    on_hand: int

    @property
    def body(self) -> dict[str, Any]:
        """A free sample has a price too, all of which is taken off."""
        free = self.price_cents == FREE
        off = [{"min_qty": 1, "type": "percent", "value": 10_000}] if free else []
        return {
            "sku": f"CD-{self.price_cents}",
            "title": "A free sample" if free else f"A compact disc for {self.price_cents} cents",
            "category": "accessory",
            "unit": "unit",
            "price_cents": LIST_PRICE_OF_FREE if free else self.price_cents,
            "volume_discounts": off,
        }


class Shopping:
    """Everything that is bought: `baskets` in the order of time, set before shelves are filled; and its `receipts`."""

    def __init__(self, marketplace: Marketplace, trade: Trade) -> None:
        self.baskets: Sequence[Basket] = ()
        self.receipts = Receipts()
        self.trade = trade
        self._shops = _shops(marketplace)
        self._buyers = [buyer for buyer in marketplace.buyers.values() if buyer.state in self._shops]
        self._products: dict[tuple[str, int], str] = {}
        self._seen: dict[str, list[AdSeen]] = defaultdict(list)  #: by buyer store

    @property
    def customers(self) -> int:
        """Buyer stores in whose state somebody sells: a basket's `store` is the number of one."""
        return len(self._buyers)

    async def fill_shelves(self, api: Api, progress: Progress) -> None:
        """A product for each list price in each state, of which there is exactly what will be bought."""
        wanted = Counter[tuple[str, int]]()
        for basket in self.baskets:
            state = self._buyers[basket.store].state
            wanted.update({(state, price): units for price, units in basket.units.items()})
        products = [Product(*key, self._vendor_of(key), units) for key, units in sorted(wanted.items())]

        async def fill(product: Product) -> str:
            made = await api.create_product(product.vendor.token, product.body)
            await api.set_on_hand(product.vendor.token, made, product.on_hand)
            return made

        with progress.stage(f"filling shelves with {len(products)} products", len(products)) as advance:
            made = await each(products, fill, advance)
        for product, product_id in zip(products, made, strict=True):
            self._products[product.state, product.price_cents] = product_id
            self.receipts.shelves[product_id] = product.on_hand

    def _vendor_of(self, key: tuple[str, int]) -> Account:
        state, price = key
        return self._shops[state][price % len(self._shops[state])]

    def saw(self, buyer: Account, *tokens: str) -> None:
        """The buyer store was shown an ad, or clicked on it."""
        self._seen[buyer.store_id] += [seen_in(token) for token in tokens]

    async def buy(self, api: Api, basket: Basket, *, seen_before: datetime) -> None:
        """Quote the basket and check it out; what goes wrong is noted in the receipts."""
        try:
            await self._buy(api, basket, seen_before)
        except UnexpectedAnswer as exc:
            self.receipts.failures.append(f"{basket.at.isoformat()} store {basket.store}: {exc}")

    async def _buy(self, api: Api, basket: Basket, seen_before: datetime) -> None:
        buyer, now = self._buyers[basket.store], basket.at.isoformat()
        keys = {price: (buyer.state, price) for price in basket.units}
        items = [
            {"product_id": self._products[keys[price]], "quantity": units} for price, units in basket.units.items()
        ]
        ads = self._ads_for(buyer, basket, seen_before)
        quote = {"items": items, "attribution_tokens": [ad.token for ad in ads]}
        cart = await api.quote(buyer.token, quote, now=now)
        address = ADDRESS | {"state": buyer.state}
        order = {"cart_id": cart["id"], "shipping_address": address, "payment_method": _method(basket)}
        done = await api.check_out(buyer.token, order, now=now)
        due = Counter[str]()
        units = Counter[str]()
        for price, count in basket.units.items():
            vendor = self._vendor_of(keys[price]).store_id
            due[vendor] += price * count
            units[vendor] += count
        self.receipts.take(basket, done, due=due, units=units, ads=ads)
        await self.trade.take(api, buyer, done["vendor_orders"], basket.at)

    def _ads_for(self, buyer: Account, basket: Basket, seen_before: datetime) -> list[AdSeen]:
        """The newest of those that the buyer had seen lately."""
        since = (basket.at - SEEN_WITHIN).timestamp()
        recent = [ad for ad in self._seen[buyer.store_id] if since <= ad.iat < seen_before.timestamp()]
        return sorted(recent, key=lambda ad: (ad.iat, ad.jti))[-TOKENS_MAX:]


def _method(basket: Basket) -> str:
    return "ach" if basket.store % ACH_EVERY == 0 else "cash"


def _shops(marketplace: Marketplace) -> Mapping[str, Sequence[Account]]:
    """The vendors that sell goods, by state."""
    shops: dict[str, list[Account]] = defaultdict(list)
    for _, account in sorted(marketplace.vendors.items(), key=lambda pair: (pair[0].campaign, pair[0].slot)):
        if len(shops[account.state]) < SHOPS_A_STATE:
            shops[account.state].append(account)
    return shops


async def buy_all(api: Api, shopping: Shopping, baskets: Sequence[Basket], *, seen_before: datetime) -> None:
    """At once; carts carry ads that were seen before that time."""
    await asyncio.gather(*(shopping.buy(api, basket, seen_before=seen_before) for basket in baskets))
