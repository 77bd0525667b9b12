"""Which inputs are unknown: silent although, at their usual rate, something should have come.

A tick says which topics have been silent for a while. An input with a handful of records an hour is often silent; one
with hundreds a second never is. Impressions are always unknown when they are silent: everything else follows them.
"""

from collections.abc import Iterable, Mapping
from math import exp
from typing import Any, Final

from streams.events import Input

RATE_TAU_MS: Final = 5 * 60_000
"""The usual rate is an average over about so much wall time, without silences."""
SILENT_MS: Final = 10_000
"""What a topic must at least be silent for, by default, before a tick says so."""
EXPECTED_RECORDS: Final = 5.0
"""With so many records expected, none comes by chance in one of 150 cases (Poisson)."""


class UsualRates:
    """Records per ms of wall time, by input."""

    def __init__(self) -> None:
        self._rates: dict[Input, float] = {}
        self._wall_ms = 0
        self._consumed: dict[Input, int] = {}

    def unknown(
        self, wall_ms: int, consumed: Mapping[Input, int], silent: Iterable[Input], is_catching_up: bool
    ) -> frozenset[Input]:
        """At a tick: learns the rates of what is not silent, and tells what is unknown."""
        silent = frozenset(silent)
        elapsed_ms = wall_ms - self._wall_ms
        if elapsed_ms > 0:
            if self._wall_ms and not is_catching_up:
                self._learn(elapsed_ms, consumed, silent)
            self._wall_ms, self._consumed = wall_ms, dict(consumed)
        return frozenset(source for source in silent if consumed[source] and self._is_missed(source))

    def _learn(self, elapsed_ms: int, consumed: Mapping[Input, int], silent: frozenset[Input]) -> None:
        share = 1 - exp(-elapsed_ms / RATE_TAU_MS)
        for source, count in consumed.items():
            if source not in silent:
                rate = (count - self._consumed.get(source, 0)) / elapsed_ms
                before = self._rates.get(source, rate)
                self._rates[source] = before + share * (rate - before)

    def _is_missed(self, source: Input) -> bool:
        return source is Input.IMPRESSIONS or self._rates.get(source, 0.0) * SILENT_MS >= EXPECTED_RECORDS

    def snapshot(self) -> dict[str, Any]:
        """Plain values."""
        return {"rates": self._rates, "wall_ms": self._wall_ms, "consumed": self._consumed}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Takes back what `snapshot` gave."""
        self._rates = {Input(source): rate for source, rate in snapshot["rates"].items()}
        self._wall_ms = snapshot["wall_ms"]
        self._consumed = {Input(source): count for source, count in snapshot["consumed"].items()}
