"""What was billed and is given back: cost of conversions that turn out to be rejected, once each.

A billed conversion that may be rejected later is remembered with its cost, its pane and its key. When its rejection
has been read too, whichever comes first, the next tick credits just that cost (`streams.state.effects`). Gross is never
touched: valid = gross - credited. A credit stands in the rows of the validity that its conversion has; where that
changes later, it goes along.
"""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from streams.records import VALID
from streams.state.keys import Names

MAX_BILLED: Final = 100_000
"""Billed conversions remembered per partition; beyond it the oldest is forgotten, and its rejection gives nothing back
(counted as unmatched, for reconciliation)."""
MAX_GIVEN: Final = 500_000
"""Credits remembered: as many as there are conversions that a later word can reach."""
MAX_WAITING: Final = 10_000
"""Rejections that came before their conversion; beyond it the oldest is forgotten, and counted."""


class Billed(NamedTuple):
    """A conversion that cost something."""

    digest: bytes
    """Of its event id."""
    at_ms: int
    names: Names
    """Campaign, ad unit, creative, variant, currency."""
    dimensions: Names
    """All of them, in the tables' order."""
    cost_millimicros: int
    validity: str = VALID
    """What it was counted as."""


class Credits:
    """The memory of one partition."""

    def __init__(self) -> None:
        self.unmatched = 0
        self._billed: dict[bytes, Billed] = {}
        self._waiting: dict[bytes, int] = {}
        """Rejections without a conversion yet, and the event time at which they were read."""
        self._given: dict[bytes, tuple[int, int]] = {}
        """What was credited: event time of the conversion, cost in millimicros."""

    def match(
        self, billed: Iterable[Billed], rejections: Iterable[bytes], newest_ms: int, horizon_ms: int
    ) -> list[Billed]:
        """At a tick, in the order of the logs: what is given back now. What is older than the horizon is forgotten."""
        found, since_ms = [], newest_ms - horizon_ms
        for each in billed:
            if self._waiting.pop(each.digest, -1) >= max(0, since_ms) and each.at_ms >= since_ms:
                found.append(each)
            else:
                self._billed[each.digest] = each
        for digest in rejections:
            known = self._billed.pop(digest, None)
            if known is not None and known.at_ms >= since_ms:
                found.append(known)
            else:
                self._waiting[digest] = newest_ms
        self._given.update((each.digest, (each.at_ms, each.cost_millimicros)) for each in found)
        self._forget(since_ms)
        return found

    def given(self, digest: bytes, at_ms: int) -> int:
        """What has been credited for a conversion, millimicros. Its id may have counted before, at another time."""
        given_ms, cost = self._given.get(digest, (at_ms, 0))
        return cost if given_ms == at_ms else 0

    def forget_given(self, floor_ms: int) -> None:
        """What was given back is remembered as long as its conversion may still move."""
        for digest in _beyond(self._given, MAX_GIVEN):
            del self._given[digest]
        if self._given and next(iter(self._given.values()))[0] < floor_ms:
            self._given = {digest: given for digest, given in self._given.items() if given[0] >= floor_ms}

    def _forget(self, before_ms: int) -> None:
        """Drops what no rejection in time can reach any more, and what there is no room for."""
        for digest in _beyond(self._billed, MAX_BILLED):
            del self._billed[digest]
        for digest in _beyond(self._waiting, MAX_WAITING):
            del self._waiting[digest]
            self.unmatched += 1
        if self._billed and next(iter(self._billed.values())).at_ms < before_ms:
            self._billed = {digest: each for digest, each in self._billed.items() if each.at_ms >= before_ms}
        if self._waiting and next(iter(self._waiting.values())) < before_ms:
            gone = [digest for digest, at_ms in self._waiting.items() if at_ms < before_ms]
            self.unmatched += len(gone)
            for digest in gone:
                del self._waiting[digest]

    def snapshot(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "unmatched": self.unmatched,
            "billed": list(self._billed.values()),
            "waiting": list(self._waiting.items()),
            "given": list(self._given.items()),
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Takes back what `snapshot` gave."""
        self.unmatched = snapshot["unmatched"]
        billed = [Billed(d, at, tuple(n), tuple(dims), cost, v) for d, at, n, dims, cost, v in snapshot["billed"]]
        self._billed = {each.digest: each for each in billed}
        self._waiting = dict(snapshot["waiting"])
        self._given = {digest: (at_ms, cost) for digest, (at_ms, cost) in snapshot["given"]}


def _beyond(held: dict[bytes, Any], limit: int) -> list[bytes]:
    """The oldest keys that there is no room for."""
    return [digest for digest, _ in zip(held, range(len(held) - limit), strict=False)]
