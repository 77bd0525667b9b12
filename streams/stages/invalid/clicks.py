"""The general rules that need a little memory of a partition's clicks: double clicks and the activity cap.

What is remembered is bounded by the log itself, not by time: two generations of traces, of which the older is let go
when the younger is full, and a trace that is met again moves to the younger one. So what is known at a click depends
on the clicks before it in the log alone, and one who clicks on and on is never forgotten for want of room, unless
`MAX_TRACES` others begin between two of his clicks.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xxhash

from streams.events import Click, Event
from streams.invalid import BIT, InvalidRules, Rule

HOUR_MS: Final = 3_600_000
LOOK_BACK_MS: Final = 24 * HOUR_MS
"""Clicks further behind the newest are not judged: what they would be compared with may be forgotten."""
MAX_DOUBLE_CLICK_MS: Final = 24 * HOUR_MS  # the largest that the rules allow
MAX_TRACES: Final = 65_536
"""Of one rule and generation; a partition keeps at most four times as many, about 120 bytes each (32 MB)."""

Bits = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class Traces:
    """Numbers by 64-bit hashes: at most two generations of `MAX_TRACES`.

    Two keys share a hash with a chance of 1 in 10^14 a click.
    """

    def __init__(self) -> None:
        self.young: dict[int, int] = {}
        self.old: dict[int, int] = {}

    def get(self, key: int) -> int | None:
        """The number last set, if it is still remembered."""
        found = self.young.get(key)
        return self.old.get(key) if found is None else found

    def set(self, key: int, value: int) -> None:
        """Remembers a number, as the youngest."""
        if len(self.young) >= MAX_TRACES and key not in self.young:
            self.old, self.young = self.young, {}
        self.young[key] = value

    def forget_old(self, below: int, shift: int = 0) -> None:
        """Drops numbers (shifted right) below a bound from the older generation. The younger one's size is state."""
        if self.old:
            self.old = {key: value for key, value in self.old.items() if value >> shift >= below}

    def snapshot(self) -> list[bytes]:
        """Keys and numbers of both generations, in the order in which they were set."""
        columns = []
        for traces in (self.young, self.old):
            columns.append(np.fromiter(traces.keys(), dtype="<u8", count=len(traces)).tobytes())
            columns.append(np.fromiter(traces.values(), dtype="<i8", count=len(traces)).tobytes())
        return columns

    def restore(self, columns: Sequence[bytes]) -> None:
        """Takes back what `snapshot` gave."""
        keys, values = columns[::2], columns[1::2]
        self.young, self.old = (
            dict(zip(np.frombuffer(k, "<u8").tolist(), np.frombuffer(v, "<i8").tolist(), strict=True))
            for k, v in zip(keys, values, strict=True)
        )


_COUNT_BITS: Final = 22
_MAX_COUNT: Final = (1 << _COUNT_BITS) - 1
"""A count stands below its hour's number: more clicks an hour are not told apart."""


class ClickHabits:
    """Judges one partition's clicks in offset order. Only clicks that count leave a trace.

    A person is a user, or a device where the user is unknown; clicks of neither are not judged.
    """

    def __init__(self, rules: InvalidRules) -> None:
        self.rules = rules
        self.newest_ms = -1
        active = rules.active
        self._double = active & BIT[Rule.DOUBLE_CLICK]
        self._cap = active & BIT[Rule.ACTIVITY_CAP]
        self._doubles = Traces()
        self._hours = Traces()
        self._seen: dict[tuple[str, Rule], int] = {}

    def judge(self, events: Sequence[Event], counted: Flags) -> Bits:
        """Bits of the rules that each click falls under; none for one that does not count."""
        bits = np.zeros(len(events), dtype=np.int64)
        self._seen.clear()
        if not (self._double or self._cap) or not counted.any():
            return bits
        at = np.array([event.event_time_ms for event in events], dtype=np.int64)
        newest = np.maximum(np.maximum.accumulate(np.where(counted, at, -1)), self.newest_ms)
        self.newest_ms = int(newest[-1])
        for i in np.flatnonzero(counted & (at >= newest - LOOK_BACK_MS)).tolist():
            click = events[i]
            person = click.user_id or click.device_id
            if person:
                found = self._judge_double(click, person) if self._double else 0
                if self._cap:
                    found |= self._judge_cap(click, person)
                if found:
                    bits[i] = found
        return bits

    def _judge_double(self, click: Event, person: str) -> int:
        """The same thing clicked again: another product or another kind of click is another wish."""
        assert isinstance(click, Click)
        creative, campaign = click.creative_id, click.campaign_id
        if creative is None and campaign is None:
            return 0
        key = _hash(f"{person}\n{campaign}\n{click.ad_unit_id}\n{creative}\n{click.click_type}\n{click.product_id}")
        at_ms = click.event_time_ms
        before_ms = self._doubles.get(key)
        self._doubles.set(key, at_ms)
        if before_ms is None or abs(at_ms - before_ms) > self.rules.double_click(click.click_type):
            return 0
        self._seen[click.event_id, Rule.DOUBLE_CLICK] = at_ms - before_ms
        return self._double

    def _judge_cap(self, click: Event, person: str) -> int:
        assert isinstance(click, Click)
        if click.campaign_id is None:
            return 0
        hour = click.event_time_ms // HOUR_MS
        apart = f"\n{click.click_type}" if click.click_type in self.rules.activity_clicks_by_type else ""
        key = _hash(f"{person}\n{click.campaign_id}\n{hour}{apart}")
        count = min((self._hours.get(key) or 0) & _MAX_COUNT, _MAX_COUNT - 1) + 1
        self._hours.set(key, hour << _COUNT_BITS | count)
        if count <= self.rules.most_active(click.click_type):
            return 0
        self._seen[click.event_id, Rule.ACTIVITY_CAP] = count
        return self._cap

    def evidence(self, event: Event, rule: Rule) -> dict[str, Any]:
        """What the rule saw in an event that the last call of `judge` flagged."""
        assert isinstance(event, Click)
        seen, kind = self._seen.get((event.event_id, rule)), event.click_type
        if rule is Rule.DOUBLE_CLICK:
            return {"since_previous_ms": seen, "double_click_ms": self.rules.double_click(kind)}
        found = {"clicks_in_hour": seen, "activity_clicks": self.rules.most_active(kind)}
        return found | ({"click_type": kind.value} if kind in self.rules.activity_clicks_by_type else {})

    def forget(self, newest_ms: int) -> None:
        """Drops what no click that is judged can meet any more, under whatever thresholds. Changes no answer."""
        oldest_ms = min(newest_ms, self.newest_ms) - LOOK_BACK_MS
        self._doubles.forget_old(oldest_ms - MAX_DOUBLE_CLICK_MS)
        self._hours.forget_old(oldest_ms // HOUR_MS, _COUNT_BITS)

    def snapshot(self) -> Any:
        """What is remembered, as plain values for MessagePack."""
        return [self.newest_ms, self._doubles.snapshot(), self._hours.snapshot()]

    def restore(self, snapshot: Any) -> None:
        """Takes back what `snapshot` gave, also under other rules."""
        self.newest_ms, doubles, hours = snapshot
        self._doubles.restore(doubles)
        self._hours.restore(hours)


def _hash(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode())
