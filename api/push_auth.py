"""Who may push to Google Cloud's webhooks: Pub/Sub with an identity token for us; in dev and test a shared token."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Mapping
from time import monotonic
from typing import Any, Final

from fastapi import Request
from google.auth import transport
from google.auth.exceptions import GoogleAuthError, TransportError
from google.auth.transport.requests import Request as GoogleRequest
from google.oauth2 import id_token
from jwt import PyJWTError

from models.errors import Unauthenticated, Unavailable

CERTS_S: Final = 3600.0  #: Google's keys are good for longer; a new one appears well before it signs
CERTS_TIMEOUT_S: Final = 5.0
SKEW_S: Final = 10


class KeptCerts(transport.Request):
    """Fetches as `inner` does, and keeps each good answer: verifying a token costs no request of its own."""

    def __init__(self, inner: transport.Request) -> None:
        self._inner = inner
        self._kept: dict[str, tuple[float, transport.Response]] = {}

    def __call__(self, url: str, *args: Any, **kwargs: Any) -> transport.Response:
        until, kept = self._kept.get(url, (0.0, None))
        if kept is not None and monotonic() < until:
            return kept
        kwargs.setdefault("timeout", CERTS_TIMEOUT_S)
        answer: transport.Response = self._inner(url, *args, **kwargs)
        if answer.status == 200:
            self._kept[url] = monotonic() + CERTS_S, answer
        return answer


class PushAuth:
    """`audience` and `email` are those of the push subscription; without an audience no bearer token is good."""

    def __init__(
        self,
        *,
        audience: str | None,
        email: str | None,
        shared_token: str | None,
        certs: transport.Request | None = None,
    ) -> None:
        self._audience = audience
        self._email = email
        self._shared_token = shared_token
        self._certs = KeptCerts(certs or GoogleRequest())

    async def check(self, request: Request) -> None:
        """Unauthenticated unless the push comes from where it should; Unavailable when Google's keys cannot be had."""
        given = request.query_params.get("token")
        if given is not None and self._shared_token is not None:
            if hmac.compare_digest(given.encode(), self._shared_token.encode()):
                return
            raise Unauthenticated("the token is wrong")
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token or self._audience is None:
            raise Unauthenticated("send the push subscription's identity token")
        claims = await asyncio.to_thread(self._verify, token.strip())
        if self._email is not None and (claims.get("email") != self._email or claims.get("email_verified") is not True):
            raise Unauthenticated("the identity token is another account's")

    def _verify(self, token: str) -> Mapping[str, Any]:
        try:
            claims: Mapping[str, Any] = id_token.verify_oauth2_token(  # type: ignore[no-untyped-call]
                token, self._certs, audience=self._audience, clock_skew_in_seconds=SKEW_S
            )
        except TransportError as exc:
            raise Unavailable("Google's keys cannot be fetched") from exc
        except (GoogleAuthError, PyJWTError, ValueError, KeyError) as exc:
            raise Unauthenticated("the identity token is not valid") from exc
        return claims
