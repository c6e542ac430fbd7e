"""Cursors, client addresses, times, revisions: the small parts of the edge."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from starlette.requests import Request

from api.addresses import Proxies
from api.pagination import Cursors, Page
from api.routes.health import suits
from models.errors import ValidationFailed
from models.limits import network_of
from schemas.http.common import Body, parse_time
from schemas.http.identity import normalise_email

CURSORS = Cursors([b"s" * 32])


def test_cursor_gives_its_key_back_to_its_own_list_alone() -> None:
    cursor = CURSORS.issue("orders", ["2031-01-01T00:00:00Z", 7, "id"])
    assert CURSORS.read("orders", cursor) == ["2031-01-01T00:00:00Z", 7, "id"]
    for name, text in (("ads", cursor), ("orders", cursor[:-1]), ("orders", ""), ("orders", "é"), ("orders", "=" * 9)):
        with pytest.raises(ValidationFailed):
            CURSORS.read(name, text)
    with pytest.raises(ValidationFailed):
        Cursors([b"t" * 32]).read("orders", cursor)


def test_last_page_has_no_cursor() -> None:
    page = Page(2, None, CURSORS)
    assert page.cut("n", [1, 2], lambda n: [n]) == ([1, 2], None)
    rows, cursor = page.cut("n", [1, 2, 3], lambda n: [n])
    assert rows == [1, 2]
    assert cursor is not None
    assert CURSORS.read("n", cursor) == [2]


def from_address(peer: str, *forwarded: str) -> Request:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    return Request({"type": "http", "headers": headers, "client": (peer, 1)})


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.1", ("198.51.100.1",), "203.0.113.1"),
        ("10.0.0.1", (), "10.0.0.1"),
        ("10.0.0.1", ("198.51.100.1",), "198.51.100.1"),
        ("10.0.0.1", ("192.0.2.66, 198.51.100.1, 10.0.0.2",), "198.51.100.1"),
        ("10.0.0.1", ("192.0.2.66", "198.51.100.1"), "198.51.100.1"),
        ("10.0.0.1", ("198.51.100.1, nonsense",), "10.0.0.1"),
        ("10.0.0.1", ("10.0.0.3",), "10.0.0.3"),
    ],
)
def test_client_is_the_nearest_address_that_is_no_trusted_proxy(
    peer: str, forwarded: tuple[str, ...], client: str
) -> None:
    assert Proxies("10.0.0.0/8").client(from_address(peer, *forwarded)) == client


def test_without_trusted_proxies_nobody_is_believed() -> None:
    assert Proxies("").client(from_address("10.0.0.1", "198.51.100.1")) == "10.0.0.1"


def test_network_of_a_client() -> None:
    assert network_of("198.51.100.1") == network_of("::ffff:198.51.100.1") == "198.51.100.1"
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff") == "2001:db8::/64"


def test_time_is_read_in_utc() -> None:
    assert parse_time("2031-05-01t10:00:00.25+02:00") == datetime(2031, 5, 1, 8, 0, 0, 250_000, UTC)
    for text in ("2031-05-01T10:00:00", "2031-02-30T00:00:00Z", "0001-01-01T00:00:00+23:00", 5, None, True, ""):
        with pytest.raises(ValueError, match="time"):
            parse_time(text)


class Amount(Body):
    cents: int
    active: bool = True


@pytest.mark.parametrize("body", [{"cents": "5"}, {"cents": True}, {"cents": 5.5}, {"cents": 5, "active": 1}])
def test_json_types_are_not_coerced(body: object) -> None:
    with pytest.raises(ValueError, match="Amount"):
        Amount.model_validate(body)


def test_email_has_one_spelling() -> None:
    assert normalise_email(" Ada.L@Example.TEST ") == "ada.l@example.test"
    for text in ("nobody", "a@b@c.test", "a b@c.test", "@c.test", "a@"):
        with pytest.raises(ValueError, match="e-mail"):
            normalise_email(text)


@pytest.mark.parametrize(
    ("found", "ready"), [("0004", True), ("0005", True), ("0003", False), (None, False), ("x", False)]
)
def test_schema_suits_from_the_revision_that_the_code_knows(found: str | None, ready: bool) -> None:
    assert suits(found, "0004") is ready
