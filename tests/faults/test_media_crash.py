"""A crash between upload, finalisation and deletion, wherever it falls: nothing is left over once the collector ran.

People upload, delete and give up while API, relay, worker and storage are killed under them. Then the parts come back,
business time goes on by a day, and rows and bucket are compared: each object has its row, each row its object, no
deletion is open. Before that something is left, or the test would show nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import httpx
import pytest

from ops.settings import Settings
from tests.api_driver import PASSWORD, registration
from tests.faults.system import BACK_S, System, until
from tests.media_bucket import CONTENT, MEDIA, TYPES, announcement, bucket_of
from tests.media_samples import picture

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PARTS: Final = "postgres,kafka,redis,gcs"
PEOPLE: Final = 6
ROUNDS: Final = 3
VICTIMS: Final = ("api", "relay", "worker", "gcs")
PICTURE: Final = picture((64, 48), "PNG")
KINDS: Final = ("product", "coa", "avatar", "license")
GIVE_UP_S: Final = 5.0
LOST: Final = (httpx.HTTPError, OSError)


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    with System(parts=PARTS) as system:
        yield system


class Uploader:
    """Someone who uploads and deletes, gives up half-way now and then, and never finds out how it ended."""

    def __init__(self, api: str, token: str, seed: int) -> None:
        self._http = httpx.AsyncClient(base_url=api, headers={"authorization": f"Bearer {token}"}, timeout=GIVE_UP_S)
        self._random = random.Random(seed)
        self.did: Counter[str] = Counter()

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await self._once()
            except LOST:
                self.did["lost"] += 1
                await asyncio.sleep(0.3)
            await asyncio.sleep(0.05)

    async def announced(self, *, deleted: bool) -> dict[str, Any]:
        """An upload that may be made, of media that are there or were."""
        answer = (await self._http.post(MEDIA, json=announcement("product"))).raise_for_status()
        made: dict[str, Any] = answer.json()["data"]
        if deleted:
            (await self._http.delete(f"{MEDIA}/{made['media']['id']}")).raise_for_status()
        upload: dict[str, Any] = made["upload"]
        return upload

    async def _once(self) -> None:
        kind = self._random.choice(KINDS)
        content = PICTURE if kind == "product" else CONTENT[TYPES.get(kind, "image/png")]
        answer = await self._http.post(MEDIA, json=announcement(kind, size_bytes=len(content)))
        if answer.status_code != 201:
            self.did["refused"] += 1
            return
        made = answer.json()["data"]
        path = f"{MEDIA}/{made['media']['id']}"
        step = self._random.random()
        if step < 0.15:
            self.did["abandoned"] += 1
        elif step < 0.3:  # deleted first, uploaded all the same
            await self._delete(path)
            await self._put(made, content)
        else:
            await self._put(made, content)
            if step < 0.65:
                await asyncio.sleep(self._random.choice((0, 0.05, 0.5)))
                await self._delete(path)

    async def _put(self, made: dict[str, Any], content: bytes) -> None:
        if self._random.random() < 0.1:
            content = bytes(len(content))
        async with httpx.AsyncClient(timeout=GIVE_UP_S) as web:
            answer = await web.put(made["upload"]["url"], headers=made["upload"]["headers"], content=content)
        self.did[f"put {answer.status_code}"] += 1

    async def _delete(self, path: str) -> None:
        self.did[f"delete {(await self._http.delete(path)).status_code}"] += 1


async def uploaders(system: System) -> list[Uploader]:
    found = []
    async with httpx.AsyncClient(base_url=system.api, timeout=30) as http:
        for seed in range(PEOPLE):
            body = registration("vendor")
            answer = await http.post("/api/v1/auth/register", json=body | {"email": f"media-{seed}@example.test"})
            answer.raise_for_status()
            found.append(Uploader(system.api, answer.json()["data"]["tokens"]["access_token"], seed))
    return found


def settings_of(system: System) -> Settings:
    return system.settings.model_copy(update={"gcs_endpoint": system.data.read_env()["GCS_ENDPOINT"]})


async def objects_of(system: System) -> set[str]:
    """Every object in the bucket."""
    with bucket_of(settings_of(system)) as store:
        names: set[str] = set()
        token: str | None = None
        while True:
            page = await store.page("", token)
            names |= {listed.name for listed in page.objects}
            token = page.next_token
            if token is None:
                return names


async def loose_ends(system: System) -> dict[str, set[str]]:
    """What should not be: pending rows, open deletions, objects without a row and rows without an object."""
    objects = await objects_of(system)
    rows = await system.rows("SELECT id, store_id, status FROM media")
    named = {f"{row['store_id']}/{row['id']}/original" for row in rows}
    for row in await system.rows("SELECT store_id, media_id, kind FROM media_derived"):
        named.add(f"{row['store_id']}/{row['media_id']}/{row['kind']}")
    open_ = await system.rows("SELECT media_id FROM media_deletions WHERE status = 'pending'")
    return {
        "pending rows": {str(row["id"]) for row in rows if row["status"] == "pending"},
        "open deletions": {str(row["media_id"]) for row in open_},
        "objects without a row": objects - named,
        "rows without an object": named - objects,
    }


async def pass_time(system: System, by: timedelta) -> None:
    """Business time goes on."""
    async with httpx.AsyncClient(base_url=system.api, timeout=30) as http:
        admin = {"email": "media-admin@example.test", "password": PASSWORD}
        answer = await http.post("/api/admin/auth/register", json=admin)
        token = answer.raise_for_status().json()["data"]["tokens"]["access_token"]
        to = (await system.now() + by).isoformat().replace("+00:00", "Z")
        clock = await http.post("/api/admin/ops/clock", json={"now": to}, headers={"authorization": f"Bearer {token}"})
        clock.raise_for_status()


async def test_no_row_and_no_object_is_left_over_whatever_is_killed(system: System) -> None:
    people, stop = await uploaders(system), asyncio.Event()
    work = [asyncio.create_task(person.run(stop)) for person in people]
    kills = 0
    for round_ in range(ROUNDS):
        for victim in VICTIMS[round_:] + VICTIMS[:round_]:
            await work_goes_on(people)
            await system.kill(victim)
            kills += 1
    await work_goes_on(people)
    stop.set()
    await asyncio.gather(*work)
    lost = await lose_news(system, people)
    await until("the API answers", lambda: answers(system), timeout_s=BACK_S)
    await until("the storage answers", lambda: storage_answers(system), timeout_s=BACK_S)
    did = tally(people)
    before = {what: len(found) for what, found in (await loose_ends(system)).items()}
    await pass_time(system, timedelta(days=1))

    async def nothing_left() -> bool:
        return not any((await loose_ends(system)).values())

    try:
        await until("rows and objects are one", nothing_left, timeout_s=120)
    finally:
        print(f"\n{kills} kills, {lost} news lost; {dict(did)}; before: {before}; after: {await loose_ends(system)}")
    assert lost > 0
    assert before["pending rows"] > 0 < before["objects without a row"], "nothing to collect: the test shows nothing"
    assert did["put 200"] > 20
    assert did["delete 204"] > 10
    kept = await system.rows("SELECT id, status FROM media")
    assert {row["status"] for row in kept} <= {"uploaded", "processing", "ready", "failed"}
    assert all(isinstance(row["id"], UUID) for row in kept)


async def lose_news(system: System, people: list[Uploader]) -> int:
    """Upload what was announced before, deleted or not, while nobody is told; how much news of it was thrown away."""
    await until("the API answers", lambda: answers(system), timeout_s=BACK_S)
    announced = [await person.announced(deleted=deleted) for person in people for deleted in (False, True)]

    async def deletions_are_done() -> bool:
        return not (await loose_ends(system))["open deletions"]

    await until("deletions are done: what comes from now on, comes late", deletions_are_done)
    await system.kill("api")
    for upload in announced:
        async with httpx.AsyncClient(timeout=GIVE_UP_S) as web:
            content = CONTENT["image/png"]
            (await web.put(upload["url"], headers=upload["headers"], content=content)).raise_for_status()
    await system.kill("gcs")
    untold = list((system.data.home("gcs") / "events").glob("*.json"))
    for path in untold:
        path.unlink(missing_ok=True)
    return len(untold)


async def work_goes_on(people: list[Uploader]) -> None:
    """Wait until more was uploaded and deleted, so that the next kill falls on work."""
    before = tally(people)

    async def more() -> bool:
        now = tally(people)
        return all(now[what] >= before[what] + count for what, count in (("put 200", 5), ("delete 204", 2)))

    await until("people upload and delete", more, timeout_s=120)


def tally(people: list[Uploader]) -> Counter[str]:
    return sum((person.did for person in people), Counter())


async def answers(system: System) -> bool:
    try:
        async with httpx.AsyncClient(base_url=system.api, timeout=5) as http:
            return (await http.get("/readyz")).status_code == 200
    except LOST:
        return False


async def storage_answers(system: System) -> bool:
    try:
        async with httpx.AsyncClient(timeout=5) as http:
            endpoint = system.data.read_env()["GCS_ENDPOINT"]
            return (await http.get(f"{endpoint}/_internal/healthcheck")).status_code == 200
    except LOST:
        return False
