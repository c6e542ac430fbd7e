"""Every setting of every process, read once from the environment and refused by name when wrong."""

from __future__ import annotations

import base64
import binascii
from functools import lru_cache
from typing import Annotated, Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key
from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

DEV_JWT_KEYS = "dev:" + base64.urlsafe_b64encode(b"packstream-dev-access-token-key!").decode()
DEV_AD_TOKEN_KEYS = "dev:" + base64.urlsafe_b64encode(b"packstream-dev-ad-token-key-32b!").decode()
LOCAL_WAREHOUSE_PROJECT = "packstream-local"

SigningKeys = dict[str, bytes]
"""``kid`` → secret, in the order given: the first signs, all verify."""


class SettingsError(SystemExit):
    """A setting is missing or wrong; the message names each one."""


class Settings(BaseSettings):
    """Names are the environment's, in lower case. Units are the last word of a name."""

    model_config = SettingsConfigDict(env_file=None, extra="ignore", frozen=True)

    packstream_env: Literal["dev", "test", "prod"] = Field("dev", description="what this process runs as")

    # Addresses
    database_url: str = Field(description="owner's URL: migrations, relay, agents, housekeeping")
    database_app_url: str | None = Field(None, description="the API's restricted role; default: DATABASE_URL")
    redis_url: str = Field("redis://127.0.0.1:6379/0", description="sessions, limits, ad gate")
    kafka_brokers: str = Field("127.0.0.1:9092", description="host:port, comma separated")
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    kafka_sasl_username: str | None = None
    kafka_sasl_password: str | None = Field(None, repr=False)
    kafka_replication_factor: int = Field(1, ge=1, le=9, description="of topics made by `packstream topics`")
    gcs_endpoint: str | None = Field(None, description="emulator; unset: Google's")
    gcs_bucket: str = Field("packstream-media", description="media bucket, of one database alone")
    gcs_signer_email: str | None = Field(None, description="account that signs URLs by IAM, where no key is at hand")
    gcs_webhook_audience: str | None = Field(None, description="of the identity tokens that Pub/Sub pushes with")
    gcs_webhook_email: str | None = Field(None, description="account that Pub/Sub pushes as; unset: any of Google's")
    bigquery_endpoint: str | None = Field(None, description="emulator; unset: Google's")
    bigquery_grpc_endpoint: str | None = Field(None, description="host:port at which the emulator takes rows")
    bigquery_project: str | None = Field(None, description="of the warehouse; neither it nor an emulator: none")
    bigquery_dataset: str = Field("packstream", pattern=r"^[A-Za-z0-9_]+$", description="of the warehouse")
    bigquery_location: str = Field("US", description="where the dataset lies")
    stripe_api_base: str | None = Field(None, description="the local fake; unset: Stripe's")
    stripe_price_id: str = Field(
        "price_packstream", description="of a vendor's subscription, made in Stripe's dashboard"
    )
    stripe_timeout_s: float = Field(8.0, gt=0, le=60, description="of one attempt to ask Stripe; there are three")
    smtp_url: str | None = Field(
        None, repr=False, description="smtp(s)://[user:password@]host[:port]; without it and a SendGrid key: logged"
    )
    sendgrid_api_base: str = Field("https://api.sendgrid.com", description="SendGrid's API")
    email_from: str = Field("packstream <no-reply@packstream.localhost>", description="the sender of all e-mail")
    email_timeout_s: float = Field(30.0, gt=0, le=300, description="of one attempt to send an e-mail")
    public_url: str = Field("http://127.0.0.1:8080", description="where links in e-mails lead")
    port: int = Field(8080, ge=1, le=65535, description="the API's port")
    host: str = Field("127.0.0.1", description="the address the API listens on")
    data_dir: str = Field(".packstream", description="RocksDB and other local state of this process")

    # Secrets
    gcs_credentials_json: str | None = Field(None, repr=False, description="service account key, or its path")
    gcs_webhook_token: str = Field("dev-gcs-webhook-token", repr=False, description="in dev and test")
    stripe_api_key: str | None = Field(None, repr=False, description="unset: no billing, but with the local fake")
    stripe_webhook_secret: str = Field(
        "whsec_dev", repr=False, description="comma separated while one replaces another"
    )
    sendgrid_api_key: str | None = Field(None, repr=False, description="set: e-mail goes through SendGrid")
    sendgrid_webhook_public_key: str = Field(
        "", description="base64, from SendGrid's mail settings; comma separated while one replaces another; empty: none"
    )
    jwt_keys: Annotated[SigningKeys, NoDecode] = Field(default=DEV_JWT_KEYS, validate_default=True, repr=False)
    ad_token_keys: Annotated[SigningKeys, NoDecode] = Field(
        default=DEV_AD_TOKEN_KEYS, validate_default=True, repr=False
    )

    # Clocks
    order_ttl_s: int = Field(86_400, ge=1, description="time a vendor has to decide")
    order_nudge_s: int = Field(43_200, ge=1, description="automatic nudge after")
    order_sweep_grace_s: int = Field(60, ge=0, description="overdue for longer, an order was missed by its timer")
    quote_ttl_s: int = Field(900, ge=1)
    access_token_ttl_s: int = Field(900, ge=1)
    refresh_token_ttl_s: int = Field(30 * 86_400, ge=60)
    ad_token_ttl_s: int = Field(1800, ge=1, description="how long an ad token counts after it was issued")
    ad_attribution_ttl_s: int = Field(30 * 86_400, ge=1, description="how long it attributes a checkout")
    clock_skew_s: int = Field(5, ge=0, le=300, description="how far the clocks of two hosts may differ")

    # Ads engine
    ad_shards: int = Field(12, ge=1, le=64, description="frozen at first start")
    ad_flush_ms: int = Field(10, ge=1, le=1000, description="collector: longest wait for a batch")
    ad_flush_events: int = Field(256, ge=1, le=4096, description="collector: events that make a batch")
    ad_queue_events_max: int = Field(8192, ge=1, description="collector: beyond this, 503 with Retry-After")
    ad_tick_s: float = Field(1.0, gt=0, le=30, description="time between the ticks of a shard")

    # Commerce
    checkout_implementation: Literal["one_transaction"] = Field(
        "one_transaction", description="which of models/checkout/implementations.py takes checkouts"
    )
    auto_assign: bool = True
    platform_fee_bp: int = Field(0, ge=0, le=10_000)

    # Limits and sizes
    rate_limit_scale: float = Field(1.0, gt=0, description="multiplies all limits but login's")
    body_bytes_max: int = Field(1 << 20, ge=1024)
    request_timeout_s: float = Field(30.0, gt=0)
    database_pool_size: int = Field(
        10,
        ge=1,
        le=200,
        description="connections of a process for sessions; the API has as many again for plain routes",
    )
    trusted_proxies: str = Field("", description="CIDRs, comma separated, whose X-Forwarded-For counts")
    cors_origins: str = Field("", description="comma separated; empty: none")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"

    # Relay
    relay_batch_rows: int = Field(4000, ge=1, le=10_000, description="of one cycle over the lanes it holds")
    relay_max_attempts: int = Field(8, ge=1, le=100, description="then the row becomes a dead letter")
    relay_sleep_min_ms: int = Field(5, ge=1)
    relay_sleep_max_ms: int = Field(200, ge=1)
    relay_metrics_port: int = Field(0, ge=0, le=65535, description="Prometheus; 0: none")
    relay_kind: Literal["packstream", "debezium"] = Field("packstream", description="who publishes the outbox")
    archive_ad_batches: bool = Field(False, description="keep ad batches in outbox_archive too")

    # Worker
    worker_session_s: float = Field(6.0, ge=1, description="Kafka session timeout of the agents")
    worker_metrics_port: int = Field(0, ge=0, le=65535, description="Prometheus; 0: none")

    # Media
    media_lease_s: float = Field(15.0, ge=1, le=600, description="after a worker's end, its media are taken up again")
    ffmpeg_program: str = Field("ffmpeg", description="name or path; not there: videos are not made smaller")
    ocr_provider: Literal["tesseract", "openai", "documentai", "none"] = Field(
        "tesseract", description="who reads scanned documents; tesseract not there: nobody"
    )
    tesseract_program: str = Field("tesseract", description="name or path")
    draft_reader: Literal["local", "openai"] = Field("local", description="who makes drafts of certificates' text")
    openai_api_key: str | None = Field(None, repr=False)
    openai_api_base: str = Field("https://api.openai.com", description="OpenAI's API")
    openai_model: str = Field("gpt-4.1-mini", description="must see pictures to be the OCR, and take JSON schemas")
    documentai_processor: str | None = Field(
        None,
        pattern=r"^projects/[^/]+/locations/[^/]+/processors/[^/]+(/processorVersions/[^/]+)?$",
        description="OCR processor of Document AI",
    )
    documentai_api_base: str | None = Field(None, description="unset: the endpoint of the processor's location")

    @field_validator("public_url")
    @classmethod
    def _web_address(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise ValueError("expected http://… or https://…")
        return url.rstrip("/")

    @field_validator("sendgrid_webhook_public_key")
    @classmethod
    def _public_keys(cls, text: str) -> str:
        public_keys(text)
        return text

    @field_validator("jwt_keys", "ad_token_keys", mode="before")
    @classmethod
    def _parse_keys(cls, text: object) -> object:
        return parse_keys(text) if isinstance(text, str) else text

    @model_validator(mode="after")
    def _prod_needs_its_own_secrets(self) -> Settings:
        if self.packstream_env == "prod":
            dev = {"jwt_keys": DEV_JWT_KEYS, "ad_token_keys": DEV_AD_TOKEN_KEYS}
            weak = [n for n, v in dev.items() if getattr(self, n) == parse_keys(v)]
            weak += [
                n
                for n, v in (("gcs_webhook_token", "dev-gcs-webhook-token"), ("stripe_webhook_secret", "whsec_dev"))
                if getattr(self, n) == v
            ]
            if weak:
                raise ValueError(
                    "set " + ", ".join(w.upper() for w in weak) + ": the built-in values are for development"
                )
        return self

    @model_validator(mode="after")
    def _readers_need_their_keys(self) -> Settings:
        if "openai" in (self.ocr_provider, self.draft_reader) and not self.openai_api_key:
            raise ValueError("set OPENAI_API_KEY: OCR_PROVIDER or DRAFT_READER is openai")
        if self.ocr_provider == "documentai" and self.documentai_processor is None:
            raise ValueError("set DOCUMENTAI_PROCESSOR: OCR_PROVIDER is documentai")
        return self

    @model_validator(mode="after")
    def _mail_needs_its_own_names(self) -> Settings:
        if self.packstream_env == "prod" and (self.smtp_url or self.sendgrid_api_key):
            fields = type(self).model_fields
            unset = [name for name in ("email_from", "public_url") if getattr(self, name) == fields[name].default]
            if unset:
                raise ValueError("set " + ", ".join(name.upper() for name in unset) + ": e-mails carry them")
        return self

    @model_validator(mode="after")
    def _billing_needs_its_own_price(self) -> Settings:
        default = type(self).model_fields["stripe_price_id"].default
        if self.packstream_env == "prod" and self.stripe_api_key and self.stripe_price_id == default:
            raise ValueError("set STRIPE_PRICE_ID: the built-in one is the local fake's")
        return self

    @property
    def sqlalchemy_url(self) -> str:
        return asyncpg_url(self.database_url)

    @property
    def sqlalchemy_app_url(self) -> str:
        return asyncpg_url(self.database_app_url or self.database_url)

    @property
    def has_warehouse(self) -> bool:
        """Whether analytics has somewhere to write."""
        return self.bigquery_endpoint is not None or self.bigquery_project is not None

    @property
    def warehouse_project(self) -> str:
        """The project of the warehouse; an emulator takes any."""
        return self.bigquery_project or LOCAL_WAREHOUSE_PROJECT

    @property
    def test_clock(self) -> bool:
        """Whether X-Now and /api/admin/ops/clock exist."""
        return self.packstream_env in ("dev", "test")


def parse_keys(text: str) -> SigningKeys:
    """``kid:base64url-secret,…`` → keys; ValueError when one is malformed or under 32 bytes."""
    keys: SigningKeys = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        kid, colon, secret = part.partition(":")
        if not kid or not colon:
            raise ValueError("expected kid:base64url-secret, comma separated")
        try:
            keys[kid] = base64.urlsafe_b64decode(secret + "=" * (-len(secret) % 4))
        except (binascii.Error, ValueError):
            raise ValueError(f"key {kid!r} is not base64url") from None
        if len(keys[kid]) < 32:
            raise ValueError(f"key {kid!r} is shorter than 32 bytes")
    if not keys:
        raise ValueError("at least one key is needed")
    return keys


@lru_cache(maxsize=4)
def public_keys(text: str) -> tuple[EllipticCurvePublicKey, ...]:
    """ECDSA keys, each the base64 of its DER, comma separated; ValueError when one is something else."""
    keys = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        try:
            key = load_der_public_key(base64.b64decode(part, validate=True))
        except (ValueError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, EllipticCurvePublicKey):
            raise ValueError("expected ECDSA public keys as base64, comma separated")
        keys.append(key)
    return tuple(keys)


def asyncpg_url(url: str) -> str:
    """Heroku's and libpq's URLs as SQLAlchemy's asyncpg dialect wants them."""
    for scheme in ("postgres://", "postgresql://"):
        if url.startswith(scheme):
            return "postgresql+asyncpg://" + url.removeprefix(scheme)
    return url


def load_settings() -> Settings:
    """The environment's settings; SettingsError naming every wrong one."""
    try:
        return Settings()  # fields come from the environment
    except ValidationError as exc:
        lines = [f"  {'.'.join(map(str, e['loc'])).upper() or 'settings'}: {e['msg']}" for e in exc.errors()]
        raise SettingsError("packstream: wrong settings\n" + "\n".join(lines)) from None


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The process's settings."""
    return load_settings()
