"""Rate limits, kept in Redis by its own wall clock, so that all processes share them."""

from __future__ import annotations

import hashlib
import ipaddress
from typing import Final, NamedTuple

from models.database import new_id
from models.errors import RateLimited
from models.redis import RedisLink, Script

LOGIN_WINDOW_S: Final = 900
LOGIN_FAILURES_PER_EMAIL: Final = 5
LOGIN_FAILURES_PER_ADDRESS: Final = 20


class Limit(NamedTuple):
    """At most `requests` in `window_s`, as a burst or spread out."""

    name: str
    requests: int
    window_s: int = 60


READ: Final = Limit("read", 6_000)  #: a user's GETs
WRITE: Final = Limit("write", 1_200)  #: a user's other requests
SIGN_IN: Final = Limit("sign_in", 3_000)  #: a client address, on the routes of /auth

# The generic cell rate algorithm: a key holds the time at which its allowance is full again.
ADMIT_FUNCTION: Final = """
local function admit(key, requests, window_ms)
  local t = redis.call('TIME')
  local now = t[1] * 1000 + t[2] / 1000
  local gap = window_ms / requests
  local full_at = math.max(tonumber(redis.call('GET', key) or now), now)
  local wait = full_at - now - (window_ms - gap)
  if wait > 0 then return math.ceil(wait) end
  redis.call('SET', key, string.format('%.3f', full_at + gap), 'PX', math.max(1, math.ceil(full_at + gap - now)))
  return 0
end
"""
ADMIT: Final = Script(ADMIT_FUNCTION + "return admit(KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]))")

WAIT_FUNCTION: Final = """
local t = redis.call('TIME')
local now, window = t[1] * 1000 + math.floor(t[2] / 1000), tonumber(ARGV[1])
local wait = 0
for i, key in ipairs(KEYS) do
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now - window)
  local excess = redis.call('ZCARD', key) - tonumber(ARGV[1 + i])
  if excess >= 0 then
    local entry = redis.call('ZRANGE', key, excess, excess, 'WITHSCORES')
    wait = math.max(wait, entry[2] + window - now)
  end
end
"""
FAILURES_WAIT: Final = Script(WAIT_FUNCTION + "return wait")
FAILURES_ADD: Final = Script(
    WAIT_FUNCTION
    + """
if wait == 0 then
  for _, key in ipairs(KEYS) do
    redis.call('ZADD', key, now, ARGV[4])
    redis.call('PEXPIRE', key, window)
  end
end
return wait
"""
)


def key_of(limit: Limit, subject: object) -> str:
    return f"limit:{limit.name}:{subject}"


def arguments_of(limit: Limit, scale: float) -> tuple[float, int]:
    """What ADMIT_FUNCTION takes: requests (at least one) and milliseconds."""
    return max(1.0, limit.requests * scale), limit.window_s * 1000


def refuse(wait_ms: int) -> None:
    """RateLimited when there is something to wait for."""
    if wait_ms > 0:
        raise RateLimited(retry_after_s=-(-wait_ms // 1000))


async def hit(link: RedisLink, limit: Limit, subject: object, *, scale: float) -> None:
    """Count one request of `subject`; RateLimited when it is one too many. `scale` multiplies the limit."""
    refuse(await link.script(ADMIT, keys=[key_of(limit, subject)], args=arguments_of(limit, scale)))


def network_of(address: str) -> str:
    """What counts as one client address: an IPv4 address, or the /64 that an IPv6 customer is given."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


class LoginLimit:
    """Failed sign-ins by e-mail and by client address; exact over a sliding window, the same for unknown e-mails.

    Ask before checking a password and after it was right; count when it was wrong. So guesses sent in parallel get
    no more answers than guesses sent in turn, and people who sign in at the same time do not hinder each other.
    """

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    async def ask(self, email: str, address: str) -> None:
        """RateLimited when the failures so far forbid another try."""
        refuse(await self._link.script(FAILURES_WAIT, keys=self._keys(email, address), args=self._limits()))

    async def count(self, email: str, address: str) -> None:
        """Count a failure; RateLimited when others were counted meanwhile that forbid it."""
        args = [*self._limits(), str(new_id())]
        refuse(await self._link.script(FAILURES_ADD, keys=self._keys(email, address), args=args))

    @staticmethod
    def _limits() -> list[int]:
        return [LOGIN_WINDOW_S * 1000, LOGIN_FAILURES_PER_EMAIL, LOGIN_FAILURES_PER_ADDRESS]

    @staticmethod
    def _keys(email: str, address: str) -> list[str]:
        name = hashlib.sha256(email.encode()).hexdigest()
        return [f"login:email:{name}", f"login:address:{network_of(address)}"]
