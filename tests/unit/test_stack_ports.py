"""Ports: as set, else as last time, else free; two stacks that start together never get the same one."""

from __future__ import annotations

import socket

import pytest

from ops.stack.errors import StackError
from ops.stack.ports import FREE_PORTS, PortBook, is_free


def test_free_ports_are_below_the_ephemeral_range_and_distinct() -> None:
    with PortBook({}) as one, PortBook({}) as two:
        ports = [*one.choose("ABCDEFGH", last={}).values(), *two.choose("ABCDEFGH", last={}).values()]
    assert len(set(ports)) == len(ports)
    assert max(ports) < 32768
    assert min(ports) >= FREE_PORTS.start


def test_the_last_port_is_taken_again_unless_somebody_has_it() -> None:
    with PortBook({}) as book:
        port = book.choose(["A"], last={})["A"]
    with PortBook({}) as book:
        assert book.choose(["A"], last={"A": port}) == {"A": port}
        with PortBook({}) as other:
            assert other.choose(["A"], last={"A": port})["A"] != port


def test_a_port_that_was_set_is_used_or_refused() -> None:
    with PortBook({}) as book:
        port = book.choose(["A"], last={})["A"]
    with PortBook({"A": str(port)}) as book:
        assert book.choose(["A"], last={"A": 1})["A"] == port
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert not is_free(port)
        with PortBook({"A": str(port)}) as book, pytest.raises(StackError, match=f"port {port} is taken: set A"):
            book.choose(["A"], last={})


@pytest.mark.parametrize("text", ["http", "-1", "0", "65536", "5432 "])
def test_what_is_no_port_is_refused_by_name(text: str) -> None:
    with PortBook({"POSTGRES_PORT": text}) as book, pytest.raises(StackError, match="POSTGRES_PORT="):
        book.choose(["POSTGRES_PORT"], last={})
