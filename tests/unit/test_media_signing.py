"""Signed URLs, checked as Google would: the canonical request is put together again and verified with the key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from models.errors import Unavailable
from models.media.gateway import GcsStore, ReadUrls, SignedUrl
from ops.object_store import local_key_file, object_store
from ops.settings import Settings

NAME = "0192/0193/original"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(packstream_env="test", database_url="postgresql://x", data_dir=str(tmp_path_factory.mktemp("data")))


@pytest.fixture
def store(settings: Settings) -> Iterator[GcsStore]:
    store = object_store(settings)
    yield store
    store.close()


def public_key(settings: Settings) -> rsa.RSAPublicKey:
    info = json.loads(local_key_file(Path(settings.data_dir) / "gcs").read_text())
    key = serialization.load_pem_private_key(info["private_key"].encode(), password=None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key.public_key()


def verify(settings: Settings, method: str, url: str, headers: dict[str, str]) -> None:
    """InvalidSignature unless the request is the one that was signed (V4, GOOG4-RSA-SHA256)."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    signature = bytes.fromhex(query.pop("X-Goog-Signature"))
    assert query["X-Goog-Algorithm"] == "GOOG4-RSA-SHA256"
    sent = {name.lower(): value for name, value in headers.items()} | {"host": parts.netloc}
    signed = query["X-Goog-SignedHeaders"].split(";")
    canonical = "\n".join(
        [
            method,
            quote(unquote(parts.path), safe="/~"),
            "&".join(f"{quote(k, safe='~')}={quote(v, safe='~')}" for k, v in sorted(query.items())),
            *(f"{name}:{sent.get(name, '')}" for name in signed),
            "",
            query["X-Goog-SignedHeaders"],
            "UNSIGNED-PAYLOAD",
        ]
    )
    scope = query["X-Goog-Credential"].split("/", 1)[1]
    text = f"GOOG4-RSA-SHA256\n{query['X-Goog-Date']}\n{scope}\n{sha256(canonical.encode()).hexdigest()}"
    public_key(settings).verify(signature, text.encode(), padding.PKCS1v15(), hashes.SHA256())


async def test_upload_binds_type_size_and_first_write(store: GcsStore, settings: Settings) -> None:
    before = datetime.now(UTC)
    upload = await store.sign_upload(NAME, content_type="image/png", size_bytes=4321)
    verify(settings, "PUT", upload.url, upload.headers)
    query = dict(parse_qsl(urlsplit(upload.url).query))
    assert query["X-Goog-SignedHeaders"] == "content-type;host;x-goog-content-length-range;x-goog-if-generation-match"
    assert query["X-Goog-Expires"] == "900"
    assert upload.headers["x-goog-content-length-range"] == "4321,4321"
    assert timedelta(minutes=14) < upload.expires_at - before <= timedelta(minutes=15)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Content-Type", "text/html"),
        ("x-goog-content-length-range", "0,99999999"),
        ("x-goog-if-generation-match", "17"),
        ("x-goog-if-generation-match", ""),
    ],
)
async def test_upload_with_another_header_is_not_signed(
    store: GcsStore, settings: Settings, header: str, value: str
) -> None:
    upload = await store.sign_upload(NAME, content_type="image/png", size_bytes=4321)
    with pytest.raises(InvalidSignature):
        verify(settings, "PUT", upload.url, upload.headers | {header: value})


async def test_no_other_object_method_or_time_is_signed(store: GcsStore, settings: Settings) -> None:
    url = (await store.sign_read(NAME, ttl=timedelta(hours=1))).url
    verify(settings, "GET", url, {})
    for method, bent in (
        ("PUT", url),
        ("DELETE", url),
        ("GET", url.replace("0193", "0194")),
        ("GET", url.replace("Expires=3600", "Expires=604800")),
    ):
        with pytest.raises(InvalidSignature):
            verify(settings, method, bent, {})


async def test_without_storage_urls_are_signed_and_nothing_is_asked(store: GcsStore) -> None:
    for call in (store.facts(NAME), store.delete(NAME), store.page("")):
        with pytest.raises(Unavailable):
            await call


def test_key_is_made_once_whoever_comes_first(tmp_path: Path) -> None:
    first = local_key_file(tmp_path / "gcs").read_text()
    assert local_key_file(tmp_path / "gcs").read_text() == first
    assert [path.name for path in (tmp_path / "gcs").iterdir()] == ["credentials.json"]


class Counting:
    """Signs by counting."""

    bucket = "b"

    def __init__(self, life: timedelta) -> None:
        self.life = life
        self.signed = 0

    async def sign_read(self, name: str, *, ttl: timedelta) -> SignedUrl:
        self.signed += 1
        return SignedUrl(f"{name}#{self.signed}", datetime.now(UTC) + self.life)


async def test_read_url_is_kept_while_half_its_life_is_left() -> None:
    signer = Counting(timedelta(hours=1))
    urls = ReadUrls(signer, timedelta(hours=1))  # type: ignore[arg-type]  # all that it uses
    assert await urls.urls({1: "a", 2: "b"}) == {1: "a#1", 2: "b#2"}
    assert await urls.urls({1: "b", 2: "a"}) == {1: "b#2", 2: "a#1"}
    old = ReadUrls(Counting(timedelta(minutes=29)), timedelta(hours=1))  # type: ignore[arg-type]
    assert [(await old.url("a")).url for _ in range(2)] == ["a#1", "a#2"]


async def test_kept_read_urls_have_a_bound() -> None:
    signer = Counting(timedelta(hours=1))
    urls = ReadUrls(signer, timedelta(hours=1), kept_max=2)  # type: ignore[arg-type]
    for name in "abca":
        await urls.url(name)
    assert signer.signed == 4
