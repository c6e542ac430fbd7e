"""A checkout that crashes anywhere has happened wholly or not at all, and its retry makes it happen once."""

from __future__ import annotations

from itertools import count

import pytest

from tests.api_driver import Api, Person, ok
from tests.cart_shop import quote, stock
from tests.checkout_driver import check_out, left, post, reserved
from tests.crashes import COMMIT, COMMITTED, steps

WHOLE = {"orders": 2, "order_line_items": 2, "payment_intents": 2, "converted": 1, "events": 2}


@pytest.mark.parametrize("same_key", [True, False], ids=["same key", "another key"])
async def test_a_crash_before_any_of_its_steps_leaves_nothing_or_all_and_the_retry_all_once(
    api: Api, vendor: Person, other: Person, buyer: Person, same_key: bool
) -> None:
    a, b = await stock(api, vendor), await stock(api, other)
    crashed_before: list[str] = []
    for number in count():
        cart = await quote(api, buyer, a, b)
        before, held = await left(api, buyer), await reserved(api, a, b)
        all_of_it = {what: before[what] + more for what, more in WHOLE.items()}, [held[0] + 1, held[1] + 1]
        whole: list[str] = []
        seen: list[str] = []
        with steps(seen, crash_at=number):
            answer = await post(api, buyer, cart["id"], key=cart["id"])
        if seen[-1] != "crash":
            assert (await left(api, buyer), await reserved(api, a, b)) == all_of_it
            whole = seen
            break
        assert answer.status_code == 500
        committed = seen[-2:-1] == [COMMIT]
        assert (await left(api, buyer), await reserved(api, a, b)) == (all_of_it if committed else (before, held))
        retry = await post(api, buyer, cart["id"], key=cart["id"] if same_key else f"{cart['id']}-2")
        assert (retry.status_code, "idempotent-replayed" in retry.headers) == (
            200 if committed and not same_key else 201,
            committed and same_key,
        )
        assert retry.json()["data"] == ok(await post(api, buyer, cart["id"]))
        assert (await left(api, buyer), await reserved(api, a, b)) == all_of_it
        crashed_before.append(COMMITTED if committed else "")
    assert whole[-2:] == [COMMIT, COMMITTED]
    assert (len(crashed_before), crashed_before[-1]) == (len(whole), COMMITTED)
    assert number > 12


async def test_a_checkout_takes_as_many_statements_for_a_hundred_lines_as_for_one(
    api: Api, vendor: Person, buyer: Person
) -> None:
    products = [await stock(api, vendor) for _ in range(100)]
    counted = []
    for wanted in (products[:1], products):
        cart = await quote(api, buyer, *wanted)
        seen: list[str] = []
        with steps(seen):
            await check_out(api, buyer, cart)
        counted.append(len(seen))
    assert counted[0] == counted[1] < 40
