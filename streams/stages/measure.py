"""Whole batches to rows of measures: arrays (events × width of the input), int64.

For the two inputs that make up most of the traffic in array form; for the others event by event
(`streams.stages.count`, which also says what the array forms must give).
"""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Final

import numpy as np
import numpy.typing as npt

from streams.events import Event, Input, Milestone
from streams.records import COMMON, MEASURES_OF
from streams.rules import Rules
from streams.stages.count import BASE, index_of, make_count

Rows = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Measure = Callable[[Sequence[Event], Flags], Rows]
"""(events, which of them count) to rows; the rows of those that do not count are zero."""

_VIEWABLE: Final = {None: 0, False: 1, True: 2}
_MILESTONE: Final = {
    Milestone.START: index_of(Input.PLAYS, "plays_started"),
    Milestone.THREE_SECONDS: index_of(Input.PLAYS, "plays_3s"),
    Milestone.FIVE_SECONDS: index_of(Input.PLAYS, "plays_5s"),
    Milestone.COMPLETE: index_of(Input.PLAYS, "plays_completed"),
}


def width_of(source: Input) -> int:
    """Measures of an input, the common ones included."""
    return len(COMMON) + len(MEASURES_OF[source])


def make_measure(source: Input, rules: Rules) -> Measure:
    """The measuring function of an input under these rules."""
    if source is Input.IMPRESSIONS:
        return _impressions
    if source is Input.PLAYS:
        return _plays
    return one_by_one(source, rules)


def one_by_one(source: Input, rules: Rules) -> Measure:
    """Each event through its counting function: what the array forms are checked against."""
    count, width = make_count(source, rules), width_of(source)

    def measure(events: Sequence[Event], counted: Flags) -> Rows:
        rows = []
        for event, counts in zip(events, counted.tolist(), strict=True):
            values = [0] * width
            if counts:
                count(event, values)
            rows.append(values)
        return np.array(rows, dtype=np.int64).reshape(len(events), width)

    return measure


def _impressions(events: Sequence[Event], counted: Flags) -> Rows:
    rows = np.zeros((len(events), width_of(Input.IMPRESSIONS)), dtype=np.int64)
    codes = map(_VIEWABLE.__getitem__, map(attrgetter("viewable"), events))
    viewable = np.fromiter(codes, dtype=np.int64, count=len(events))
    rows[:, BASE] = counted
    rows[:, BASE + 1] = counted & (viewable == 2)
    rows[:, BASE + 2] = counted & (viewable > 0)
    return rows


def _plays(events: Sequence[Event], counted: Flags) -> Rows:
    size = len(events)
    rows = np.zeros((size, width_of(Input.PLAYS)), dtype=np.int64)
    places = np.fromiter(map(_MILESTONE.__getitem__, map(attrgetter("milestone"), events)), dtype=np.int64, count=size)
    loops = np.fromiter(map(attrgetter("loop"), events), dtype=np.int64, count=size)
    watched = np.fromiter(map(attrgetter("watched_ms"), events), dtype=np.int64, count=size)
    codes = map(_VIEWABLE.__getitem__, map(attrgetter("viewable"), events))
    viewable = np.fromiter(codes, dtype=np.int64, count=size) == 2
    first, restarted = loops == 1, (loops > 1) & (places == _MILESTONE[Milestone.START])
    places[restarted] = index_of(Input.PLAYS, "loop_plays")
    counts = counted & (first | restarted)
    rows[np.arange(size), places] = counts
    rows[:, index_of(Input.PLAYS, "watched_ms")] = watched * counts
    rows[:, index_of(Input.PLAYS, "viewable_plays")] = counted & first & viewable
    return rows
