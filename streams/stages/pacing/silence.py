"""What may have been spent while nothing was heard: assumed, until it comes or long enough has passed.

While an input is unknown, or event time stands, spend goes on at the rate that is in force. It is expected, held
against the budget, and let go slowly once the input is back: so the end of a silence is no reason to catch up.
"""

from math import exp
from typing import Final

from streams.rules import MINUTE_MS

GAP_MS: Final = 30_000
"""Event time that moves on by more than this between two looks was silent in between."""
HOLD_MS: Final = 15 * MINUTE_MS
"""How long at most what is missing is held in full, after a silence."""
LEAST_HOLD_MS: Final = MINUTE_MS
RELEASE_MS: Final = 5 * MINUTE_MS


class Silence:
    """Of one campaign."""

    def __init__(self) -> None:
        self.missing = 0.0
        """Spend that is assumed, millimicros."""
        self.from_ms = 0
        self.to_ms = 0
        self.hold_to_ms = -1

    def hear(self, now_ms: int, elapsed_ms: int, is_silent: bool, expected: float, arrived: int, late: int) -> None:
        """One look: what was expected since the last, what came, and how much of that belongs to the silence."""
        if is_silent:
            if now_ms - elapsed_ms > self.to_ms:
                self.from_ms = now_ms - elapsed_ms
            self.to_ms = now_ms
            self.missing = max(0.0, self.missing + expected - arrived)
            self.hold_to_ms = now_ms + min(HOLD_MS, max(LEAST_HOLD_MS, 2 * (now_ms - self.from_ms)))
            return
        if self.missing <= 0.0:
            return
        self.missing = max(0.0, self.missing - late)
        if now_ms > self.hold_to_ms:
            self.missing *= exp(-elapsed_ms / RELEASE_MS)
            if self.missing < 1.0:
                self.missing = 0.0

    def is_held(self, now_ms: int) -> bool:
        """Whether the silence is so recent that rates must not rise."""
        return now_ms < min(self.hold_to_ms, self.to_ms + LEAST_HOLD_MS)

    def snapshot(self) -> list[float]:
        """Builtin values."""
        return [self.missing, self.from_ms, self.to_ms, self.hold_to_ms]

    def restore(self, snapshot: list[float]) -> None:
        """Takes back what `snapshot` gave."""
        self.missing = float(snapshot[0])
        self.from_ms, self.to_ms, self.hold_to_ms = (int(at) for at in snapshot[1:])
