"""Which address a request comes from: the peer's, or what trusted proxies say of it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from starlette.requests import Request


class Proxies:
    """`networks` are CIDRs, comma separated; ValueError when one is malformed."""

    def __init__(self, networks: str) -> None:
        self._networks = [ipaddress.ip_network(n.strip()) for n in networks.split(",") if n.strip()]

    def client(self, request: Request) -> str:
        """The nearest address that is no trusted proxy's. What a client claims of itself does not count."""
        peer = request.client.host if request.client else ""
        if not self._networks or not self._trusted(peer):
            return peer
        return self._nearest(reversed(",".join(request.headers.getlist("x-forwarded-for")).split(",")), peer)

    def _nearest(self, hops: Iterable[str], peer: str) -> str:
        nearest = peer
        for hop in hops:
            hop = hop.strip()
            if not _is_address(hop):
                break
            nearest = hop
            if not self._trusted(hop):
                break
        return nearest

    def _trusted(self, address: str) -> bool:
        if not _is_address(address):
            return False
        parsed = ipaddress.ip_address(address)
        return any(parsed in network for network in self._networks)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
