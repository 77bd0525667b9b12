"""Silences of the desk's own making: all that was shown is stopped, so nothing comes, and that is known.

A day on which every campaign of a partition has spent its budget ends in silence. Were it taken for a dead producer,
nothing could begin again on the next day: rates never rise on unknown input, and without events no day ends. So while
such a **lull** lasts time goes on by the wall clock, as far behind it as event time was, and a campaign whose rate is 0
may begin again, as one of which nothing is known does: slowly, and it rises no further before impressions come.
"""

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from streams.rules import HOUR_MS, MINUTE_MS

LATELY_MS: Final = HOUR_MS
"""Who was shown within so long before the silence must be stopped."""
SOON_MS: Final = 2 * MINUTE_MS
"""And must have been stopped before the silence was so old: whoever is stopped later is stopped for want of events."""


class Shown(msgspec.Struct):
    """One paced campaign. Event time; -1: never."""

    at_ms: int = -1
    """Pane of its newest impression."""
    stopped_ms: int = -1
    """Since when its rate has been 0; -1: it is not."""

    def decided(self, rate: float, now_ms: int) -> None:
        """A control was decided."""
        if rate > 0.0:
            self.stopped_ms = -1
        elif self.stopped_ms < 0:
            self.stopped_ms = now_ms

    def snapshot(self) -> tuple[int, int]:
        """Plain values."""
        return self.at_ms, self.stopped_ms


class Lull:
    """Of one partition."""

    def __init__(self) -> None:
        self.is_on = False
        self.free_ms = -1
        """Pane of the newest impression of campaigns that nobody paces."""
        self._lag_ms = 0
        """By how much event time was behind wall time when impressions were last heard."""

    def look(self, now_ms: int, wall_ms: int, is_silent: bool, is_catching_up: bool, campaigns: Iterable[Shown]) -> int:
        """At a tick: the time for controls, ms. `is_silent`: no impressions come."""
        if not is_silent or is_catching_up:
            self.is_on, self._lag_ms = False, wall_ms - now_ms
            return now_ms
        self.is_on = self.is_on or self._is_of_our_making(list(campaigns))
        return self.time_ms(now_ms, wall_ms, is_silent, is_catching_up)

    def time_ms(self, now_ms: int, wall_ms: int, is_silent: bool, is_catching_up: bool) -> int:
        """The time that `look` goes by, as far as is known before it: a lull's first tick goes by events."""
        is_on = self.is_on and is_silent and not is_catching_up
        return max(now_ms, wall_ms - self._lag_ms) if is_on else now_ms

    def _is_of_our_making(self, campaigns: list[Shown]) -> bool:
        last_ms = max((shown.at_ms for shown in campaigns), default=-1)
        since_ms = last_ms - LATELY_MS
        if last_ms < 0 or self.free_ms >= since_ms:
            return False
        lately = (shown for shown in campaigns if shown.at_ms >= since_ms)
        return all(0 <= shown.stopped_ms <= last_ms + SOON_MS for shown in lately)

    def snapshot(self) -> list[Any]:
        """Plain values."""
        return [self.is_on, self.free_ms, self._lag_ms]

    def restore(self, snapshot: list[Any]) -> None:
        """Takes back what `snapshot` gave."""
        self.is_on, self.free_ms, self._lag_ms = snapshot
