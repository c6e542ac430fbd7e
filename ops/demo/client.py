"""The public HTTP routes as the demo uses them: a 503 is tried again, an unexpected answer is an error."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any, Final, NamedTuple, Self
from uuid import uuid4

import aiohttp
import orjson
from yarl import URL

ATTEMPTS: Final = 6
RETRY_S: Final = 0.2  #: before the second attempt; doubles
UPLOADED_POLL_S: Final = 0.1
UPLOADED_WITHIN_S: Final = 30.0  #: an upload is known to the API, by the storage's own news
SUBSCRIBED_POLL_S: Final = 0.1
SUBSCRIBED_WITHIN_S: Final = 30.0  #: a subscription is active, by Stripe's own news
TIMEOUT_S: Final = 30.0
TRY_AGAIN: Final = (429, 503)
KEPT_PATH_CHARS: Final = 64
JSON: Final = {"Content-Type": "application/json"}


class UnexpectedAnswer(Exception):
    """The API answered what this request should never get, or nothing at all."""


class Answer(NamedTuple):
    """What came back, and at which attempt."""

    status: int
    body: dict[str, Any]
    attempt: int


class Api:
    """A client of one API. Redirects are not followed."""

    def __init__(self, base_url: str, *, connections: int) -> None:
        self._base_url = base_url
        self._urls: dict[str, URL] = {}
        self._connections = connections
        self._token = ""

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=TIMEOUT_S),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        )
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._http.close()

    async def become_admin(self, *, email: str, password: str) -> None:
        """Register an administrator, who moves the clock and looks at the streams from now on."""
        account = {"email": email, "password": password}
        body = await self._data("POST", "/api/admin/auth/register", 201, json=account)
        self._token = bearer(body)

    async def register(self, *, email: str, password: str, name: str, kind: str, state: str) -> tuple[str, str]:
        """A user with a store: the store's id, and the Authorization header of its owner."""
        address = {"line1": "1 Market Street", "city": "Springfield", "postal_code": "00001", "country": "US"}
        store = {"name": name, "type": kind, "address": {**address, "state": state}}
        person = {"email": email, "password": password, "first_name": "Demo", "last_name": name}
        body = await self._data("POST", "/api/v1/auth/register", 201, json={**person, "store": store})
        return body["store"]["id"], bearer(body)

    async def sign_in(self, *, email: str, password: str) -> str:
        """The Authorization header of somebody without a store."""
        account = {"email": email, "password": password}
        return bearer(await self._data("POST", "/api/v1/auth/login", 200, json=account))

    async def act(self, token: str, path: str, now: datetime, body: dict[str, Any] | None) -> dict[str, Any]:
        """What somebody does to an order at a time; the order."""
        options = {} if body is None else {"json": body}
        headers = _once(token) | {"X-Now": now.isoformat()}
        return await self._data("POST", path, 200, headers=headers, **options)

    async def as_admin(
        self, method: str, path: str, status: int, *, now: datetime | None = None, **options: Any
    ) -> dict[str, Any]:
        """What an administrator does, at a time if it is given."""
        headers = _once(self._token) | ({"X-Now": now.isoformat()} if now else {})
        return await self._data(method, path, status, headers=headers, **options)

    async def pages(self, token: str | None, path: str) -> list[dict[str, Any]]:
        """A whole list, page by page, as somebody or (None) as the administrator. `path` has a query."""
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            answer = await self._send("GET", path + cursor, headers={"Authorization": token or self._token})
            if answer.status != 200:
                raise UnexpectedAnswer(f"GET {path}: {answer.status} {answer.body}")
            found += answer.body["data"]
            if answer.body["meta"]["next_cursor"] is None:
                return found
            cursor = f"&cursor={answer.body['meta']['next_cursor']}"

    async def dashboard(self, token: str, path: str) -> dict[str, Any]:
        """A page of a vendor's analytics."""
        headers = {"Authorization": token}
        return await self._data("GET", f"/api/v1/vendor/analytics/{path}", 200, headers=headers)

    async def create_ad(self, token: str, ad: dict[str, Any]) -> str:
        """A draft; its id."""
        body = await self._data("POST", "/api/v1/vendor/ads", 201, json=ad, headers={"Authorization": token})
        return str(body["id"])

    async def activate_ad(self, token: str, ad_id: str) -> None:
        """From now on it is served."""
        path = f"/api/v1/vendor/ads/{ad_id}"
        await self._data("PATCH", path, 200, json={"status": "active"}, headers={"Authorization": token})

    async def try_to_activate(self, token: str, ad_id: str) -> str:
        """What activating the ad gets: the status, and the problem's code where it is one."""
        path = f"/api/v1/vendor/ads/{ad_id}"
        answer = await self._send("PATCH", path, json={"status": "active"}, headers={"Authorization": token})
        return f"{answer.status} {answer.body.get('code', '')}".strip()

    async def create_product(self, token: str, product: dict[str, Any]) -> str:
        """On sale at once; its id. Nothing of it is in stock yet."""
        body = await self._data("POST", "/api/v1/vendor/products", 201, json=product, headers=_once(token))
        return str(body["id"])

    async def set_on_hand(self, token: str, product_id: str, on_hand: int) -> None:
        """So much is in stock."""
        path, stock = f"/api/v1/inventory/{product_id}", {"on_hand": on_hand}
        await self._data("PUT", path, 200, json=stock, headers=_once(token))

    async def quote(self, token: str, wanted: dict[str, Any], *, now: str) -> dict[str, Any]:
        """The cart that the server makes of it."""
        return await self._data("POST", "/api/v1/cart", 200, json=wanted, headers=_once(token) | {"X-Now": now})

    async def check_out(self, token: str, order: dict[str, Any], *, now: str) -> dict[str, Any]:
        """The orders that a cart becomes."""
        return await self._data("POST", "/api/v1/checkout", 201, json=order, headers=_once(token) | {"X-Now": now})

    async def upload(self, token: str, kind: str, file_name: str, content: bytes) -> str:
        """A PDF through a signed URL; returns its media id once the storage has told the API that it is there."""
        media = {"kind": kind, "file_name": file_name, "content_type": "application/pdf", "size_bytes": len(content)}
        made = await self._data("POST", "/api/v1/media", 201, json=media, headers=_once(token))
        upload = made["upload"]
        url = URL(upload["url"], encoded=True)
        async with self._http.request(upload["method"], url, data=content, headers=upload["headers"]) as response:
            if response.status != 200:
                raise UnexpectedAnswer(f"upload of {file_name}: {response.status} {await response.text()}")
        media_id = str(made["media"]["id"])
        await self._uploaded(token, media_id)
        return media_id

    async def _uploaded(self, token: str, media_id: str) -> None:
        path = f"/api/v1/media/{media_id}"
        for _ in range(round(UPLOADED_WITHIN_S / UPLOADED_POLL_S)):
            status = (await self._data("GET", path, 200, headers={"Authorization": token}))["status"]
            if status not in ("pending", "failed"):
                return
            if status == "failed":
                break
            await asyncio.sleep(UPLOADED_POLL_S)
        raise UnexpectedAnswer(f"GET {path}: {status} after the upload")

    async def submit_license(self, token: str, application: dict[str, str]) -> str:
        """A licence that waits for a decision; its id."""
        body = await self._data("POST", "/api/v1/licenses", 201, json=application, headers=_once(token))
        return str(body["id"])

    async def subscribe(self, token: str) -> None:
        """As a vendor, with Stripe's test card."""
        path, card = "/api/v1/vendor/subscription", {"payment_method_id": "pm_card_visa"}
        await self._data("POST", path, 201, json=card, headers=_once(token))

    async def subscribed(self, token: str) -> None:
        """Wait until Stripe has told the API that the vendor's subscription is active."""
        path = "/api/v1/vendor/subscription"
        for _ in range(round(SUBSCRIBED_WITHIN_S / SUBSCRIBED_POLL_S)):
            found = await self._data("GET", path, 200, headers={"Authorization": token})
            if found["status"] == "active":
                return
            await asyncio.sleep(SUBSCRIBED_POLL_S)
        raise UnexpectedAnswer(f"GET {path}: {found['status']} long after subscribing")

    async def pending_licenses(self) -> list[str]:
        """The ids in the administrator's queue, the oldest first."""
        rows = await self.pages(None, "/api/admin/licenses?status=pending&limit=100")
        return [row["id"] for row in rows]

    async def approve_license(self, license_id: str) -> str:
        """An administrator's decision; the licence's status."""
        path, decision = f"/api/admin/licenses/{license_id}/decision", {"decision": "approve"}
        body = await self._data("POST", path, 200, json=decision, headers=_once(self._token))
        return str(body["status"])

    async def set_clock(self, now: datetime) -> None:
        """Move the logical clock of every process."""
        path = "/api/admin/ops/clock"
        await self._data("POST", path, 200, json={"now": now.isoformat()}, headers={"Authorization": self._token})

    async def overview(self) -> dict[str, Any]:
        """What operators see of the streams."""
        return await self._data("GET", "/api/admin/ops/overview", 200, headers={"Authorization": self._token})

    async def serve(self, token: str, placement: str, *, now: str) -> dict[str, Any]:
        """A page view: the ad for it with its tokens, or the reason why there is none."""
        headers = {"Authorization": token, "X-Now": now}
        return await self._data("GET", f"/ads/serve?placement={placement}", 200, headers=headers)

    async def impression(self, token: str, *, now: str) -> None:
        """Report that the ad was shown; returns when it is counted, once."""
        headers = {"X-Now": now, **JSON}
        answer = await self._send("POST", "/ads/impression", data=orjson.dumps({"token": token}), headers=headers)
        status = answer.body.get("data", {}).get("status")
        if answer.status != 202 or (status != "accepted" and not (status == "duplicate" and answer.attempt > 1)):
            raise UnexpectedAnswer(f"POST /ads/impression: {answer.status} {answer.body}")

    async def click(self, url: str, *, now: str) -> None:
        """Follow a click's link as far as the redirect."""
        answer = await self._send("GET", url, headers={"X-Now": now})
        if answer.status != 302:
            raise UnexpectedAnswer(f"GET /ads/click: {answer.status} {answer.body}")

    async def metric(self, name: str, label: str) -> int:
        """One labelled counter of the API's metrics; 0 when it is not there."""
        async with self._http.get(self._url("/metrics")) as response:
            text = await response.text()
        lines = (line.rpartition(" ") for line in text.splitlines())
        return sum(int(float(value)) for key, _, value in lines if key.startswith(name + "{") and f'"{label}"' in key)

    async def _data(self, method: str, path: str, status: int, **options: Any) -> dict[str, Any]:
        """The answer's `data`; UnexpectedAnswer unless the status is the one expected."""
        answer = await self._send(method, path, **options)
        if answer.status != status:
            raise UnexpectedAnswer(f"{method} {path}: {answer.status} {answer.body}")
        data: dict[str, Any] = answer.body["data"]
        return data

    def _url(self, path: str) -> URL:
        """Parsed once; paths with a token are not kept."""
        if len(path) > KEPT_PATH_CHARS:
            return URL(self._base_url + path, encoded=True)
        if path not in self._urls:
            self._urls[path] = URL(self._base_url + path, encoded=True)
        return self._urls[path]

    async def _send(self, method: str, path: str, **options: Any) -> Answer:
        """Send until there is a final answer. A 503 and a lost connection leave nothing that a repeat would double:
        a serve's reservation lapses, an impression is counted once, a second draft is never activated."""
        url = self._url(path)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with self._http.request(method, url, allow_redirects=False, **options) as response:
                    body = await response.read()
            except (aiohttp.ClientConnectionError, TimeoutError) as exc:
                if attempt == ATTEMPTS:
                    raise UnexpectedAnswer(f"{method} {path}: {exc!r}") from exc
            else:
                if response.status not in TRY_AGAIN or attempt == ATTEMPTS:
                    return Answer(response.status, orjson.loads(body) if body else {}, attempt)
            await asyncio.sleep(RETRY_S * 2 ** (attempt - 1))
        raise AssertionError("the last attempt returns or raises")


def _once(token: str) -> dict[str, str]:
    """The headers of a request whose repeats have no effect of their own."""
    return {"Authorization": token, "Idempotency-Key": str(uuid4())}


def bearer(body: dict[str, Any]) -> str:
    """The Authorization header that an answer with tokens leads to."""
    return f"Bearer {body['tokens']['access_token']}"
