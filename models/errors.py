"""Every error that a caller may see, in one hierarchy. The API has one handler that maps them (API.md, Conventions)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple


class FieldError(NamedTuple):
    """One entry of a problem's ``errors``."""

    field: str
    code: str
    message: str


class PackstreamError(Exception):
    """Base of all expected failures: a status, a `code` for programs, a `detail` for people."""

    status: ClassVar[int] = 500
    code: str = "internal_error"
    title: ClassVar[str] = "Internal error"
    retry_after_s: int | None = None

    def __init__(self, detail: str = "", *, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.errors = tuple(errors)


class BadRequest(PackstreamError):
    status, code, title = 400, "bad_request", "Bad request"


class IdempotencyKeyMissing(BadRequest):
    code, title = "idempotency_key_missing", "This request needs an Idempotency-Key header"


class InvalidToken(BadRequest):
    """An ad token that is forged, expired or of the wrong kind."""

    code, title = "invalid_token", "The ad token is not valid"


class InvalidSignature(BadRequest):
    code, title = "invalid_signature", "The webhook's signature is not valid"


class Unauthenticated(PackstreamError):
    status, code, title = 401, "unauthenticated", "Sign in to use this"


class TokenExpired(Unauthenticated):
    code, title = "token_expired", "The access token has expired: refresh it"


class SessionRevoked(Unauthenticated):
    code, title = "session_revoked", "This session has ended: sign in again"


class InvalidCredentials(Unauthenticated):
    code, title = "invalid_credentials", "E-mail or password is wrong"


class Forbidden(PackstreamError):
    status, code, title = 403, "forbidden", "Your role does not allow this"


class ActiveStoreRequired(Forbidden):
    code, title = "active_store_required", "Choose a store first: refresh with a store_id"


class VendorNotEligible(Forbidden):
    code, title = "vendor_not_eligible", "The vendor needs a verified licence and an active subscription"


class NotFound(PackstreamError):
    status, code, title = 404, "not_found", "There is no such thing, or it is not yours"


class Conflict(PackstreamError):
    status, code, title = 409, "state_conflict", "The present state does not allow this"


class StateConflict(Conflict):
    """A transition that the state machine does not have."""

    def __init__(self, *, current: str, action: str) -> None:
        super().__init__(f"{action} is not possible while the status is {current}")


class AlreadyExists(Conflict):
    code, title = "already_exists", "It exists already"


class MediaProtected(Conflict):
    code, title = "media_protected", "The media are still needed and cannot be deleted"


class LicenseNotExpired(Conflict):
    code, title = "license_not_expired", "Only an expired licence can be deleted"


class CartNotActive(Conflict):
    code, title = "cart_not_active", "The cart's quote is no longer in force"


class NoOrderableItems(Conflict):
    """Of no line of a cart anything can be ordered; `errors` says why of each."""

    code, title = "no_orderable_items", "Nothing in this cart can be ordered"


class IdempotencyInProgress(Conflict):
    code, title = "idempotency_in_progress", "A request with this Idempotency-Key is under way: try again"
    retry_after_s = 1


class PayloadTooLarge(PackstreamError):
    status, code, title = 413, "payload_too_large", "The body is larger than 1 MiB"


class UnsupportedMediaType(PackstreamError):
    status, code, title = 415, "unsupported_media_type", "Send application/json"


class ValidationFailed(PackstreamError):
    status, code, title = 422, "validation_failed", "The request is not valid"


class IdempotencyKeyReused(PackstreamError):
    status, code, title = 422, "idempotency_key_reused", "This Idempotency-Key was used with another payload"


class RateLimited(PackstreamError):
    status, code, title = 429, "rate_limited", "Too many requests"

    def __init__(self, detail: str = "", *, retry_after_s: int = 1) -> None:
        super().__init__(detail)
        self.retry_after_s = max(1, retry_after_s)


class Unavailable(PackstreamError):
    """A part that this request needs does not answer, or a queue is full."""

    status, code, title = 503, "unavailable", "Try again in a moment"

    def __init__(self, detail: str = "", *, retry_after_s: int = 1) -> None:
        super().__init__(detail)
        self.retry_after_s = max(1, retry_after_s)
