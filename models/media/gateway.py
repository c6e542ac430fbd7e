"""The door to Google Cloud Storage, and to its emulator: signed URLs, an object's facts, deletion, listing.

Google's client is synchronous, so each call runs in a thread, with a deadline. Signing with a service account's key is
local; without a key on the machine, google.auth's IAM signer signs over the network (signBlob), just the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import requests
from google.api_core.exceptions import GoogleAPIError, NotFound, RequestRangeNotSatisfiable
from google.auth.exceptions import GoogleAuthError
from google.cloud.storage import Client
from google.cloud.storage.retry import DEFAULT_RETRY

from models.errors import Unavailable
from models.media.rules import HEAD_BYTES, READ_TTL, UPLOAD_TTL, ObjectFacts, Removed

DEADLINE_S: Final = 5.0  #: of one call, its retries included
CONTENT_DEADLINE_S: Final = 30.0  #: of one that carries an object's content
THREADS: Final = 8
PAGE_OBJECTS: Final = 1000
READ_URLS_KEPT: Final = 20_000

T = TypeVar("T")
K = TypeVar("K")

NO_STORE: Final = "no media storage is configured: set GCS_CREDENTIALS_JSON"


class SignedUrl(NamedTuple):
    """`expires_at` is on the wall clock, as the storage is."""

    url: str
    expires_at: datetime


class Upload(NamedTuple):
    """A request that the client is to make, with exactly these headers."""

    url: str
    headers: dict[str, str]
    expires_at: datetime


class Listed(NamedTuple):
    """An object in a listing."""

    name: str
    created_at: datetime


class ObjectPage(NamedTuple):
    """A page of a listing in the order of names; `next_token` is None on the last."""

    objects: list[Listed]
    next_token: str | None


class ObjectStore(Protocol):
    """What media need of a bucket. All raise Unavailable when the storage does not answer."""

    bucket: str

    async def sign_upload(self, name: str, *, content_type: str, size_bytes: int) -> Upload: ...

    async def sign_read(self, name: str, *, ttl: timedelta) -> SignedUrl: ...

    async def facts(self, name: str) -> ObjectFacts | None:
        """None when there is no such object."""

    async def read(self, name: str) -> bytes | None:
        """An object's content; None when there is no such object."""

    async def put(self, name: str, content: bytes, *, content_type: str) -> None:
        """Make the object, or make it anew."""

    async def delete(self, name: str) -> bool:
        """False when there was none."""

    async def page(self, prefix: str, token: str | None = None) -> ObjectPage: ...


class NoStore:
    """Where no storage is configured: everything but media works, and media say so."""

    def __init__(self, bucket: str) -> None:
        self.bucket = bucket

    def close(self) -> None:
        """Nothing is open."""

    async def sign_upload(self, name: str, *, content_type: str, size_bytes: int) -> Upload:
        raise Unavailable(NO_STORE)

    async def sign_read(self, name: str, *, ttl: timedelta) -> SignedUrl:
        raise Unavailable(NO_STORE)

    async def facts(self, name: str) -> ObjectFacts | None:
        raise Unavailable(NO_STORE)

    async def read(self, name: str) -> bytes | None:
        raise Unavailable(NO_STORE)

    async def put(self, name: str, content: bytes, *, content_type: str) -> None:
        raise Unavailable(NO_STORE)

    async def delete(self, name: str) -> bool:
        raise Unavailable(NO_STORE)

    async def page(self, prefix: str, token: str | None = None) -> ObjectPage:
        raise Unavailable(NO_STORE)


