"""Who may push: identity tokens for our audience, from our account, signed by Google, in force."""

from __future__ import annotations

import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi import Request
from google.auth import transport
from google.auth.exceptions import TransportError

from api.push_auth import PushAuth
from models.errors import Unauthenticated, Unavailable

AUDIENCE = "https://packstream.example/webhooks/gcs"
EMAIL = "push@project.iam.gserviceaccount.com"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Certs(transport.Request):
    """Google's published keys; counts how often they are asked for."""

    status = 200
    headers: dict[str, str]

    def __init__(self, *, away: bool = False) -> None:
        self.asked = 0
        self.away = away
        pem = KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.data = json.dumps({"k1": pem.decode()}).encode()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.asked += 1
        if self.away:
            raise TransportError("no route")  # type: ignore[no-untyped-call]
        return self


def token(key: rsa.RSAPrivateKey = KEY, kid: str = "k1", **changes: Any) -> str:
    now = int(time.time())
    claims = {
        "iss": "https://accounts.google.com",
        "aud": AUDIENCE,
        "sub": "1",
        "email": EMAIL,
        "email_verified": True,
        "iat": now,
        "exp": now + 3600,
    }
    return jwt.encode(claims | changes, key, algorithm="RS256", headers={"kid": kid})


def request(bearer: str | None = None, query: str = "") -> Request:
    headers = [] if bearer is None else [(b"authorization", f"Bearer {bearer}".encode())]
    return Request({"type": "http", "method": "POST", "path": "/", "query_string": query.encode(), "headers": headers})


def auth(certs: Certs | None = None, **changes: Any) -> PushAuth:
    options: dict[str, Any] = {"audience": AUDIENCE, "email": EMAIL, "shared_token": None, "certs": certs or Certs()}
    return PushAuth(**(options | changes))


async def test_token_of_our_push_subscription_is_good() -> None:
    await auth().check(request(token()))


async def test_keys_are_fetched_once() -> None:
    certs = Certs()
    checker = auth(certs)
    for _ in range(3):
        await checker.check(request(token()))
    assert certs.asked == 1


@pytest.mark.parametrize(
    "bearer",
    [
        None,
        "",
        "x",
        "a.b.c",
        token(OTHER_KEY),
        token(kid="unknown"),
        token(aud="https://elsewhere.example"),
        token(iss="https://evil.example"),
        token(exp=int(time.time()) - 60),
        token(iat=int(time.time()) + 86_400),  # made when the tests are collected
        token(email="other@project.iam.gserviceaccount.com"),
        token(email_verified=False),
        jwt.encode({"aud": AUDIENCE, "email": EMAIL}, "secret-secret-secret-secret-secret", algorithm="HS256"),
        jwt.encode({"aud": AUDIENCE, "email": EMAIL}, "", algorithm="none"),
    ],
)
async def test_any_other_token_is_not(bearer: str | None) -> None:
    with pytest.raises(Unauthenticated):
        await auth().check(request(bearer))


async def test_without_an_audience_no_token_is_good() -> None:
    with pytest.raises(Unauthenticated):
        await auth(audience=None).check(request(token()))


async def test_push_waits_while_the_keys_cannot_be_had() -> None:
    with pytest.raises(Unavailable):
        await auth(Certs(away=True)).check(request(token()))


async def test_shared_token_where_there_is_one() -> None:
    local = auth(shared_token="s3cret")
    await local.check(request(query="token=s3cret"))
    await local.check(request(token()))
    for query in ("", "token=", "token=s3cre", "token=%C3%A9", "tokens=s3cret"):
        with pytest.raises(Unauthenticated):
            await local.check(request(query=query))
    with pytest.raises(Unauthenticated):
        await auth().check(request(query="token=s3cret"))
