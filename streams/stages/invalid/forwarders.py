"""How far the evidence is complete: the least watermark of the partitions that forward it."""

from typing import Any, Final

from streams.verdicts import EvidenceBatch

NEVER: Final = -1


class Forwarders:
    """What each partition said last. Bounded by their number."""

    def __init__(self) -> None:
        self.watermark_ms = NEVER
        """Never goes back: a partition that wakes up behind it brings late clicks."""
        self._said: dict[int, tuple[int, int, bool]] = {}
        """By partition: sequence, watermark, whether it is idle."""

    def hear(self, batch: EvidenceBatch) -> None:
        """Takes what a batch says; what an older one says, or one that comes again, is known."""
        known = self._said.get(batch.from_partition)
        if known is None or batch.sequence >= known[0]:
            newest_ms = max(batch.watermark_ms, known[1] if known else NEVER)
            self._said[batch.from_partition] = (batch.sequence, newest_ms, batch.is_idle)

    def advance(self) -> int:
        """The watermark: idle partitions are not waited for. Where all are idle, all that they had is here."""
        busy = [at_ms for _, at_ms, is_idle in self._said.values() if not is_idle]
        everyone = [at_ms for _, at_ms, _ in self._said.values()]
        self.watermark_ms = max(self.watermark_ms, min(busy) if busy else max(everyone, default=NEVER))
        return self.watermark_ms

    def snapshot(self) -> dict[str, Any]:
        """Plain values."""
        return {"watermark_ms": self.watermark_ms, "said": [[each, *said] for each, said in sorted(self._said.items())]}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Takes back what `snapshot` gave."""
        self.watermark_ms = snapshot["watermark_ms"]
        self._said = {each: (sequence, at_ms, is_idle) for each, sequence, at_ms, is_idle in snapshot["said"]}
