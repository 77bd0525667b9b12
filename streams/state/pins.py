"""Which checkpoints are pinned: the last of each day of the ticks' wall time, for replays to start from.

What is pinned is a function of the manifests that are there, so whoever takes a partition over comes to the same: no
list of pins has to be kept, and no crash can lose one. The last of a day, and not the first: what a fenced owner still
names late always stands before one that its successor has named, and may refer to segments that have gone.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from streams.rules import DAY_MS
from streams.state.recovery import NamedManifest


class Pins(NamedTuple):
    """How many checkpoints are pinned, and how far apart."""

    keep: int = 0
    """The newest so many are kept, beside the two that every owner keeps; older ones are deleted."""
    every_ms: int = DAY_MS
    """Of wall time, since the epoch: days are UTC."""

    def of(self, manifests: Sequence[NamedManifest]) -> list[NamedManifest]:
        """The pinned ones, oldest first. The newest of all stands for its own day, and is not counted."""
        if not self.keep:
            return []
        dated = [(named.manifest, named) for named in manifests if named.manifest and named.manifest.wall_ms]
        last: dict[int, NamedManifest] = {}
        for manifest, named in sorted(dated, key=lambda each: each[0].journal_offset):
            day = manifest.wall_ms // self.every_ms
            last.pop(day, None)  # the order is that of the journal, whatever a wrong clock says
            last[day] = named
        return list(last.values())[-self.keep - 1 : -1]


NO_PINS: Final = Pins()
