"""What a busy source need not show again: a farm's thousands of clicks are weighed once, not with each new click.

A source's **anchor** is the beginning of its last interval that reaches the threshold. Let a new click come at or
after all held ones. An interval that begins before the anchor and contains the new click contains every click since
the anchor, so it reached the threshold before the new click came, and what it flags was told. So only clicks from the
anchor on can tell anything new. Where a click comes out of order nothing is left out; under other rules anchors begin
anew.
"""

from typing import Any, Final

import numpy as np

from streams.stages.invalid.runs import Ints, Keys, chosen
from streams.stages.invalid.sliding import Timeline
from streams.verdicts import Clicks

FIELDS: Final = ("sources", "from_ms", "newest_ms")


class Anchors:
    """Of what one rule counts together, of sources that reached its threshold within its window: 24 bytes each."""

    def __init__(self) -> None:
        self.sources: Keys = np.zeros(0, dtype="<u8")
        self.from_ms: Ints = np.zeros(0, dtype=np.int64)
        self.newest_ms: Ints = np.zeros(0, dtype=np.int64)

    def needed(self, old: Clicks, new: Clicks) -> Clicks:
        """Those of the held clicks that can tell something new, when these come."""
        if not len(self.sources):
            return old
        from_ms = self.from_ms.copy()
        places = np.searchsorted(self.sources, new["source"])
        places[places == len(self.sources)] = 0
        is_early = (self.sources[places] == new["source"]) & (new["at_ms"] < self.newest_ms[places])
        from_ms[places[is_early]] = 0
        places = np.searchsorted(self.sources, old["source"])
        places[places == len(self.sources)] = 0
        is_past = (self.sources[places] == old["source"]) & (old["at_ms"] < from_ms[places])
        return chosen(old, ~is_past)

    def learn(self, clicks: Clicks, line: Timeline, reaching: Any, window_ms: int) -> None:
        """After a look: the sources that it weighed, in order, and the intervals that reached the threshold."""
        if not line.size:
            return
        ends = np.append(np.flatnonzero(line.first)[1:], line.size) - 1
        last = np.full(len(ends), -1, dtype=np.int64)
        np.maximum.at(last, line.group[reaching], np.flatnonzero(reaching))
        known = last >= 0
        kept = ~np.isin(self.sources, clicks["source"][ends])
        kept &= self.newest_ms >= clicks["at_ms"].max() - window_ms
        sources = np.concatenate((self.sources[kept], clicks["source"][ends[known]]))
        order = np.argsort(sources)
        self.sources = sources[order]
        self.from_ms = np.concatenate((self.from_ms[kept], clicks["at_ms"][last[known]]))[order]
        self.newest_ms = np.concatenate((self.newest_ms[kept], clicks["at_ms"][ends[known]]))[order]

    def snapshot(self) -> list[bytes]:
        """Plain values."""
        return [getattr(self, name).tobytes() for name in FIELDS]

    def restore(self, snapshot: list[bytes]) -> None:
        """Takes back what `snapshot` gave."""
        self.sources = np.frombuffer(snapshot[0], dtype="<u8")
        self.from_ms, self.newest_ms = (np.frombuffer(data, dtype=np.int64) for data in snapshot[1:])
