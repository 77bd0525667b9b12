"""How old the oldest record of a tick was when ClickHouse had acknowledged the tick's rows.

An upper bound of the latency from append to visible, for live traffic; for history it says how old history is.
"""

from collections import deque

SAMPLES = 4_096
"""Ticks that the summary looks back on."""


class VisibleLatency:
    """Samples of one worker, ms."""

    def __init__(self) -> None:
        self._arriving: dict[int, int] = {}
        self._waiting: dict[int, deque[tuple[int, int]]] = {}
        self._samples: deque[int] = deque(maxlen=SAMPLES)

    def arrived(self, partition: int, timestamp_ms: int) -> None:
        """A range was applied whose first record has this timestamp."""
        before = self._arriving.get(partition)
        if before is None or timestamp_ms < before:
            self._arriving[partition] = timestamp_ms

    def proposed(self, partition: int) -> int | None:
        """A tick is proposed: what arrives from now on is the next one's."""
        return self._arriving.pop(partition, None)

    def confirmed(self, partition: int, oldest_ms: int | None, was_confirmed: bool, version: int) -> None:
        """The tick was confirmed with this version; or it was not due, and what arrived still waits."""
        if oldest_ms is None:
            return
        if was_confirmed:
            self._waiting.setdefault(partition, deque(maxlen=SAMPLES)).append((version, oldest_ms))
        else:
            self.arrived(partition, oldest_ms)

    def acknowledged(self, partition: int, oldest_dirty_version: int | None, now_ms: int) -> None:
        """Rows below this version (None: all) are visible."""
        waiting = self._waiting.get(partition)
        while waiting and (oldest_dirty_version is None or waiting[0][0] < oldest_dirty_version):
            self._samples.append(now_ms - waiting.popleft()[1])

    def summary(self) -> dict[str, int] | None:
        """p50 and p99 of the last ticks, ms; None without samples."""
        if not self._samples:
            return None
        ordered = sorted(self._samples)
        last = len(ordered) - 1
        return {"p50": ordered[last // 2], "p99": ordered[round(last * 0.99)], "ticks": len(ordered)}
