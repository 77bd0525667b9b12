"""Sliding windows per campaign: what Prometheus, the console and alerts ask for without a database.

A ring of panes per campaign, as wide as the longest window (1 h); a window is the sum of its last panes by origin, up
to the pane of the newest event time. The campaign's day, in its own time zone, is a running total beside it.
What happened before the ring or the day begins is in ClickHouse only.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from streams.records import MEASURES
from streams.rules import HOUR_MS, LIMIT, MINUTE_MS

WINDOW_MEASURES: Final = (
    "impressions",
    "viewable_impressions",
    "plays_started",
    "plays_3s",
    "plays_completed",
    "clicks",
    "conversions",
    "spend_millimicros",
    "gross_impressions",
    "gross_clicks",
    "gross_conversions",
    "gross_spend_millimicros",
)
GROSS: Final = {f"gross_{name}": name for name in ("impressions", "clicks", "conversions", "spend_millimicros")}
"""The gross measures, and what each is of. The others are of valid traffic; valid spend is net of credits."""
WINDOW_INDEX: Final = {name: at for at, name in enumerate(WINDOW_MEASURES)}
WINDOWS_MS: Final = {"1m": MINUTE_MS, "5m": 5 * MINUTE_MS, "15m": 15 * MINUTE_MS, "1h": HOUR_MS}
DAY: Final = "day"
RING_MS: Final = HOUR_MS
MAX_CAMPAIGNS: Final = 10_000
"""Campaigns per partition that have windows; the rest are in ClickHouse only, and counted as untracked."""

Amounts = npt.NDArray[Any]
"""Rows of amounts in the order of WINDOW_MEASURES: int64, or Python's own integers where those might not fit."""
Ints = npt.NDArray[np.int64]
assert all(GROSS.get(name, name) in MEASURES for name in WINDOW_MEASURES)


