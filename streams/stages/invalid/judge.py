"""What an event is judged by as it is applied: lists and parameters, and the memory of its own input's log.

Everything here is a function of one log's prefix, so an event's flags do not depend on how reads interleave.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from streams.events import Conversion, Event, Input
from streams.invalid import BIT, InvalidRules, Mode, Rule
from streams.stages.invalid.clicks import ClickHabits
from streams.stages.invalid.general import GeneralJudge
from streams.stages.invalid.repeats import Orders
from streams.stages.invalid.replays import RepeatedClicks
from streams.state.dedupe import DedupeIndex

Bits = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
_TOO_SOON: Final = BIT[Rule.CONVERSION_TOO_SOON]
_HABITS: Final = (Rule.DOUBLE_CLICK, Rule.ACTIVITY_CAP)


class Judge:
    """The judge of one input."""

    def __init__(self, source: Input, rules: InvalidRules) -> None:
        self.source = source
        self._habits = ClickHabits(rules) if source is Input.CLICKS else None
        self._replays = RepeatedClicks(rules) if source is Input.CLICKS else None
        self._orders = Orders(rules) if source is Input.CONVERSIONS else None
        self.change_rules(rules)

    def change_rules(self, rules: InvalidRules) -> None:
        """New thresholds, switches and lists; what is remembered stays."""
        self.rules = rules
        self._general = GeneralJudge(self.source, rules)
        if self._habits is not None:
            self._habits, before = ClickHabits(rules), self._habits
            self._habits.restore(before.snapshot())
        if self._replays is not None:
            self._replays.rules = rules
        if self._orders is not None:
            self._orders, known = Orders(rules), self._orders
            self._orders.index, self._orders.newest_ms = known.index, known.newest_ms

    def judge(self, events: Sequence[Event], counted: Flags) -> Bits:
        """The flags of each event, as bits; of those that do not count none."""
        bits = self._general.judge(events)
        if self._habits is not None and self._replays is not None:
            bits = bits | self._habits.judge(events, counted) | self._replays.judge(events, counted)
        if self._orders is not None:
            bits = bits | self._orders.judge(events, counted) | self._too_soon(events)
        return np.where(counted, bits, 0)

    def _too_soon(self, events: Sequence[Event]) -> Bits:
        bits = np.zeros(len(events), dtype=np.int64)
        if self.rules.mode(Rule.CONVERSION_TOO_SOON) is Mode.OFF:
            return bits
        least = self.rules.conversion_after_ms
        for i, event in enumerate(events):
            delay_ms = delay_of(event)
            if delay_ms is not None and delay_ms < least.get(event.conversion_type, -1):  # type: ignore[attr-defined]
                bits[i] = _TOO_SOON
        return bits

    def is_decidable(self, events: Sequence[Event]) -> Flags:
        """Whether each event carries enough to be judged."""
        return self._general.is_decidable(events)

    def evidence(self, event: Event, rule: Rule) -> dict[str, Any]:
        """What was seen."""
        if rule in _HABITS and self._habits is not None:
            return self._habits.evidence(event, rule)
        if rule is Rule.REPEATED_CLICK and self._replays is not None:
            return self._replays.evidence(event)
        if rule is Rule.ORDER_REPEATED and self._orders is not None:
            return self._orders.evidence(event, rule)
        if rule is Rule.CONVERSION_TOO_SOON and type(event) is Conversion:
            least = self.rules.conversion_after_ms.get(event.conversion_type)
            return {"delay_ms": delay_of(event), "below_ms": least}
        return self._general.evidence(event, rule)

    def forget(self, newest_ms: int) -> None:
        """At a tick: what no event in time can be compared with any more."""
        if self._habits is not None:
            self._habits.forget(newest_ms)

    # Checkpoints

    def indexes(self) -> dict[str, DedupeIndex]:
        """The indexes of ids, by name: their runs are segments."""
        found = {}
        if self._replays is not None:
            found = {f"replays-{at}": index for at, index in enumerate(self._replays.indexes)}
        if self._orders is not None:
            found["orders"] = self._orders.index
        return found

    def snapshot(self) -> dict[str, Any]:
        """Everything but the indexes' runs, as plain values."""
        return {
            "habits": self._habits and self._habits.snapshot(),
            "replays": self._replays and self._replays.head(),
            "orders_ms": self._orders and self._orders.newest_ms,
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Takes back what `snapshot` gave."""
        if self._habits is not None:
            self._habits.restore(snapshot["habits"])
        if self._replays is not None:
            self._replays.restore(snapshot["replays"])
        if self._orders is not None:
            self._orders.newest_ms = snapshot["orders_ms"]


def delay_of(event: Event) -> int | None:
    """From the touch that a conversion is credited to until the conversion, ms; None: it does not tell."""
    touch = event.attribution if type(event) is Conversion else None
    if touch is None or touch.touch_time_ms is None:
        return None
    return event.event_time_ms - touch.touch_time_ms
