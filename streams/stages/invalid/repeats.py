"""An order that is reported twice in the same state.

Placed, then paid, then refunded is life. The same order placed a second time is a conversion that would be billed
twice. The first in the log counts.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from streams.events import Conversion, Event
from streams.invalid import BIT, InvalidRules, Rule
from streams.rules import DAY_MS, Horizon
from streams.state import dedupe
from streams.state.dedupe import DedupeIndex

REMEMBERED_MS: Final = 30 * DAY_MS
"""By event time. An order that comes later than this behind the newest one is not judged."""
MAX_ORDERS: Final = 5_000_000
"""Of one partition, 20 bytes each once packed (100 MB); beyond it the oldest day's are forgotten and not judged."""
WHOLE_PPM: Final = 1_000_000

Bits = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class Orders:
    """Judges one partition's conversions in offset order. Only conversions that count leave a trace.

    A checkpoint keeps `index` as it keeps the index of event ids, and `newest_ms`.
    """

    def __init__(self, rules: InvalidRules) -> None:
        self.rules = rules
        self.index = DedupeIndex(Horizon(REMEMBERED_MS, REMEMBERED_MS, MAX_ORDERS))
        self.newest_ms = -1
        self._bit = rules.active & BIT[Rule.ORDER_REPEATED]

    def judge(self, events: Sequence[Event], counted: Flags) -> Bits:
        """The bit of each conversion that repeats an order; none for one that does not count."""
        bits = np.zeros(len(events), dtype=np.int64)
        chosen = [i for i in np.flatnonzero(counted).tolist() if events[i].order_id] if self._bit else []
        if not chosen:
            return bits
        at = np.array([events[i].event_time_ms for i in chosen], dtype=np.int64)
        newest = np.maximum(np.maximum.accumulate(at), self.newest_ms)
        outcomes = self.index.admit([order_key(events[i]) for i in chosen], at, newest)
        self.newest_ms = int(newest[-1])
        bits[np.array(chosen)[outcomes == dedupe.DUPLICATE]] = self._bit
        if len(self.index.fresh) > dedupe.PACK_AT:
            self.index.pack(self.newest_ms)
        return bits

    def evidence(self, event: Event, rule: Rule) -> dict[str, Any]:
        """What the rule saw in a conversion that it flagged."""
        if rule is not Rule.ORDER_REPEATED or not isinstance(event, Conversion):
            return {}
        return {
            "order_id": event.order_id,
            "conversion_type": event.conversion_type.value,
            "remembered_ms": REMEMBERED_MS,
        }


def order_key(event: Event) -> str:
    """What must not come twice: an order in a state; where its credit is shared, once for each touch."""
    assert isinstance(event, Conversion)
    key = f"{event.conversion_type}:{event.order_id}"
    touch = event.attribution
    return key if touch is None or touch.weight_ppm == WHOLE_PPM else f"{key}\n{touch.touch_id}"
