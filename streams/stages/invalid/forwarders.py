"""How far the evidence is complete: the least watermarks of the partitions that forward it.

There are two: of clicks alone, and of clicks **and** the conversions that are credited to them. A click without a
conversion means nothing before the latter. Nothing is complete before every partition has said something.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from streams.verdicts import EvidenceBatch

NEVER: Final = -1


class Said(NamedTuple):
    """What a partition said last."""

    sequence: int
    clicks_ms: int
    credited_ms: int
    is_idle: bool


class Forwarders:
    """What each partition said last. Bounded by their number."""

    def __init__(self, partitions: int = 1) -> None:
        self.partitions = partitions
        """So many forward evidence; one without clicks says that it is idle."""
        self.watermark_ms = NEVER
        """Never goes back: a partition that wakes up behind it brings late clicks."""
        self.credited_ms = NEVER
        """Up to which conversions are here, too: never beyond the watermark of clicks, and never back."""
        self._said: dict[int, Said] = {}

    def hear(self, batch: EvidenceBatch) -> None:
        """Takes what a batch says; what an older one says, or one that comes again, is known."""
        known = self._said.get(batch.from_partition)
        if known is None or batch.sequence >= known.sequence:
            clicks_ms = max(batch.watermark_ms, known.clicks_ms if known else NEVER)
            credited_ms = max(batch.credited_ms, known.credited_ms if known else NEVER)
            self._said[batch.from_partition] = Said(batch.sequence, clicks_ms, credited_ms, batch.is_idle)

    def advance(self) -> int:
        """The watermark: idle partitions are not waited for. Where all are idle, all that they had is here."""
        self.watermark_ms = max(self.watermark_ms, self._least(lambda said: said.clicks_ms))
        self.credited_ms = max(self.credited_ms, min(self._least(lambda said: said.credited_ms), self.watermark_ms))
        return self.watermark_ms

    def _least(self, of: Callable[[Said], int]) -> int:
        if len(self._said) < self.partitions:
            return NEVER
        busy = [of(said) for said in self._said.values() if not said.is_idle]
        return min(busy) if busy else max(map(of, self._said.values()), default=NEVER)

    def snapshot(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "watermark_ms": self.watermark_ms,
            "credited_ms": self.credited_ms,
            "said": [[each, *said] for each, said in sorted(self._said.items())],
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Takes back what `snapshot` gave."""
        self.watermark_ms = snapshot["watermark_ms"]
        self.credited_ms = snapshot["credited_ms"]
        self._said = {each: Said(*said) for each, *said in snapshot["said"]}
