"""How often somebody may ask: a bucket of tokens for each key, in a map that is bounded."""

import ipaddress
import time
from collections import OrderedDict
from typing import Final

MAX_KEYS: Final = 10_000


class RateLimit:
    """So many a minute for each key, with bursts of as many. Beyond `MAX_KEYS` the longest unseen key is forgotten."""

    def __init__(self, per_minute: int, max_keys: int = MAX_KEYS) -> None:
        self._rate = per_minute / 60
        self._burst = float(per_minute)
        self._max_keys = max_keys
        self._held: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._held)

    def wait_s(self, key: str, now: float | None = None) -> float:
        """How long this key has to wait before it may ask; 0: not at all. Takes nothing."""
        left, _ = self._left(key, time.monotonic() if now is None else now)
        return 0.0 if left >= 1 else (1 - left) / self._rate

    def take(self, key: str, now: float | None = None) -> float:
        """Takes one, if there is one: 0. Otherwise how long to wait, and nothing is taken."""
        at = time.monotonic() if now is None else now
        left, _ = self._left(key, at)
        self._held[key] = (left - 1 if left >= 1 else left, at)
        self._held.move_to_end(key)
        while len(self._held) > self._max_keys:
            self._held.popitem(last=False)
            self.forgotten += 1
        return 0.0 if left >= 1 else (1 - left) / self._rate

    def _left(self, key: str, at: float) -> tuple[float, float]:
        left, before = self._held.get(key, (self._burst, at))
        return min(self._burst, left + (at - before) * self._rate), before


def address_key(remote: str | None) -> str:
    """What one address counts as: an IPv6 network of 64 bits is one, for whoever has it has all of it."""
    try:
        address = ipaddress.ip_address((remote or "").partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False).network_address)
    return str(address)
