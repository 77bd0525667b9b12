"""What a campaign did in its last hours, and what it usually does at each hour of the week.

The recent hours are exact counts. When an hour is old enough to be complete, it is learned: its counts are added to
the bucket of its weekday and hour in the campaign's time zone, whose earlier counts have decayed. So a baseline is a
sum of counts, and says itself how much it knows. Memory: at most 40 recent hours of lists, and 168 buckets of 6
single-precision numbers (4 KB), none of which exists before it is needed.
"""

from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from streams.rules import HOUR_MS, MINUTE_MS

IMPRESSIONS, CLICKS, CONVERSIONS, SPEND, EARLY, TAINT = range(6)
"""An hour's list. CONVERSIONS by their own time, EARLY: within an hour of their click, by the click's time; SPEND:
valid, millimicros; TAINT: what was unknown in it, bits."""
VISITS: Final = 5
"""A bucket's row has the number of decayed visits where an hour's list has its taint."""
TAINT_IMPRESSIONS, TAINT_CLICKS, TAINT_CONVERSIONS = 1, 2, 4

MAX_HOURS: Final = 40
LEARNED_AFTER_MS: Final = 3 * HOUR_MS + 10 * MINUTE_MS
"""After an hour's end: clicks of its last minute have by then had their hour to convert, and what is late has come."""
EARLY_COMPLETE_MS: Final = 2 * HOUR_MS + 5 * MINUTE_MS
"""After an hour's begin: every click of it is an hour old; five minutes for what is late."""
CAUTIOUS_MS: Final = 26 * HOUR_MS
"""Instead of LEARNED_AFTER_MS while history is read: one input may then be hours ahead of another."""
DECAY: Final = 0.8
"""Of a bucket at each visit: five visits (weeks) of memory."""
WEEK_HOURS: Final = 168
ENOUGH_VISITS: Final = 1.5
"""Decayed visits: the same weekday and hour has been seen at least twice."""
ENOUGH_DAYS: Final = 3.5
"""Decayed visits of the same hour over all weekdays, for a campaign that has not lived for two weeks."""


class Usual(NamedTuple):
    """What an hour of the week usually has: decayed sums, and how many visits they stand for."""

    impressions: float
    clicks: float
    conversions: float
    spend: float
    early: float
    visits: float
    is_same_weekday: bool
    """False: the same hour of other days, because the same weekday has not been seen twice."""


@lru_cache(maxsize=8192)
def week_hour(hour_ms: int, zone: str) -> int:
    """0 to 167 from Monday 00:00 on, local time. With clocks that change, an hour is met twice or not at all."""
    local = datetime.fromtimestamp(hour_ms / 1000, ZoneInfo(zone))
    return local.weekday() * 24 + local.hour


@lru_cache(maxsize=8192)
def local_date(hour_ms: int, zone: str) -> str:
    """The local day, ISO."""
    return datetime.fromtimestamp(hour_ms / 1000, ZoneInfo(zone)).date().isoformat()


class Hours:
    """Recent hours and the baseline of one campaign."""

    __slots__ = ("_baseline", "_overall", "floor_ms", "recent", "since_ms")

    def __init__(self) -> None:
        self.recent: dict[int, list[int]] = {}
        """Counts by the hour's start; not ordered."""
        self.floor_ms = 0
        """Earlier hours have been learned or forgotten: what still comes for them is in ClickHouse only."""
        self.since_ms = -1
        """The first hour that was learned."""
        self._baseline: npt.NDArray[np.float32] | None = None
        self._overall: Usual | None = None

    def hour(self, at_ms: int) -> list[int] | None:
        """The counts of the hour that holds a time, to be added to; None where it has been learned."""
        start = at_ms - at_ms % HOUR_MS
        found = self.recent.get(start)
        if found is None:
            if start < self.floor_ms:
                return None
            found = self.recent[start] = [0, 0, 0, 0, 0, 0]
            if len(self.recent) > MAX_HOURS:  # the newest stay, in whatever order they came
                del self.recent[min(self.recent)]
        return found

    def due(self, now_ms: int, is_catching_up: bool) -> list[int]:
        """Hours that are complete, oldest first."""
        age = CAUTIOUS_MS if is_catching_up else LEARNED_AFTER_MS
        return sorted(start for start in self.recent if start + age <= now_ms and start >= self.floor_ms)

    def learn(self, start_ms: int, zone: str) -> None:
        """Adds a complete hour to its bucket. Hours with something unknown in them, or without impressions, are not."""
        self.floor_ms = max(self.floor_ms, start_ms + HOUR_MS)
        counts = self.recent[start_ms]
        if counts[TAINT] or counts[IMPRESSIONS] <= 0:
            return
        if self._baseline is None:
            self._baseline = np.zeros((WEEK_HOURS, 6), dtype=np.float32)
            self.since_ms = start_ms
        row = self._baseline[week_hour(start_ms, zone)]
        row *= np.float32(DECAY)
        row += np.array([*(max(0, count) for count in counts[:TAINT]), 1], dtype=np.float32)
        self._overall = None

    def forget(self, before_ms: int) -> None:
        """Drops hours that ended before a time."""
        for start in [start for start in self.recent if start + HOUR_MS <= before_ms and start < self.floor_ms]:
            del self.recent[start]

    def usual(self, start_ms: int, zone: str) -> Usual | None:
        """What the hour usually has; None while too little has been seen."""
        if self._baseline is None:
            return None
        bucket = week_hour(start_ms, zone)
        row = self._baseline[bucket]
        if row[VISITS] >= ENOUGH_VISITS:
            return _usual(row, True)
        pooled = self._baseline[bucket % 24 :: 24].sum(axis=0)
        if pooled[VISITS] >= ENOUGH_DAYS:
            return _usual(pooled, False)
        return None

    def overall(self) -> Usual | None:
        """Everything learned, decayed."""
        if self._overall is None and self._baseline is not None:
            self._overall = _usual(self._baseline.sum(axis=0, dtype=np.float64), False)
        return self._overall

    def snapshot(self) -> dict[str, object]:
        """Builtin values; of the baseline only what has been seen."""
        seen = [] if self._baseline is None else np.flatnonzero(self._baseline[:, VISITS]).tolist()
        rows = b"" if self._baseline is None else self._baseline[seen].tobytes()
        recent = [[start, *self.recent[start]] for start in sorted(self.recent)]
        return {"recent": recent, "times": [self.floor_ms, self.since_ms], "buckets": bytes(seen), "rows": rows}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Takes back what `snapshot` gave."""
        self.recent = {row[0]: list(row[1:]) for row in snapshot["recent"]}
        self.floor_ms, self.since_ms = snapshot["times"]
        self._baseline = self._overall = None
        buckets = list(snapshot["buckets"])
        if buckets:
            self._baseline = np.zeros((WEEK_HOURS, 6), dtype=np.float32)
            self._baseline[buckets] = np.frombuffer(snapshot["rows"], dtype=np.float32).reshape(-1, 6)


def _usual(sums: npt.NDArray[Any], is_same_weekday: bool) -> Usual:
    impressions, clicks, conversions, spend, early, visits = sums.tolist()
    return Usual(impressions, clicks, conversions, spend, early, visits, is_same_weekday)
