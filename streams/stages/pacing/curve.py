"""Expected unthrottled traffic from now to a period's end, as sums that any two moments can be read off."""

from bisect import bisect_left
from collections.abc import Callable
from itertools import accumulate
from typing import Any, Final

from streams.rules import HOUR_MS, MINUTE_MS

SESSION_STEP_MS: Final = 5 * MINUTE_MS
MAX_STEPS: Final = 300


class Curve:
    """Piecewise linear. Made anew every few minutes, so it is state, and kept."""

    __slots__ = ("start_ms", "step_ms", "sums")

    def __init__(self, start_ms: int, step_ms: int, sums: list[float]) -> None:
        self.start_ms = start_ms
        self.step_ms = step_ms
        self.sums = sums

    @property
    def length_ms(self) -> int:
        """How long a time it covers."""
        return self.step_ms * (len(self.sums) - 1)

    def _at(self, at_ms: float) -> float:
        place = (at_ms - self.start_ms) / self.step_ms
        if place <= 0:
            return 0.0
        if place >= len(self.sums) - 1:
            return self.sums[-1]
        step = int(place)
        below = self.sums[step]
        return below + (self.sums[step + 1] - below) * (place - step)

    def between(self, from_ms: float, to_ms: float) -> float:
        """Carriers that are expected at rate 1."""
        return self._at(to_ms) - self._at(from_ms)

    def density(self, at_ms: int) -> float:
        """Carriers per ms at rate 1."""
        step = min(max(0, (at_ms - self.start_ms) // self.step_ms), len(self.sums) - 2)
        return (self.sums[step + 1] - self.sums[step]) / self.step_ms

    def reached_at(self, from_ms: int, carriers: float) -> int | None:
        """When so many carriers will have come since `from_ms`; None: not within the curve."""
        wanted = self._at(from_ms) + carriers
        if wanted > self.sums[-1]:
            return None
        step = max(1, bisect_left(self.sums, wanted))
        below, above = self.sums[step - 1], self.sums[step]
        part = (wanted - below) / (above - below) if above > below else 1.0
        return max(from_ms, int(self.start_ms + (step - 1 + part) * self.step_ms))

    def pack(self) -> list[Any]:
        """Builtin values."""
        return [self.start_ms, self.step_ms, list(self.sums)]


def make_curve(start_ms: int, end_ms: int, step_ms: int, density: Callable[[int], float]) -> Curve:
    """Sums `density` (carriers per ms, told for the start of each step) from a step's start to behind the end."""
    start = start_ms // step_ms * step_ms if step_ms == HOUR_MS else start_ms
    steps = min(MAX_STEPS, max(1, -(-(end_ms - start) // step_ms)))
    parts = [density(start + at * step_ms) * step_ms for at in range(steps)]
    return Curve(start, step_ms, list(accumulate(parts, initial=0.0)))
