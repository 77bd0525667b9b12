"""Clicks that repeat one impression: sent again with an id of their own, so de-duplication does not see them."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from streams.events import Click, Event
from streams.invalid import BIT, MAX_REPEATS, InvalidRules, Mode, Rule
from streams.rules import DAY_MS, Horizon
from streams.state.dedupe import DUPLICATE, DedupeIndex

MEMORY: Final = Horizon(DAY_MS, DAY_MS, 5_000_000)
_BIT: Final = BIT[Rule.REPEATED_CLICK]


class RepeatedClicks:
    """Counts the clicks of each impression, up to the rules' limit, within a day, in the order of the log.

    A cascade of indexes: the first knows every impression that was clicked, the second those that were clicked twice,
    and so on. 22 bytes an impression in the first; the others are small. Clicks of a type with a limit of its own are
    counted by themselves.
    """

    def __init__(self, rules: InvalidRules) -> None:
        self.rules = rules
        self.indexes = [DedupeIndex(MEMORY) for _ in range(MAX_REPEATS)]
        self._newest_ms = -1

    def judge(self, events: Sequence[Event], counted: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """The bit of every click beyond the limit."""
        bits = np.zeros(len(events), dtype=np.int64)
        if self.rules.mode(Rule.REPEATED_CLICK) is Mode.OFF:
            return bits
        at = np.array([event.event_time_ms for event in events], dtype=np.int64)
        newest = np.maximum(np.maximum.accumulate(at), self._newest_ms)
        self._newest_ms = int(newest[-1]) if len(events) else self._newest_ms
        left = [i for i in np.flatnonzero(counted).tolist() if events[i].impression_id is not None]
        for level, index in enumerate(self.indexes):
            if self.rules.max_clicks_per_impression_by_type or level == self.rules.max_clicks_per_impression:
                beyond = [i for i in left if self._limit(events[i]) == level]
                bits[beyond] = _BIT
                left = [i for i in left if self._limit(events[i]) > level]
            if not left:
                return bits
            outcomes = index.admit([self._counted_by(events[i]) for i in left], at[left], newest[left])
            left = [i for i, outcome in zip(left, outcomes.tolist(), strict=True) if outcome == DUPLICATE]
        bits[left] = _BIT
        return bits

    def _limit(self, click: Event) -> int:
        assert isinstance(click, Click)
        return self.rules.most_repeats(click.click_type)

    def _counted_by(self, click: Event) -> str:
        """The impression, and the type where it has a limit of its own."""
        assert isinstance(click, Click)
        apart = click.click_type in self.rules.max_clicks_per_impression_by_type
        return f"{click.impression_id}\n{click.click_type}" if apart else click.impression_id or ""

    def evidence(self, event: Event) -> dict[str, Any]:
        """What was seen."""
        return {"impression_id": event.impression_id, "clicks_above": self._limit(event)}

    def pack(self) -> None:
        """Before a checkpoint."""
        for index in self.indexes:
            index.pack(self._newest_ms)

    def head(self) -> dict[str, Any]:
        """What a checkpoint keeps besides the indexes' runs."""
        return {"newest_ms": self._newest_ms}

    def restore(self, head: dict[str, Any]) -> None:
        """Takes back what `head` gave."""
        self._newest_ms = head["newest_ms"]
