"""From a certificate to a product: asked for over HTTP, read after the certificate was processed, published once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.drafts import writes
from models.drafts.rules import Reading
from models.errors import Unavailable
from models.http_json import Refused
from tests.api_driver import Api, Person, created, fields, ok, problem
from tests.catalogue import audited, draft, listing, rows
from tests.media_bucket import CONTENT, MEDIA, announce, as_owner
from tests.media_samples import bomb, pdf, picture, upload
from tests.media_workshop import Workshop, workshop

DRAFTS = "/api/v1/vendor/product-drafts"


@pytest.fixture
def api(gcs_api: Api) -> Api:
    return gcs_api


@pytest.fixture
async def vendor(api: Api) -> Person:
    return await api.register("vendor")


@pytest.fixture
async def shop(api: Api, tmp_path: Path) -> AsyncIterator[Workshop]:
    await rows(api, "DELETE FROM media_jobs")
    await rows(api, "DELETE FROM product_drafts")
    async with workshop(api.services.settings, tmp_path) as found:
        yield found


async def ask(api: Api, person: Person, media_id: str, **headers: str) -> httpx.Response:
    return await api.as_(person).post(DRAFTS, json={"coa_media_id": media_id}, headers=headers)


async def asked(api: Api, person: Person, media_id: str) -> dict[str, Any]:
    answer = await ask(api, person, media_id)
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()["data"]
    return found


async def seen(api: Api, person: Person, draft_id: str) -> dict[str, Any]:
    found: dict[str, Any] = ok(await api.as_(person).get(f"{DRAFTS}/{draft_id}"))
    return found


async def ready(api: Api, person: Person, shop: Workshop) -> dict[str, Any]:
    """A draft that was read, and its certificate."""
    media = await upload(api, person, "coa", pdf(), "application/pdf")
    made = await asked(api, person, media["id"])
    await shop.read(api, media["id"])
    return await seen(api, person, made["id"])


async def test_a_certificate_becomes_a_draft_and_a_product(api: Api, vendor: Person, shop: Workshop) -> None:
    media = await upload(api, vendor, "coa", pdf(), "application/pdf")
    made = await asked(api, vendor, media["id"])
    assert (made["status"], made["fields"], made["confidence"]) == ("processing", {}, {})
    await shop.read(api, media["id"])
    found = await seen(api, vendor, made["id"])
    assert found["status"] == "ready"
    assert found["fields"]["batch"] == "BD-2026-014"
    assert found["fields"]["potency"]["thca_percent"] == 24.1
    assert found["fields"]["result"] == "pass"
    assert found["confidence"]["batch"] == 0.95
    body = draft(title=found["fields"]["title"])
    product = created(await api.as_(vendor).post(f"{DRAFTS}/{made['id']}/publish", json=body))
    assert (product["title"], product["coa_media_id"]) == ("Blue Dream 3.5 g", media["id"])
    assert [action for _, action, _ in await audited(api, product["id"])] == ["product.created"]
    after = await seen(api, vendor, made["id"])
    assert (after["status"], after["product_id"], after["fields"]) == ("published", product["id"], found["fields"])
    problem(await api.as_(vendor).delete(f"{MEDIA}/{media['id']}"), 409, "media_protected")


async def test_a_draft_is_asked_for_once_by_key(api: Api, vendor: Person, shop: Workshop) -> None:
    media = await upload(api, vendor, "coa", pdf(), "application/pdf")
    first, second = [(await ask(api, vendor, media["id"], **{"idempotency-key": "k"})).json()["data"] for _ in "ab"]
    assert first == second
    assert len(await listing(api, vendor, DRAFTS)) == 1


async def test_a_draft_waits_for_its_certificate_to_be_processed(api: Api, vendor: Person, shop: Workshop) -> None:
    """Also when nobody heard of the upload: then it is queued with the draft."""
    media = await upload(api, vendor, "coa", pdf(), "application/pdf")
    made = await asked(api, vendor, media["id"])
    assert await shop.drafting().round() == 0
    assert (await seen(api, vendor, made["id"]))["status"] == "processing"
    assert await shop.work().round() == 1
    await rows(api, "UPDATE product_drafts SET due_at = now()")
    assert await shop.drafting().round() == 1
    assert (await seen(api, vendor, made["id"]))["status"] == "ready"


async def test_what_is_no_certificate_is_refused(api: Api, vendor: Person, shop: Workshop) -> None:
    product = await upload(api, vendor, "product", picture(), "image/jpeg")
    assert "coa_media_id" in fields(problem(await ask(api, vendor, product["id"]), 422, "validation_failed"))
    pending = (await announce(api, vendor, "coa"))["media"]["id"]
    problem(await ask(api, vendor, pending), 409, "state_conflict")
    stranger = await api.register("vendor")
    theirs = (await upload(api, stranger, "coa", pdf(), "application/pdf"))["id"]
    problem(await ask(api, vendor, theirs), 404, "not_found")
    bad = await upload(api, vendor, "coa", bomb(), "image/png")
    await shop.process(api, bad["id"])
    problem(await ask(api, vendor, bad["id"]), 409, "state_conflict")


@pytest.mark.parametrize(
    ("content", "failure"),
    [
        (CONTENT["application/pdf"], "unreadable"),
        (pdf("Dear Sir or Madam,\n" + "our shop is closed.\n" * 4), "nothing_found"),
    ],
)
async def test_a_certificate_that_says_nothing_fails_the_draft(
    api: Api, vendor: Person, shop: Workshop, content: bytes, failure: str
) -> None:
    media = await upload(api, vendor, "coa", content, "application/pdf")
    made = await asked(api, vendor, media["id"])
    await shop.read(api, media["id"])
    found = await seen(api, vendor, made["id"])
    assert (found["status"], found["failure"]) == ("failed", failure)
    problem(await api.as_(vendor).post(f"{DRAFTS}/{made['id']}/publish", json=draft()), 409, "state_conflict")


async def test_a_certificate_deleted_before_it_was_read_fails_the_draft(
    api: Api, vendor: Person, shop: Workshop
) -> None:
    media = await upload(api, vendor, "coa", pdf(), "application/pdf")
    made = await asked(api, vendor, media["id"])
    assert (await api.as_(vendor).delete(f"{MEDIA}/{media['id']}")).status_code == 204
    await shop.read(api)
    found = await seen(api, vendor, made["id"])
    assert (found["status"], found["failure"], found["coa_media_id"]) == ("failed", "media_deleted", None)


async def test_a_draft_is_published_once(api: Api, vendor: Person, shop: Workshop) -> None:
    made = await ready(api, vendor, shop)
    path, client = f"{DRAFTS}/{made['id']}/publish", api.as_(vendor)
    body = draft()
    answers = await asyncio.gather(*(client.post(path, json=draft()) for _ in range(3)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409]
    detail = problem(await client.post(path, json=body), 409, "state_conflict")["detail"]
    assert "published" in detail
    assert len(await listing(api, vendor, "/api/v1/vendor/products")) == 1


async def test_the_same_key_publishes_again_with_the_same_answer(api: Api, vendor: Person, shop: Workshop) -> None:
    made, body = await ready(api, vendor, shop), draft()
    path, key = f"{DRAFTS}/{made['id']}/publish", {"idempotency-key": "p"}
    first, second = [await api.as_(vendor).post(path, json=body, headers=key) for _ in "ab"]
    assert (first.status_code, second.status_code, second.json()["data"]) == (201, 201, first.json()["data"])


async def test_what_cannot_be_a_product_leaves_the_draft_as_it_was(api: Api, vendor: Person, shop: Workshop) -> None:
    made = await ready(api, vendor, shop)
    path, client = f"{DRAFTS}/{made['id']}/publish", api.as_(vendor)
    problem(await client.post(path, json=draft(moq=5, max_qty=2)), 422, "validation_failed")
    taken = created(await client.post("/api/v1/vendor/products", json=draft()))["sku"]
    problem(await client.post(path, json=draft(sku=taken)), 409, "already_exists")
    assert (await seen(api, vendor, made["id"]))["status"] == "ready"
    product = created(await client.post(path, json=draft(coa_media_id=None)))
    assert product["coa_media_id"] is None


async def test_drafts_are_the_stores_own_in_pages(api: Api, vendor: Person, shop: Workshop) -> None:
    media = await upload(api, vendor, "coa", pdf(), "application/pdf")
    ids = [(await asked(api, vendor, media["id"]))["id"] for _ in range(3)]
    assert [one["id"] for one in await listing(api, vendor, DRAFTS, limit=2)] == ids[::-1]
    stranger = await api.register("vendor")
    assert await listing(api, stranger, DRAFTS) == []
    problem(await api.as_(stranger).get(f"{DRAFTS}/{ids[0]}"), 404, "not_found")
    problem(await api.as_(stranger).post(f"{DRAFTS}/{ids[0]}/publish", json=draft()), 404, "not_found")


# -- once, whatever happens -------------------------------------------------------------------------------------------


class Dictated:
    """Answers as it is told to."""

    def __init__(self, *answers: Reading | Exception) -> None:
        self.answers = list(answers)

    async def read(self, text: str) -> Reading:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        pass


async def test_an_outage_is_waited_out_and_a_refusal_is_not(api: Api, vendor: Person, shop: Workshop) -> None:
    shop.reader = Dictated(
        *[Unavailable("not now")] * (writes.ATTEMPTS_MAX + 1), Reading({"batch": "B1"}, {"batch": 1.0}), Refused("no")
    )
    media = await upload(api, vendor, "coa", pdf(), "application/pdf")
    waiting = await asked(api, vendor, media["id"])
    await shop.process(api, media["id"])
    for _ in range(writes.ATTEMPTS_MAX + 2):
        await rows(api, "UPDATE product_drafts SET due_at = now()")
        await shop.drafting().round()
    assert (await seen(api, vendor, waiting["id"]))["fields"] == {"batch": "B1"}
    refused = await asked(api, vendor, media["id"])
    await shop.read(api)
    assert (await seen(api, vendor, refused["id"]))["failure"] == "refused"


async def test_a_worker_that_vanished_leaves_its_drafts_to_the_next(api: Api, vendor: Person, shop: Workshop) -> None:
    media = await upload(api, vendor, "coa", pdf(), "application/pdf")
    made = await asked(api, vendor, media["id"])
    await shop.process(api, media["id"])
    wall = datetime.now(UTC)
    async with as_owner(api) as tx:
        (vanished,) = await writes.claim(tx, limit=5, until=wall + timedelta(minutes=1), wall=wall)
    assert await shop.drafting().round() == 0
    await rows(api, "UPDATE product_drafts SET due_at = now()")
    assert await shop.drafting().round() == 1
    async with as_owner(api) as tx:
        assert not await writes.finish(tx, vanished, Reading({"batch": "late"}, {"batch": 1.0}), now=wall)
    assert (await seen(api, vendor, made["id"]))["fields"]["batch"] == "BD-2026-014"


async def test_what_takes_worker_after_worker_is_given_up(api: Api, vendor: Person, shop: Workshop) -> None:
    media = await upload(api, vendor, "coa", pdf(), "application/pdf")
    made = await asked(api, vendor, media["id"])
    for _ in range(writes.ATTEMPTS_MAX):
        async with as_owner(api) as tx:
            wall = datetime.now(UTC)
            assert await writes.claim(tx, limit=5, until=wall, wall=wall)
    await shop.read(api)
    assert (await seen(api, vendor, made["id"]))["failure"] == "gave_up"