class Windows:
    """The windows of one partition's campaigns. Memory: 8 bytes × 12 measures × panes an hour for each campaign."""

    def __init__(self, pane_ms: int) -> None:
        self.pane_ms = pane_ms
        self.panes = RING_MS // pane_ms
        self._cell_limit = LIMIT // self.panes
        """So that no window's sum can leave 64 bits."""
        self.last_pane = -1
        self.untracked = 0
        self.zones: dict[str, str] = {}
        self.currencies: dict[str, str] = {}
        """The one currency whose spend a campaign's windows hold: the first that was seen."""
        self._slots: dict[str, int] = {}
        self._free: list[int] = []
        self._ring: Ints = np.zeros((0, self.panes, len(WINDOW_MEASURES)), dtype=np.int64)
        self._days: Ints = np.zeros((0, len(WINDOW_MEASURES)), dtype=np.int64)
        """Totals of each slot's current day."""
        self._day_bounds: Ints = np.zeros((0, 2), dtype=np.int64)
        """When that day begins and ends, epoch ms; 0 and 0: none yet."""

    def __len__(self) -> int:
        return len(self._slots)

    def takes(self, campaign: str) -> bool:
        """Whether the campaign has windows, or gets them now."""
        return self._slot(campaign) is not None

    def campaigns(self) -> Iterable[str]:
        """Campaigns that have windows."""
        return self._slots.keys()

    def advance(self, newest_ms: int) -> None:
        """Moves the ring to the pane of the newest event time; what falls off is cleared."""
        pane = newest_ms // self.pane_ms
        if pane <= self.last_pane:
            return
        steps = min(pane - self.last_pane, self.panes) if self.last_pane >= 0 else self.panes
        cleared = [(pane - at) % self.panes for at in range(steps)]
        self._ring[:, cleared, :] = 0
        crossed_minute = pane * self.pane_ms // MINUTE_MS != self.last_pane * self.pane_ms // MINUTE_MS
        self.last_pane = pane
        if crossed_minute:
            self._release_idle()

    def _release_idle(self) -> None:
        """A campaign without anything in its ring and in its day gives its place back."""
        busy: list[bool] = np.any(self._ring, axis=(1, 2)).tolist()
        now = self.last_pane * self.pane_ms
        for campaign in [c for c, slot in self._slots.items() if not busy[slot]]:
            slot = self._slots[campaign]
            if self._day_bounds[slot, 1] <= now:
                self._day_bounds[slot] = 0
                self.currencies.pop(campaign, None)
                self._free.append(self._slots.pop(campaign))

    def add(self, campaign: str, origin_pane_ms: int, values: Iterable[tuple[int, int]]) -> None:
        """Adds (index in WINDOW_MEASURES, amount) pairs to one pane of one campaign."""
        amounts = np.zeros((1, len(WINDOW_MEASURES)), dtype=object)
        for at, amount in values:
            amounts[0, at] += amount
        self.add_all([(campaign, origin_pane_ms)], amounts)

    def add_all(self, panes: Sequence[tuple[str, int]], amounts: Amounts) -> None:
        """Adds a row of amounts to each (campaign, origin pane ms); none may occur twice."""
        slots = [self._slot(campaign) for campaign, _ in panes]
        if None in slots:
            tracked = [at for at, slot in enumerate(slots) if slot is not None]
            self.untracked += len(slots) - len(tracked)
            slots, panes, amounts = [slots[at] for at in tracked], [panes[at] for at in tracked], amounts[tracked]
        origins, places = np.array([origin for _, origin in panes], dtype=np.int64), np.array(slots, dtype=np.int64)
        pane = origins // self.pane_ms
        in_ring = (self.last_pane - self.panes < pane) & (pane <= self.last_pane)
        where = places[in_ring], (pane % self.panes)[in_ring]
        limit = self._cell_limit
        added = np.clip(amounts[in_ring], -2 * limit, 2 * limit).astype(np.int64)  # as good as more, and it fits
        self._ring[where] = np.clip(self._ring[where] + added, -limit, limit)
        self._add_to_days([campaign for campaign, _ in panes], places, origins, amounts)

    def _add_to_days(self, campaigns: Sequence[str], slots: Ints, origins: Ints, amounts: Amounts) -> None:
        bounds = self._day_bounds[slots]
        for at in np.flatnonzero(origins >= bounds[:, 1]).tolist():
            self._begin_day(campaigns[at], int(slots[at]), int(origins[at]))
        bounds = self._day_bounds[slots]
        today = (bounds[:, 0] <= origins) & (origins < bounds[:, 1])
        slots, added = slots[today], amounts[today]
        if not len(slots):
            return
        order = np.argsort(slots, kind="stable")
        starts = np.flatnonzero(np.diff(slots[order], prepend=-1))
        fits = added.dtype != object and int(np.abs(added).max()) <= LIMIT // len(added)
        sums = np.add.reduceat((added if fits else added.astype(object))[order], starts, axis=0)
        changed = slots[order][starts]
        totals = self._days[changed] + (sums if fits else np.clip(sums, -LIMIT, LIMIT).astype(np.int64))
        self._days[changed] = np.clip(totals, -LIMIT, LIMIT)

    def _begin_day(self, campaign: str, slot: int, at_ms: int) -> None:
        """The day that holds a time, unless it has begun already."""
        if at_ms >= self._day_bounds[slot, 1]:
            self._day_bounds[slot] = day_bounds(at_ms, self.zones.get(campaign, "UTC"))
            self._days[slot] = 0

    def _slot(self, campaign: str) -> int | None:
        slot = self._slots.get(campaign)
        if slot is not None:
            return slot
        if len(self._slots) >= MAX_CAMPAIGNS:
            return None
        if not self._free:
            size = len(self._ring)
            grown = np.zeros((max(16, size * 2), *self._ring.shape[1:]), dtype=np.int64)
            grown[:size] = self._ring
            self._ring = grown
            self._days = np.concatenate((self._days, np.zeros((len(grown) - size, len(WINDOW_MEASURES)), np.int64)))
            self._day_bounds = np.concatenate((self._day_bounds, np.zeros((len(grown) - size, 2), np.int64)))
            self._free = list(range(len(grown) - 1, size - 1, -1))
        slot = self._slots[campaign] = self._free.pop()
        return slot

    def totals(self, campaign: str, window: str) -> tuple[int, ...]:
        """One window's sums, in the order of WINDOW_MEASURES; zeros for an unknown campaign."""
        slot = self._slots.get(campaign)
        if slot is None or (window == DAY and self._day_bounds[slot, 1] <= self.last_pane * self.pane_ms):
            return (0,) * len(WINDOW_MEASURES)
        if window == DAY:
            return tuple(self._days[slot].tolist())
        return tuple(self._ring[slot, self._panes_of(window)].sum(axis=0).tolist())

    def all_totals(self, window: str) -> dict[str, tuple[int, ...]]:
        """One window's sums of every campaign, for the cost of a few array operations."""
        if window == DAY:
            return {campaign: self.totals(campaign, DAY) for campaign in self._slots}
        panes = self._panes_of(window)
        ring = self._ring if len(panes) == self.panes else self._ring[:, panes]
        sums = ring.sum(axis=1).tolist()
        return {campaign: tuple(sums[slot]) for campaign, slot in self._slots.items()}

    def _panes_of(self, window: str) -> list[int]:
        count = max(1, WINDOWS_MS[window] // self.pane_ms)
        return [(self.last_pane - back) % self.panes for back in range(count)]

    def snapshot(self) -> dict[str, object]:
        """Only cells that hold something."""
        slots, panes = np.nonzero(self._ring.any(axis=2))
        names = {slot: campaign for campaign, slot in self._slots.items()}
        return {
            "pane_ms": self.pane_ms,
            "last_pane": self.last_pane,
            "untracked": self.untracked,
            "currencies": self.currencies,
            "campaigns": [names[int(s)] for s in slots],
            "panes": panes.astype(np.int32).tobytes(),
            "cells": self._ring[slots, panes].tobytes(),
            "days": [
                (campaign, *self._day_bounds[slot].tolist(), self._days[slot].tolist())
                for campaign, slot in self._slots.items()
                if self._day_bounds[slot, 1]
            ],
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Takes back what `snapshot` gave."""
        self.__init__(snapshot["pane_ms"])  # type: ignore[misc]
        self.last_pane, self.untracked = snapshot["last_pane"], snapshot["untracked"]
        self.currencies = snapshot["currencies"]
        panes = np.frombuffer(snapshot["panes"], dtype=np.int32)
        cells = np.frombuffer(snapshot["cells"], dtype=np.int64).reshape(-1, len(WINDOW_MEASURES))
        for campaign, pane, cell in zip(snapshot["campaigns"], panes, cells, strict=True):
            slot = self._slot(campaign)
            self._ring[slot, pane] = cell
        for campaign, start, end, totals in snapshot["days"]:
            slot = self._slot(campaign)
            self._days[slot], self._day_bounds[slot] = totals, (start, end)


@lru_cache(maxsize=4096)
def _day_of(date: str, zone: str) -> tuple[int, int]:
    start = datetime.fromisoformat(date).replace(tzinfo=ZoneInfo(zone))
    end = (datetime.fromisoformat(date) + timedelta(days=1)).replace(tzinfo=ZoneInfo(zone))
    return int(start.timestamp() * 1000), int(end.timestamp() * 1000)


def day_bounds(at_ms: int, zone: str) -> tuple[int, int]:
    """The local day that holds a time: [start, end) in epoch ms. 23 or 25 h long when the clocks change."""
    local = datetime.fromtimestamp(at_ms / 1000, UTC).astimezone(ZoneInfo(zone))
    return _day_of(local.date().isoformat(), zone)
