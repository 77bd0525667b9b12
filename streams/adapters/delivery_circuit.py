"""A receiver's circuit: after some failures in a row it is left in peace for a while, and then probed once."""

from enum import StrEnum


class CircuitState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Circuit:
    """Times are seconds of any clock that does not go back; the caller says what time it is."""

    def __init__(self, failures: int, open_s: float) -> None:
        self.limit = failures
        self.open_s = open_s
        self.failures = 0
        """In a row."""
        self.opened = 0
        """How often it has opened since the start."""
        self._until_s = 0.0

    def state(self, now_s: float) -> CircuitState:
        """Open, half open (one probe may pass), or closed."""
        if self.failures < self.limit:
            return CircuitState.CLOSED
        return CircuitState.OPEN if now_s < self._until_s else CircuitState.HALF_OPEN

    def wait_s(self, now_s: float) -> float:
        """How long to wait before the next attempt."""
        return max(0.0, self._until_s - now_s) if self.failures >= self.limit else 0.0

    def succeeded(self) -> None:
        """The receiver answered: closed."""
        self.failures = 0

    def failed(self, now_s: float) -> None:
        """One more failure in a row; a probe that fails opens it again."""
        self.failures += 1
        if self.failures >= self.limit:
            self.opened += 1
            self._until_s = now_s + self.open_s
