"""Signed links by which someone, signed in or not, ends the e-mails about a store that are not essential."""

from __future__ import annotations

import binascii
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import Final, NamedTuple
from uuid import UUID

LABEL: Final = b"packstream unsubscribe links"  #: what the key is for: other labels give other keys
MAC_BYTES: Final = 16
TOKEN_BYTES: Final = 32 + MAC_BYTES


class Subscription(NamedTuple):
    """What ends: e-mails to a user about a store."""

    user_id: UUID
    store_id: UUID


class UnsubscribeTokens:
    """Signs with the first of `keys`, verifies with all of them. A token has no end: old mails keep their way out."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = [hmac.digest(key, LABEL, "sha256") for key in keys.values()]

    def sign(self, subscription: Subscription) -> str:
        body = subscription.user_id.bytes + subscription.store_id.bytes
        return urlsafe_b64encode(body + _mac(self._keys[0], body)).decode()

    def read(self, token: str) -> Subscription | None:
        """None for a token that was not signed here."""
        try:
            raw = urlsafe_b64decode(token)
        except (binascii.Error, ValueError):
            return None
        body, mac = raw[:-MAC_BYTES], raw[-MAC_BYTES:]
        if len(raw) != TOKEN_BYTES or not any(hmac.compare_digest(mac, _mac(key, body)) for key in self._keys):
            return None
        return Subscription(UUID(bytes=body[:16]), UUID(bytes=body[16:]))


def _mac(key: bytes, body: bytes) -> bytes:
    return hmac.digest(key, body, "sha256")[:MAC_BYTES]
