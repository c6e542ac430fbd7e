"""A vendor's dashboards over HTTP: to the cent what Postgres says, of its own alone; bad questions are told so."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest

import ops.backfill
from api.ad_services import AdServices
from api.routes import analytics
from models.ads import closing, reconciling
from models.ads.closing import Totals
from models.ads.rules import EventKind, Placement, TargetType
from models.ads.tokens import AdClaims
from models.analytics.gateway import BigQuery
from models.database import make_engine, make_sessions, new_id
from ops.backfill import backfill
from ops.reconcile_warehouse import _compare, compare_warehouse
from ops.settings import Settings
from ops.stack.local import stack_down, stack_up
from ops.stack.paths import DataDir
from ops.warehouse import apply, check, connected_warehouse
from schemas.warehouse_tables import TABLES
from streams.facts import facts_of
from tests.ads_driver import active_ad, at, execute
from tests.api_driver import ADDRESS, Api, Person, fields, ok, problem, running
from tests.cart_shop import open_shop, promise, quote, stock
from tests.checkout_driver import check_out
from tests.dashboard_driver import compare_sales, deliver, published, sales_by_postgres
from tests.delivery_driver import appoint
from tests.facts_site import found_ids
from tests.ledger_driver import collect, confirm, delivered
from tests.local_stack import Database, Stack, settings_for
from tests.order_driver import step

MARKETPLACE, ADS = "/api/v1/vendor/analytics/marketplace", "/api/v1/vendor/analytics/ads"
TODAY = datetime(2027, 3, 1, 12, tzinfo=UTC)
FIRST, LAST = date(2027, 2, 20), date(2027, 3, 1)


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    data = DataDir.at(tmp_path_factory.mktemp("dashboards"))
    addresses = asyncio.run(stack_up(data, ("bigquery",), bound=True)).site.addresses
    yield {name.lower(): addresses[name] for name in ("BIGQUERY_ENDPOINT", "BIGQUERY_GRPC_ENDPOINT")}
    asyncio.run(stack_down(data, ("bigquery",)))


@pytest.fixture
def own(stack: Stack, database: Database, redis_url: str, emulator: dict[str, str]) -> Settings:
    """Settings with a database and a dataset of this test alone."""
    mine = {
        "redis_url": redis_url,
        "bigquery_dataset": f"dashboards_{database.name}",
        "log_level": "warning",
        "auto_assign": False,
    }
    return settings_for(stack, database, **emulator, **mine)


@pytest.fixture
async def shop(own: Settings) -> AsyncIterator[Api]:
    async with running(own) as started:
        yield started


@pytest.fixture
async def store(own: Settings) -> AsyncIterator[BigQuery]:
    store = connected_warehouse(own)
    await apply(store)
    yield store
    store.close()


async def ask(api: Api, person: Person, path: str, **params: str) -> httpx.Response:
    async with api.as_(person) as client:
        return await client.get(path, params=params, headers=at(TODAY))


async def see(api: Api, person: Person, path: str, **params: str) -> dict[str, Any]:
    found: dict[str, Any] = ok(await ask(api, person, path, **params))
    return found


async def trade(shop: Api) -> list[Person]:
    """A dozen checkouts at two vendors over ten days, with promos, decisions and cancels as a die says; the vendors."""
    dice = random.Random(20270301)
    vendors = [await open_shop(shop), await open_shop(shop)]
    buyers = [await shop.register("buyer") for _ in range(3)]
    shelves = [
        [await stock(shop, vendor, price_cents=dice.randrange(101, 999), category=kind) for kind in
         ("flower", "edible", "vape")]
        for vendor in vendors
    ]  # fmt: skip
    for vendor in vendors:
        await promise(shop, vendor)
    for n in range(12):
        when = TODAY - timedelta(days=dice.randrange(10), minutes=n)
        buyer = dice.choice(buyers)
        wanted = [
            (product, dice.randrange(1, 9)) for shelf in shelves for product in dice.sample(shelf, dice.randrange(3))
        ] or [(shelves[0][0], 1)]
        promos = [{"vendor_store_id": vendor.store["id"], "code": "TEN"} for vendor in vendors if dice.random() < 0.5]
        cart = await quote(shop, buyer, *wanted, now=when, promos=promos)
        address = ADDRESS | {"postal_code": dice.choice(["97201", "97202", "97203"])}
        done = await check_out(shop, buyer, cart, now=when, shipping_address=address)
        for order in done["vendor_orders"]:
            vendor = next(one for one in vendors if one.store["id"] == order["vendor_store_id"])
            await live(shop, dice, buyer, vendor, order)
    return vendors


async def test_sales_equal_postgres_to_the_cent(shop: Api, store: BigQuery) -> None:
    vendors = await trade(shop)
    await deliver(shop, store)
    for vendor, first in zip(vendors, (date(2027, 2, 25), FIRST), strict=True):
        shown = await see(shop, vendor, MARKETPLACE, **{"from": str(first), "to": str(LAST)})
        compare_sales(shown, await sales_by_postgres(shop, vendor.store["id"], first, LAST))
        assert [point["date"] for point in shown["series"]] == days(first, LAST)
    shown = await see(shop, vendors[0], MARKETPLACE)
    assert len(shown["series"]) == 30
    assert shown["kpis"]["orders"] > 3  # else this proves little
    assert shown["kpis"]["discounts_cents"] > 0
    weeks = await see(shop, vendors[0], MARKETPLACE, interval="week")
    months = await see(shop, vendors[0], MARKETPLACE, interval="month")
    assert weeks["kpis"] == months["kpis"] == shown["kpis"]
    assert [point["date"] for point in months["series"]] == ["2027-01-01", "2027-02-01", "2027-03-01"]
    for other in (weeks, months):
        assert sum(point["net_cents"] for point in other["series"]) == shown["kpis"]["net_cents"]


async def test_a_backfill_from_postgres_says_what_the_stream_says_and_doubles_nothing(
    shop: Api, store: BigQuery, own: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    vendors = await trade(shop)
    ad = await active_ad(shop, vendors[0])
    await close(shop, date(2027, 2, 27), {ad["id"]: 1_234_567})
    monkeypatch.setattr(ops.backfill, "ORDERS_AT_ONCE", 5)

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await backfill(own, progress=interrupt)
    begun = (await found_ids(store)).total()
    report = await backfill(own)
    assert report.ok
    assert report.resumed
    rows = await everything(store)
    assert (report.rows, report.present) == (len(rows) - begun, 0)
    assert report.orders == (await execute(shop, "SELECT count(*) FROM orders"))[0][0] - 5
    events, spend = await published(shop)
    for fact in (fact for event in events for fact in facts_of(event, spend)):
        found = rows.pop(fact.row_id, None)
        if found is None:  # decisions of one moment are told as one
            assert fact.row_id.startswith(("order_decided:", "conversion:"))
            continue
        assert found["source"] == "backfill"
        same = {name: value for name, value in fact.row.items() if name not in ("source", "event_id")}
        assert {name: found[name] for name in same} == same
    assert rows == {}
    again = await backfill(own)
    assert (again.resumed, again.rows, again.present) == (False, 0, report.rows + begun)
    for vendor in vendors:
        shown = await see(shop, vendor, MARKETPLACE, **{"from": str(FIRST)})
        compare_sales(shown, await sales_by_postgres(shop, vendor.store["id"], FIRST, LAST))
    assert (await see(shop, vendors[0], ADS))["kpis"]["spend_cents"] == 123
    assert await check(store) == []


async def everything(store: BigQuery) -> dict[str, dict[str, Any]]:
    """All rows by id."""
    return {row["row_id"]: dict(row) for table in TABLES for row in await store.query(f"SELECT * FROM {{{table}}}")}


def days(first: date, last: date) -> list[str]:
    return [str(first + timedelta(days=n)) for n in range((last - first).days + 1)]


async def live(api: Api, dice: random.Random, buyer: Person, vendor: Person, order: dict[str, Any]) -> None:
    """What becomes of an order. Some are decided before they were placed, by a clock that is slow."""
    fate, now = dice.random(), TODAY - timedelta(days=11)
    if fate < 0.2:
        await step(api, buyer, order["id"], "cancel", now=now)
    elif fate < 0.4:
        await step(api, vendor, order["id"], "decision", {"decision": "reject", "reason": "x"}, now=now)
    elif fate < 0.8:
        for line in order["line_items"]:
            verdict = {"line_item_id": line["id"], "decision": dice.choice(["accept", "reject"]), "reason": "x"}
            await step(api, vendor, order["id"], "line-items/decision", {"decisions": [verdict]}, now=now)


async def test_money_counts_when_it_was_collected_until_it_is_paid_out(shop: Api, store: BigQuery) -> None:
    pair = await open_shop(shop), await shop.register("buyer")
    agent, admin = await appoint(shop), await shop.register_admin()
    week_ago = TODAY - timedelta(days=7)
    for _ in range(2):
        one = await delivered(shop, agent, shop=pair)
        ok(await collect(shop, agent, one, now=week_ago))
    ok(await confirm(shop, admin, one.id, now=TODAY))
    await delivered(shop, agent, shop=pair)
    await deliver(shop, store)
    whole = await see(shop, pair[0], MARKETPLACE)
    assert (whole["kpis"]["revenue_cents"], whole["kpis"]["net_cents"]) == (2_000, 3_000)
    early = await see(shop, pair[0], MARKETPLACE, **{"from": "2027-02-01", "to": "2027-02-28"})
    assert early["kpis"]["revenue_cents"] == 0  # the orders are of the first of March, and so is no money earlier
    assert (await see(shop, pair[0], MARKETPLACE, **{"from": "2027-03-01"}))["kpis"]["revenue_cents"] == 2_000


async def test_ads_equal_rollups_charges_and_frozen_attributions(shop: Api, store: BigQuery) -> None:
    vendor, rival, buyer = await open_shop(shop), await open_shop(shop), await shop.register("buyer")
    product, other = await stock(shop, vendor), await stock(shop, vendor, price_cents=350)
    of_store = await active_ad(shop, vendor)
    of_product = await active_ad(shop, vendor, target_type="product", target_product_id=product)
    of_rival = await active_ad(shop, rival)
    spent = {of_store["id"]: 15_000, of_product["id"]: 20_000, of_rival["id"]: 70_001}
    closed = date(2027, 2, 27)
    await close(shop, closed, spent)
    claims = [
        token(shop, vendor, buyer, of_store["id"], TargetType.STORE, vendor.store["id"]),
        token(shop, vendor, buyer, of_product["id"], TargetType.PRODUCT, product),
    ]
    kept = await placed(shop, buyer, claims, (product, 2), (other, 1))
    dropped = await placed(shop, buyer, claims, (product, 1))
    halved = await placed(shop, buyer, claims, (product, 3), (other, 2))
    await placed(shop, buyer, [], (product, 5))  # nobody's ad led here
    await step(shop, buyer, dropped["id"], "cancel", now=TODAY)
    [line] = [line["id"] for line in halved["line_items"] if line["product_id"] == product]
    verdict = {"line_item_id": line, "decision": "reject", "reason": "x"}
    await step(shop, vendor, halved["id"], "line-items/decision", {"decisions": [verdict]}, now=TODAY)
    await deliver(shop, store)

    shown = await see(shop, vendor, ADS)
    lines = {row["ad_id"]: row for row in shown["ads"]}
    assert lines.keys() == {of_store["id"], of_product["id"]}
    # 3.5 cents, half to even: 4 of them, 15,000 and 20,000 micros are 1.71 and 2.29 of those
    assert [lines[ad["id"]]["spend_cents"] for ad in (of_store, of_product)] == [2, 2]
    assert (kept["total_cents"], halved["total_cents"]) == (2_350, 3_700)
    one, two = lines[of_store["id"]], lines[of_product["id"]]
    assert (one["conversions"], one["attributed_cents"]) == (2, 2_350 + 700)
    assert (two["conversions"], two["attributed_cents"]) == (1, 2_000)
    assert (one["impressions"], one["clicks"], one["ctr"]) == (100, 5, 0.05)
    assert one["roas"] == (2_350 + 700) / 2
    kpis = shown["kpis"]
    assert kpis == {
        "impressions": 200, "clicks": 10, "ctr": 0.05, "spend_cents": 4, "conversions": 3,
        "attributed_cents": 5_050, "roas": 5_050 / 4,
    }  # fmt: skip
    charged = await execute(
        shop, "SELECT amount_cents FROM usage_charges WHERE store_id = :s", s=UUID(vendor.store["id"])
    )
    assert [row.amount_cents for row in charged] == [kpis["spend_cents"]]
    series = {point["date"]: point for point in shown["series"]}
    assert len(series) == 30
    assert (series["2027-02-27"]["spend_cents"], series["2027-02-27"]["impressions"]) == (4, 200)
    assert (series["2027-03-01"]["conversions"], series["2027-03-01"]["attributed_cents"]) == (3, 5_050)
    await reconciles(shop, store, closed, of_store["id"])
    alone = await see(shop, vendor, ADS, ad_id=of_product["id"])
    assert alone["ads"] == [two]
    assert {name: alone["kpis"][name] for name in kpis} == {name: two[name] for name in kpis}
    quiet = await see(shop, vendor, ADS, ad_id=of_store["id"], **{"from": "2027-02-01", "to": "2027-02-02"})
    assert [row["impressions"] for row in quiet["ads"]] == [0]
    assert (await see(shop, rival, ADS))["kpis"]["spend_cents"] == 7
    problem(await ask(shop, vendor, ADS, ad_id=of_rival["id"]), 404, "not_found")
    problem(await ask(shop, vendor, ADS, ad_id=str(new_id())), 404, "not_found")


async def reconciles(api: Api, store: BigQuery, day: date, ad: str) -> None:
    """The day in the warehouse equals Postgres, and a cent elsewhere is named."""
    engine = make_engine(api.services.settings.sqlalchemy_url, pool_size=1, application="test")
    async with make_sessions(engine)() as tx:
        stored = await reconciling.read_day(tx, day)
    await engine.dispose()
    assert await compare_warehouse(store, day, stored) == []
    wrong = {key: (micros, cents + 1) for key, (micros, cents) in stored.charges.items()}
    less = {key: totals for key, totals in stored.rollups.items() if str(key) != ad}
    found = await _compare(store, day, stored._replace(charges=wrong, rollups=less))
    assert sorted(level for level, *_ in found) == ["warehouse charges", "warehouse charges", "warehouse rollups"]
    assert [key for level, key, *_ in found if level == "warehouse rollups"] == [ad]


def token(api: Api, vendor: Person, buyer: Person, ad: str, kind: TargetType, target: str) -> str:
    iat = int(TODAY.timestamp()) - 60
    claims = AdClaims(
        typ="ad", v=1, jti=new_id(), request_id=new_id(), kind=EventKind.CLICK, ad_id=UUID(ad),
        store_id=UUID(vendor.store["id"]), target_type=kind, target_id=UUID(target),
        buyer_store_id=UUID(buyer.store["id"]), placement=Placement.HOME, cost_micros=0, iat=iat, exp=iat + 1_800,
    )  # fmt: skip
    return api.services.get(AdServices).keys.sign(claims)


async def placed(api: Api, buyer: Person, tokens: list[str], *items: tuple[str, int]) -> dict[str, Any]:
    cart = await quote(api, buyer, *items, now=TODAY, attribution_tokens=tokens)
    done = await check_out(api, buyer, cart, now=TODAY)
    order: dict[str, Any] = done["vendor_orders"][0]
    return order


async def close(api: Api, day: date, spent: dict[str, int]) -> None:
    """A day of advertising ends: rollups, charges and their events."""
    totals = [Totals(UUID(ad), 100, 5, micros) for ad, micros in spent.items()]
    engine = make_engine(api.services.settings.sqlalchemy_url, pool_size=1, application="test")
    async with make_sessions(engine).begin() as tx:
        await closing.close_day(tx, shard=0, shards=1, day=day, totals=totals, watermark=TODAY, now=TODAY)
    await engine.dispose()


@pytest.mark.parametrize("path", [MARKETPLACE, ADS])
async def test_bad_ranges_are_refused_by_name(api: Api, path: str) -> None:
    vendor = await open_shop(api)
    for params, field in (
        ({"from": "2027-02-02", "to": "2027-02-01"}, "to"),
        ({"from": "2017-03-01", "to": "2027-03-01"}, "from"),
        ({"from": "2027-03-02"}, "from"),
        ({"from": "2031-01-01", "to": "2031-01-31"}, "from"),
        ({"from": "2027-02-01T00:00:00"}, "from"),
        ({"to": "2027-02-01T00:00:00Z"}, "to"),
        ({"from": "20270201"}, "from"),
        ({"from": "2027-02-30"}, "from"),
        ({"to": "yesterday"}, "to"),
    ):
        answer = problem(await ask(api, vendor, path, **params), 422, "validation_failed")
        assert fields(answer) == {field}, params
    if path == MARKETPLACE:
        problem(await ask(api, vendor, path, interval="hour"), 422, "validation_failed")
    else:
        problem(await ask(api, vendor, path, ad_id="mine"), 422, "validation_failed")
    problem(await ask(api, await api.register("buyer"), path), 403, "forbidden")
    problem(await ask(api, vendor, path), 503, "unavailable")  # this API has no warehouse


async def test_an_empty_dashboard_is_zeros(shop: Api, store: BigQuery) -> None:
    vendor = await open_shop(shop)
    sales, ads = await see(shop, vendor, MARKETPLACE), await see(shop, vendor, ADS)
    assert set(sales["kpis"].values()) == set(ads["kpis"].values()) == {0}
    assert (sales["top_products"], sales["top_categories"], sales["top_zips"], ads["ads"]) == ([], [], [], [])
    assert len(sales["series"]) == len(ads["series"]) == 30


async def test_a_warehouse_that_hangs_is_a_503_and_holds_up_nothing_else(
    api_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analytics, "ANSWER_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        endpoint = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        changed = api_settings.model_copy(update={"bigquery_endpoint": endpoint})
        async with running(changed) as api:
            vendor = await open_shop(api)
            hanging = asyncio.create_task(ask(api, vendor, MARKETPLACE))
            await asyncio.sleep(0.1)
            ok(await ask(api, vendor, "/api/v1/orders"))
            assert not hanging.done()
            answer = await hanging
            problem(answer, 503, "unavailable")
            assert answer.headers["retry-after"]
            deaf.close()
