"""Real processes at their most talkative write none of the secrets that pass through them, nor any address."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from models.ads.rules import EventKind
from models.ads.tokens import TokenKeys
from ops.settings import parse_keys
from ops.stack.paths import REPOSITORY
from ops.stack.ports import PortBook
from streams.topics import NOTIFICATIONS
from tests.ad_stream import WorkerProcess, eventually
from tests.agent_site import Site, running_site
from tests.api_driver import PASSWORD, created, new_email, ok, registration
from tests.contracts.cast import fresh_claims
from tests.media_bucket import CONTENT, announcement, push_body
from tests.relay_process import relay

pytestmark = [pytest.mark.timeout(400), pytest.mark.slow]

KEYS = {name: f"{name.lower()}:{urlsafe_b64encode(os.urandom(32)).decode()}" for name in ("JWT_KEYS", "AD_TOKEN_KEYS")}
WEBHOOK_TOKEN = "webhook-token-of-this-test"
WRONG = "a wrong password that may be the right one elsewhere"


@pytest.fixture(scope="module")
def site(gcs: str) -> Iterator[Site]:
    with running_site() as found:
        found.environment.update(KEYS, GCS_ENDPOINT=gcs, GCS_WEBHOOK_TOKEN=WEBHOOK_TOKEN, LOG_LEVEL="debug")
        yield found


@contextmanager
def serving(site: Site, log: Path) -> Iterator[str]:
    """The address of a `packstream api` process."""
    with PortBook({}) as book:
        port = book.choose(["PORT"], last={})["PORT"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "ops.cli", "api", "--data", str(site.root)],
            cwd=REPOSITORY,
            env={**os.environ, **site.environment, "PORT": str(port)},
            stdout=out,
            stderr=out,
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(25)


class Visit:
    """What someone does, and the secrets that go back and forth meanwhile."""

    def __init__(self, client: httpx.AsyncClient, site: Site) -> None:
        self.client, self.site = client, site
        self.secrets: set[str] = {PASSWORD, WRONG, WEBHOOK_TOKEN, *(key.split(":")[1] for key in KEYS.values())}

    async def ready(self) -> object:
        try:
            return (await self.client.get("/readyz")).status_code == 200
        except httpx.TransportError as exc:
            return repr(exc)

    def keep(self, *secrets: str) -> None:
        self.secrets |= {secret for secret in secrets if secret}

    async def post(self, path: str, body: Any = None, **more: Any) -> httpx.Response:
        return await self.client.post(path, json=body, **more)

    async def sign_in_and_out(self) -> dict[str, str]:
        """Everything about sessions, right and wrong; the headers of whoever is signed in."""
        body = registration("vendor")
        made = created(await self.post("/api/v1/auth/register", body))
        self.keep(body["email"], *self._tokens(made))
        await self.post("/api/v1/auth/register", body)
        for password in (PASSWORD, WRONG):
            answer = await self.post("/api/v1/auth/login", {"email": body["email"], "password": password})
            self.keep(*self._tokens(answer.json().get("data", {})))
        await self.post("/api/v1/auth/login", {"email": [body["email"]], "password": {"is": PASSWORD}})
        await self.client.post("/api/v1/auth/login", content=f'{{"password": "{PASSWORD}"', headers=JSON)
        token = made["tokens"]["refresh_token"]
        for _ in range(2):
            data = ok(await self.post("/api/v1/auth/refresh", {"refresh_token": token}))
        self.keep(*self._tokens(data))
        await self.post("/api/v1/auth/refresh", {"refresh_token": token, "store_id": "x"})
        await self.client.get(f"/api/v1/users/me?access_token={token}", headers={"authorization": f"Bearer {token}"})
        return {"authorization": f"Bearer {data['tokens']['access_token']}"}

    async def invite(self, headers: dict[str, str]) -> None:
        email = new_email()
        body = {"email": email, "first_name": "A", "last_name": "B", "role": "manager"}
        token = created(await self.post("/api/v1/stores/me/users/invite", body, headers=headers))["invite_token"]
        self.keep(email, token)

        async def came() -> object:
            return len(self.site.mails_to(email)) == 1

        await eventually(came, timeout_s=90)
        assert token in self.site.mails_to(email)[0].as_string().replace("=\r\n", "").replace("=\n", "")
        use = {"token": token, "password": PASSWORD}
        self.keep(*self._tokens(ok(await self.post("/api/v1/auth/accept-invite", use))))
        await self.post("/api/v1/auth/accept-invite", use)

    async def upload(self, headers: dict[str, str]) -> None:
        made = created(await self.post("/api/v1/media", announcement("product"), headers=headers))
        upload = made["upload"]
        self.keep(signature_of(upload["url"]))
        await self.client.put(upload["url"], headers=upload["headers"], content=CONTENT["image/png"])
        name = urlsplit(upload["url"]).path.split("packstream-media/")[1]
        pushed = await self.post(f"/webhooks/gcs?token={WEBHOOK_TOKEN}", push_body(name))
        assert pushed.status_code == 204, pushed.text
        await self.post("/webhooks/gcs?token=wrong", push_body(name), headers=headers)
        shown = ok(await self.client.get(f"/api/v1/media/{made['media']['id']}/url", headers=headers))
        self.keep(signature_of(shown["url"]))

    async def see_ads(self, headers: dict[str, str]) -> None:
        keys = TokenKeys(parse_keys(KEYS["AD_TOKEN_KEYS"]))
        impression, click = (keys.sign(fresh_claims(kind)) for kind in (EventKind.IMPRESSION, EventKind.CLICK))
        self.keep(impression, click)
        await self.client.get("/ads/serve?placement=home", headers=headers)
        for token in (impression, impression, click, impression + "x"):
            await self.post("/ads/impression", {"token": token})
            await self.client.get("/ads/click", params={"token": token})
        for path in ("/unsubscribe", "/nothing", "/api/v1/nothing"):
            await self.client.get(path, params={"token": impression})
            await self.client.post(path, params={"token": impression})

    @staticmethod
    def _tokens(data: dict[str, Any]) -> tuple[str, ...]:
        tokens = data.get("tokens", {})
        return tuple(tokens.get(name, "") for name in ("access_token", "refresh_token"))


JSON = {"content-type": "application/json"}


def signature_of(url: str) -> str:
    return parse_qs(urlsplit(url).query)["X-Goog-Signature"][0]


async def test_no_process_writes_a_secret_or_an_address_to_its_log(site: Site, tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    worker = WorkerProcess(site.environment, site.root, arguments=("--agents", NOTIFICATIONS))
    with serving(site, log) as address, relay(site.settings, **site.environment) as publisher:
        worker.start()
        try:
            async with httpx.AsyncClient(base_url=address, timeout=30) as client:
                visit = Visit(client, site)
                await asyncio.gather(worker.ready(), eventually(visit.ready, timeout_s=90))
                headers = await visit.sign_in_and_out()
                await visit.invite(headers)
                await visit.upload(headers)
                await visit.see_ads(headers)
                assert (await client.post("/api/v1/auth/logout", headers=headers)).status_code == 204
        finally:
            worker.stop()
        publisher.terminate()
        logs = {"api": log.read_text(), "worker": worker.log.read_text(), "relay": publisher.log.read_text()}
    assert '"route":"/api/v1/auth/accept-invite"' in logs["api"]
    assert '"email_attempted"' in logs["worker"]
    assert len(visit.secrets) > 15
    for name, text in logs.items():
        told = [secret for secret in visit.secrets if secret in text]
        assert not told, f"{name}: {told}"
        assert not re.findall(r"[\w.+-]+@example\.test", text), name
        assert "eyJ" not in text, f"{name}: a token"
