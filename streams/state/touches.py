"""Whether what an event refers to is known: a click's impression, a conversion's click.

Both inputs are read apart, so a touch may be read later than what refers to it. A missing touch is waited for until
its input has been read so far beyond it; then it is missed. Where it comes after all, the word is taken back, so that
in the end it does not matter how reads interleaved. What is older than the touches' memory (their horizon) cannot
be told: it is unverifiable, a state of its own.
"""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from streams.state.dedupe import DedupeIndex

MAX_PENDING: Final = 100_000
"""Events whose touch is waited for, and as many that miss it; beyond it the oldest is unverifiable, and counted."""


class Pending(NamedTuple):
    """An event that refers to a touch."""

    digest: bytes
    at_ms: int
    touch: bytes
    """Digest of the touch's event id."""
    touch_ms: int
    """When the touch happened at the latest, as far as the event tells."""
    click_type: str = ""
    """Of a click."""


class Finding(NamedTuple):
    """What became of one."""

    pending: Pending
    touch_ms: int | None
    """When the touch happened; None: it is missed."""
    was_missed: bool


class Touched(NamedTuple):
    """The input that is referred to."""

    ids: DedupeIndex
    newest_ms: int
    first_ms: int
    """Event time of its first event ever."""


class Touches:
    """The references of one input's events to another's."""

    def __init__(self) -> None:
        self.unverifiable = 0
        self._waiting: dict[bytes, Pending] = {}
        self._missed: dict[bytes, Pending] = {}

    def look(self, new: Iterable[Pending], touched: Touched, wait_ms: int) -> list[Finding]:
        """At a tick: what is known now, what is missed now, and what has come after all."""
        index, newest_ms = touched.ids, touched.newest_ms
        for pending in new:
            self._waiting[pending.digest] = pending
        if newest_ms < 0 or not (self._waiting or self._missed):
            self._bound()
            return []
        everything = [*self._waiting.values(), *self._missed.values()]
        times = index.times([pending.touch for pending in everything], newest_ms)
        found = [Finding(p, times[p.touch], p.digest in self._missed) for p in everything if p.touch in times]
        for finding in found:
            self._waiting.pop(finding.pending.digest, None)
            self._missed.pop(finding.pending.digest, None)
        found.extend(self._give_up(touched, wait_ms))
        self._bound()
        return found

    def _give_up(self, touched: Touched, wait_ms: int) -> list[Finding]:
        newest_ms, index = touched.newest_ms, touched.ids
        remembered_ms = max(newest_ms - index.horizon.dedupe_ms, index.floor_ms)
        due = [p for p in self._waiting.values() if newest_ms >= p.touch_ms + wait_ms]
        found = []
        for pending in due:
            del self._waiting[pending.digest]
            if pending.touch_ms >= remembered_ms:  # it may still come, though it be older than the first that was read
                self._missed[pending.digest] = pending
            if pending.touch_ms < max(remembered_ms, touched.first_ms):
                self.unverifiable += 1
            else:
                found.append(Finding(pending, None, False))
        gone = [p.digest for p in self._missed.values() if p.touch_ms < remembered_ms]
        for digest in gone:  # a touch of that time would be late
            del self._missed[digest]
        return found

    def _bound(self) -> None:
        for held in (self._waiting, self._missed):
            while len(held) > MAX_PENDING:
                del held[next(iter(held))]
                self.unverifiable += 1

    def snapshot(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "unverifiable": self.unverifiable,
            "waiting": list(self._waiting.values()),
            "missed": list(self._missed.values()),
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Takes back what `snapshot` gave."""
        self.unverifiable = snapshot["unverifiable"]
        self._waiting = {p[0]: Pending(*p) for p in snapshot["waiting"]}
        self._missed = {p[0]: Pending(*p) for p in snapshot["missed"]}
