"""Whether what an event refers to is known: a click's impression, a conversion's click.

Both inputs are read apart, so a touch may be read later than what refers to it. A missing touch is waited for until
its input has been read so far beyond it; then it is missed. Where it comes after all, the word is taken back.

In the end it matters neither how reads interleaved nor how much a tick read. How far back an event may refer is
decided by its own log: a touch is known if it was within the touches' memory (their horizon) when the event came, as
its own input's newest event time tells; and ids are kept until the events that may ask for them have been read
(`DedupeIndex.let_go`). What refers further back cannot be told: it is unverifiable, a state of its own. So is what
refers to ids that had to go for want of room, because one input is read very far behind the other.
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
    newest_ms: int
    """Newest event time of the event's own input when it came."""
    click_type: str = ""
    """Of a click."""
    known_from_ms: int = 0
    """Touches of before were forgotten when they were first looked for."""


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
        memory_ms, forgotten_ms = index.horizon.dedupe_ms, index.forgotten_ms
        for pending in new:
            known_from_ms = max(pending.newest_ms - memory_ms, forgotten_ms)
            self._waiting[pending.digest] = pending._replace(known_from_ms=known_from_ms)
        if newest_ms < 0 or not (self._waiting or self._missed):
            self._bound()
            return []
        everything = [*self._waiting.values(), *self._missed.values()]
        times = index.times([pending.touch for pending in everything])
        reached = ((p, times[p.touch]) for p in everything if p.touch in times)
        found = [Finding(p, at, p.digest in self._missed) for p, at in reached if _refers(p, at, index)]
        for finding in found:
            self._waiting.pop(finding.pending.digest, None)
            self._missed.pop(finding.pending.digest, None)
        found.extend(self._give_up(touched, wait_ms))
        self._bound()
        return found

    def _give_up(self, touched: Touched, wait_ms: int) -> list[Finding]:
        newest_ms, horizon = touched.newest_ms, touched.ids.horizon
        due = [p for p in self._waiting.values() if newest_ms >= p.touch_ms + wait_ms]
        found = []
        for pending in due:
            del self._waiting[pending.digest]
            self._missed[pending.digest] = pending
            if pending.touch_ms < max(pending.known_from_ms, touched.first_ms):
                self.unverifiable += 1
            else:
                found.append(Finding(pending, None, False))
        beyond_ms = horizon.dedupe_ms + horizon.lateness_ms
        gone = [p.digest for p in self._missed.values() if newest_ms > p.touch_ms + beyond_ms]
        for digest in gone:  # any touch that it may refer to would be late
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


def _refers(pending: Pending, touch_ms: int, index: DedupeIndex) -> bool:
    """Whether an event can mean a touch of this time: it was remembered then, and is not of an age later."""
    was_known = (touch_ms // index.bucket_ms + 1) * index.bucket_ms > pending.known_from_ms
    return was_known and touch_ms <= pending.touch_ms + index.horizon.dedupe_ms
