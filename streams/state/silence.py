"""Which inputs are unknown: silent although, by their own habits, something should have come.

A tick says which topics have been silent for a while. How long an input may be silent is its own: it is **missed** once
`EXPECTED_RECORDS` should have come at its usual rate, and the silence is twice as long as those that it usually makes
(inputs that come in bursts make long ones). Impressions are unknown whenever they are silent: everything follows them.
While these come, as many records must be missing by the impressions shown lately, too: where campaigns are stopped or
throttled little is to come, and what is thought unknown then would keep them stopped. So an input is not missed while
less than a quarter of the usual impressions is shown.

Usual is what was heard: a silence that was missed is unknown, never zero, so it teaches only as much as it lasted
before it was missed. An input that has become rarer is therefore missed a few times, each time later, and then no more.

To miss an input costs little: rates hold, advertisers hear nothing. To **alarm** operations needs more than that: an
input that comes in bursts is missed in each of its first pauses, for its habits are not known yet. What is missed is
alarming once it was heard for `HEARD_TIMES` as long as the silence after which it is missed (no pause half as long was
among it) and for `NEW_MS`, or, whatever is known of it, once the silence lasts `ALARMING_MS`.
"""

from collections.abc import Iterable, Mapping
from math import exp, inf
from typing import Any, Final

import msgspec

from streams.events import Input

RATE_TAU_MS: Final = 5 * 60_000
"""The usual rate is an average over about so much wall time,"""
RATE_RECORDS: Final = 50.0
"""and over so many records: few of them take longer."""
EXPECTED_RECORDS: Final = 8.0
"""With so many records expected, none comes by chance in one of 3,000 cases (Poisson). Fewer seen tell no rate."""
SILENCES: Final = 2.0
"""A silence is missed when it lasts so many times as long as the longest usual one."""
LATELY: Final = 4.0
"""Impressions are counted over about so many times as long as a silence that is missed: then a quarter must come."""
SILENCE_TAU_MS: Final = 6 * 3_600_000
"""How long the longest usual silence is remembered, wall time in which the input was heard."""


HEARD_TIMES: Final = 20.0
"""The rule of three: what did not begin in a time H begins at most 3 / H times in any (95%). So in a twentieth of H a
pause of this length, if it is one of the input's habits, begins in one of seven cases at most."""
NEW_MS: Final = 15 * 60_000
ALARMING_MS: Final = 3_600_000


class Usual(msgspec.Struct):
    """One input's habits, wall time."""

    records: float = 0.0
    """Decayed, and the time that they took: their ratio is the usual rate."""
    time_ms: float = 0.0
    shown: float = 0.0
    """Impressions in that time; 0: none are told."""
    silence_ms: float = 0.0
    """The longest usual silence, decayed: as ticks saw it."""
    heard_ms: int = -1
    """The last tick at which something had come; -1: not since this is looked at."""
    silent_ms: int = 0
    """How long it has been silent now, at the last tick."""
    silent_shown: int = 0
    """Impressions since it was heard,"""
    lately_shown: float = 0.0
    """and of these the latest: decayed."""
    known_ms: float = 0.0
    """All the time that its habits were learned from."""

    def is_missed(self, are_impressions_silent: bool) -> bool:
        """Whether something should have come since it was heard."""
        if self.silent_ms < self.missed_after_ms():
            return False
        return are_impressions_silent or self.lately_shown * self.records >= EXPECTED_RECORDS * self.shown

    def is_alarming(self) -> bool:
        """Whether enough is known of it, or it has been silent for long enough, to alarm where it is missed."""
        enough_ms = max(NEW_MS, HEARD_TIMES * self.missed_after_ms())
        return self.known_ms >= enough_ms or self.silent_ms >= ALARMING_MS

    def missed_after_ms(self) -> float:
        """How long a silence must last until something should have come; infinite while too little is known."""
        if self.records < EXPECTED_RECORDS or self.time_ms <= 0:
            return inf
        return max(EXPECTED_RECORDS * self.time_ms / self.records, SILENCES * self.silence_ms)

    def hear(self, wall_ms: int, records: int, shown: int, is_learning: bool) -> None:
        """At a tick: so many records have come since the last one, and impressions."""
        shown = shown if is_learning else 0
        self.silent_shown += shown
        if not records:
            before_ms, self.silent_ms = self.silent_ms, wall_ms - self.heard_ms if self.heard_ms >= 0 else 0
            keep = exp((before_ms - self.silent_ms) / (LATELY * self.missed_after_ms()))
            self.lately_shown = self.lately_shown * keep + shown
            return
        if is_learning and self.heard_ms >= 0:
            self._learn(wall_ms - self.heard_ms, records)
        self.heard_ms, self.silent_ms = wall_ms, 0
        self.silent_shown, self.lately_shown = 0, 0.0

    def _learn(self, elapsed_ms: int, records: int) -> None:
        """From the time since it was heard before. What was missed has no length, unless its records come late."""
        most = self.missed_after_ms()
        silent = min(float(self.silent_ms), most)
        due_ms = records * self.time_ms / self.records if self.records > 0 else 0.0
        elapsed = min(float(elapsed_ms), max(most, due_ms))
        keep = exp(-min(elapsed / RATE_TAU_MS, records / RATE_RECORDS))
        self.records = self.records * keep + records
        self.time_ms = self.time_ms * keep + elapsed
        self.known_ms += elapsed
        self.shown = self.shown * keep + self.silent_shown * elapsed / elapsed_ms
        self.silence_ms = max(silent, self.silence_ms * exp(-min(elapsed, RATE_TAU_MS) / SILENCE_TAU_MS))


class UsualRates:
    """The habits of every input but impressions: nine numbers each."""

    def __init__(self) -> None:
        self._usual: dict[Input, Usual] = {}
        self._wall_ms = 0
        self._consumed: dict[Input, int] = {}

    def unknown(
        self, wall_ms: int, consumed: Mapping[Input, int], silent: Iterable[Input], is_catching_up: bool
    ) -> frozenset[Input]:
        """At a tick: learns from what came (not while catching up: that came earlier), and tells what is unknown."""
        if wall_ms > self._wall_ms:
            is_learning = bool(self._wall_ms) and not is_catching_up
            came = {source: count - self._consumed.get(source, 0) for source, count in consumed.items() if count}
            shown = came.pop(Input.IMPRESSIONS, 0)
            for source, records in came.items():
                self._usual.setdefault(source, Usual()).hear(wall_ms, records, shown, is_learning)
            self._wall_ms, self._consumed = wall_ms, dict(consumed)
        silent = frozenset(source for source in silent if consumed[source])
        are_impressions_silent = Input.IMPRESSIONS in silent
        missed = (
            source for source in silent & self._usual.keys() if self._usual[source].is_missed(are_impressions_silent)
        )
        return silent & {Input.IMPRESSIONS, *missed}

    def alarming(self, unknown: frozenset[Input]) -> frozenset[Input]:
        """Of what is unknown, what operations should hear of: impressions always."""
        return frozenset(s for s in unknown if s is Input.IMPRESSIONS or self._usual[s].is_alarming())

    def snapshot(self) -> dict[str, Any]:
        """Plain values."""
        usual = {source: msgspec.to_builtins(each) for source, each in self._usual.items()}
        return {"usual": usual, "wall_ms": self._wall_ms, "consumed": self._consumed}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Takes back what `snapshot` gave."""
        self._wall_ms = snapshot["wall_ms"]
        self._consumed = {Input(source): count for source, count in snapshot["consumed"].items()}
        self._usual = {Input(source): msgspec.convert(each, Usual) for source, each in snapshot["usual"].items()}