class GcsStore:
    """A bucket. `signer` signs URLs (google.auth's Signing); `online` False: no storage is configured, URLs only."""

    def __init__(self, client: Client, bucket: str, *, signer: Any, online: bool = True) -> None:
        self.bucket = bucket
        self._client = client
        self._bucket = client.bucket(bucket)
        self._signer = signer
        self._online = online
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="gcs")

    def close(self) -> None:
        """Let calls under way end, and close."""
        self._threads.shutdown(wait=True)
        self._client.close()

    async def sign_upload(self, name: str, *, content_type: str, size_bytes: int) -> Upload:
        """A PUT of exactly this type and size, which makes the object once and never replaces it."""
        headers = {
            "Content-Type": content_type,
            "x-goog-content-length-range": f"{size_bytes},{size_bytes}",
            "x-goog-if-generation-match": "0",
        }
        url, expires_at = await self._sign(name, UPLOAD_TTL, method="PUT", headers=dict(headers))
        return Upload(url, headers, expires_at)

    async def sign_read(self, name: str, *, ttl: timedelta) -> SignedUrl:
        """A GET. It answers with the type that the upload had, which was checked."""
        return await self._sign(name, ttl, method="GET")

    async def _sign(self, name: str, ttl: timedelta, **options: Any) -> SignedUrl:
        expires_at = datetime.now(UTC).replace(microsecond=0) + ttl
        blob = self._bucket.blob(name)

        def sign() -> str:
            return str(blob.generate_signed_url(version="v4", expiration=ttl, credentials=self._signer, **options))

        return SignedUrl(await self._in_thread(sign), expires_at)

    async def facts(self, name: str) -> ObjectFacts | None:
        """What the object is now: metadata and first bytes are of the same generation."""

        def look() -> ObjectFacts | None:
            blob = self._bucket.get_blob(name, timeout=DEADLINE_S, retry=_RETRY)
            if blob is None:
                return None
            return ObjectFacts(blob.size or 0, blob.content_type or "", int(blob.generation), _head(blob))

        return await self._call(look, missing=None)

    async def read(self, name: str) -> bytes | None:
        """What the object holds now."""

        def read() -> bytes | None:
            return bytes(self._bucket.blob(name).download_as_bytes(timeout=CONTENT_DEADLINE_S, retry=_RETRY))

        return await self._call(read, missing=None)

    async def put(self, name: str, content: bytes, *, content_type: str) -> None:
        """In one request: an object is there whole, or not."""

        def put() -> bool:
            blob = self._bucket.blob(name)
            blob.upload_from_string(content, content_type=content_type, timeout=CONTENT_DEADLINE_S, retry=_RETRY)
            return True

        if not await self._call(put, missing=False):
            raise Unavailable("there is no such bucket")

    async def delete(self, name: str) -> bool:
        """Delete whatever generation there is."""

        def delete() -> bool:
            self._bucket.blob(name).delete(timeout=DEADLINE_S, retry=_RETRY)
            return True

        return await self._call(delete, missing=False)

    async def page(self, prefix: str, token: str | None = None) -> ObjectPage:
        """One page of the objects whose names begin with `prefix`."""

        def read() -> ObjectPage:
            listing = self._client.list_blobs(
                self._bucket,
                prefix=prefix,
                page_token=token,
                page_size=PAGE_OBJECTS,
                fields="items(name,timeCreated),nextPageToken",
                timeout=DEADLINE_S,
                retry=_RETRY,
            )
            objects = [Listed(blob.name, blob.time_created) for blob in next(listing.pages, ())]
            return ObjectPage(objects, listing.next_page_token)

        return await self._call(read, missing=ObjectPage([], None))

    async def _call(self, work: Callable[[], T], *, missing: T) -> T:
        if not self._online:
            raise Unavailable("no object storage is configured")
        try:
            return await self._in_thread(work)
        except NotFound:
            return missing

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except NotFound:
            raise
        except (GoogleAPIError, GoogleAuthError, requests.RequestException) as exc:
            raise Unavailable("the object storage does not answer") from exc


_RETRY: Final = DEFAULT_RETRY.with_timeout(DEADLINE_S)


def _head(blob: Any) -> bytes:
    """The first bytes of the very generation that was looked at."""
    try:
        head = blob.download_as_bytes(
            start=0,
            end=HEAD_BYTES - 1,
            if_generation_match=blob.generation,
            checksum=None,
            timeout=DEADLINE_S,
            retry=_RETRY,
        )
    except RequestRangeNotSatisfiable:  # it is empty
        return b""
    return bytes(head[:HEAD_BYTES])


async def remove_objects(store: ObjectStore, names: Iterable[str], *, prefix: str) -> Removed:
    """Delete the objects named and all others under the prefix. What is not there counts as done."""
    wanted = set(names)
    token: str | None = None
    while True:
        page = await store.page(prefix, token)
        wanted.update(listed.name for listed in page.objects)
        token = page.next_token
        if token is None:
            break
    deleted = [await store.delete(name) for name in sorted(wanted)]
    return Removed(sum(deleted), len(deleted) - sum(deleted))


class ReadUrls:
    """Signed read URLs, each kept and given again while more than half of its life is left: lists sign nothing anew."""

    def __init__(self, store: ObjectStore, ttl: timedelta = READ_TTL, *, kept_max: int = READ_URLS_KEPT) -> None:
        self._store = store
        self._ttl = ttl
        self._kept_max = kept_max
        self._kept: dict[str, SignedUrl] = {}

    def kept(self, name: str) -> SignedUrl | None:
        """The URL that was signed before, if it is still good for long enough."""
        kept = self._kept.get(name)
        return kept if kept is not None and kept.expires_at - datetime.now(UTC) > self._ttl / 2 else None

    async def url(self, name: str) -> SignedUrl:
        """A URL for the object; it need not exist."""
        kept = self.kept(name)
        if kept is None:
            kept = await self._store.sign_read(name, ttl=self._ttl)
            if len(self._kept) >= self._kept_max:
                self._kept.clear()
            self._kept[name] = kept
        return kept

    async def urls(self, names: Mapping[K, str]) -> dict[K, str]:
        """URLs by the same keys, of object names."""
        return {key: (await self.url(name)).url for key, name in names.items()}
