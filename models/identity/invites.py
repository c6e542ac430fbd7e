"""The tokens of invites. They are made from the invite's id and a key, so that no event and no row has to hold one."""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Final
from uuid import UUID

LABEL: Final = b"packstream invite tokens"  #: what the key is for: other labels give other keys


class InviteTokens:
    """Makes tokens with the first of `keys`, and finds those that any of them made."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = [hmac.digest(key, LABEL, "sha256") for key in keys.values()]

    def make(self, invite_id: UUID) -> str:
        """The token of an invite, as of now."""
        return _token(self._keys[0], invite_id)

    def find(self, invite_id: UUID, token_hash: str) -> str | None:
        """The token that an invite was given; None when the key that made it is gone."""
        for key in self._keys:
            token = _token(key, invite_id)
            if hmac.compare_digest(hash_of(token), token_hash):
                return token
        return None


def hash_of(token: str) -> str:
    """What is kept of an invite's token."""
    return hashlib.sha256(token.encode()).hexdigest()


def _token(key: bytes, invite_id: UUID) -> str:
    return urlsafe_b64encode(hmac.digest(key, invite_id.bytes, "sha256")).decode().rstrip("=")
