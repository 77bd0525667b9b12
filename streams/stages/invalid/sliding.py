"""Sliding windows over many sources' clicks at once, in linear time, without a loop over clicks.

A click is in a window over the threshold iff there is an interval [t, t + window] of event time that contains it and
whose clicks reach the threshold. Moving an interval to the right until it begins at its first click loses none, so
the intervals that begin at a click are enough: `ends` gives where each of them ends, and whatever is counted in it
only grows with more clicks, so a verdict never depends on the order in which clicks came.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Values = npt.NDArray[np.uint64]


class Timeline:
    """Clicks of many groups, sorted by group, then by event time."""

    def __init__(self, groups: Values, at_ms: Ints) -> None:
        """Needs the order that it is named for. Times of all groups span days at most."""
        self.size = len(at_ms)
        self.at_ms = at_ms
        self.first: Mask = np.ones(self.size, dtype=bool)
        self.first[1:] = groups[1:] != groups[:-1]
        """Where a group begins."""
        self.group: Ints = np.cumsum(self.first, dtype=np.int64) - 1
        self.base = int(at_ms.min()) if self.size else 0
        self.span = int(at_ms.max()) - self.base + 1 if self.size else 1

    def _places(self, group: Ints, at_ms: Ints, side: Literal["left", "right"]) -> Ints:
        """Where these times would stand in their groups."""
        stride = self.span + 2
        mine = self.group * stride + (self.at_ms - self.base) + 1
        asked = group * stride + np.clip(at_ms - self.base, -1, self.span) + 1
        return np.searchsorted(mine, asked, side).astype(np.int64)

    def ends(self, window_ms: int) -> Ints:
        """Of the interval that begins at each click: the place behind its last click."""
        return self._places(self.group, self.at_ms + window_ms, "right")

    def begins(self, window_ms: int) -> Ints:
        """Of the interval that ends at each click: the place of its first click."""
        return self._places(self.group, self.at_ms - window_ms, "left")

    def from_to(self, group: Ints, from_ms: Ints, to_ms: Ints) -> tuple[Ints, Ints]:
        """Places [from, to) of the groups' clicks between two times, both included."""
        return self._places(group, from_ms, "left"), self._places(group, to_ms, "right")

    def distinct(self, values: Values, window_ms: int) -> Ints:
        """How many different values (0 is none) are in the interval that begins at each click.

        A click counts, in the intervals that begin behind the click before it with the same value and reach it: a
        range of places. So the counts are one running sum.
        """
        order = np.lexsort((np.arange(self.size), values, self.group))
        before = np.full(self.size, -1, dtype=np.int64)
        same = (values[order[1:]] == values[order[:-1]]) & (self.group[order[1:]] == self.group[order[:-1]])
        before[order[1:][same]] = order[:-1][same]
        counts = values != 0
        start = np.maximum(before + 1, self.begins(window_ms))[counts]
        steps = np.zeros(self.size + 1, dtype=np.int64)
        np.add.at(steps, start, 1)
        np.add.at(steps, np.flatnonzero(counts) + 1, -1)
        return np.cumsum(steps[:-1])


def covered(starts: Ints, ends: Ints, size: int) -> Mask:
    """Which of the places are in one of the ranges [start, end)."""
    steps = np.zeros(size + 1, dtype=np.int64)
    np.add.at(steps, starts, 1)
    np.add.at(steps, ends, -1)
    return np.asarray(np.cumsum(steps[:-1]) > 0)


def within(marks: Mask, starts: Ints, ends: Ints) -> Ints:
    """How many marks there are in each range [start, end); an empty range has none."""
    sums = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(marks, dtype=np.int64)))
    counts: Ints = sums[np.maximum(ends, starts)] - sums[starts]
    return counts
