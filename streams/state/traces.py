"""What applied events leave behind for the next tick, and for words that come later still.

Bounded by what one tick reads, and `Recent` by its own limits.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import xxhash

from streams.events import Click, Conversion, Event, Input, TouchType
from streams.invalid import BIT, Rule
from streams.rules import DAY_MS
from streams.stages.invalid.judge import Judge
from streams.state.flags import MAX_TOLD, Word
from streams.state.recent import Counted, Recent, Remembered
from streams.state.touches import Pending
from streams.verdicts import SHOWN_EACH

JUDGED_LATER: Final = frozenset({Input.CLICKS, Input.CONVERSIONS})
"""Inputs whose events later words are about; of the others only a reviewer's, on what is flagged."""
TOUCHED_BY: Final = {Input.IMPRESSIONS: Input.CLICKS, Input.CLICKS: Input.CONVERSIONS}
"""Inputs that others' events refer to: a click to its impression, a conversion to its click."""
MAX_RECENT: Final = {
    Input.CLICKS: 2_000_000,
    Input.CONVERSIONS: 500_000,
}
MAX_FLAGGED: Final = 200_000
"""Of the other inputs."""
RECENT_MS: Final = {Input.CLICKS: DAY_MS, Input.CONVERSIONS: 30 * DAY_MS}
FLAGGED_MS: Final = 7 * DAY_MS
_RULES: Final = tuple(Rule)


class Traces:
    """What one input's events leave behind."""

    def __init__(self, source: Input) -> None:
        self.source = source
        self.recent = Recent(MAX_RECENT.get(source, MAX_FLAGGED), RECENT_MS.get(source, FLAGGED_MS))
        self.words: list[Word] = []
        """Flags that events were counted with, since the last tick: the first MAX_TOLD in the order of the log."""
        self.untold: dict[Rule, int] = {}
        """Flags beyond them."""
        self.pending: list[Pending] = []
        """Events whose touch is to be looked for, since the last tick."""
        self.valid: list[tuple[Sequence[Event], Sequence[bytes]]] = []
        """Clicks, conversions and chosen impressions that no flag excludes, with their digests, since the last tick."""

    def add(
        self,
        events: Sequence[Event],
        counted: Counted,
        judge: Judge,
        newest_ms: Sequence[int],
        effect_ms: Sequence[int],
    ) -> None:
        """A batch's events that later words may reach.

        `newest_ms`: the newest event time of their input at each; `effect_ms`: the effect pane in which it was counted.
        """
        self.recent.add(counted)
        digests = [xxhash.xxh3_128_digest(event.event_id.encode()) for event in events]
        bits, excluding = counted.bits.tolist(), counted.excluding.tolist()
        for at, found in enumerate(bits):
            if found:
                self._flag(events[at], judge, _remembered(counted, at, digests[at]), effect_ms[at])
        if self.source in JUDGED_LATER:
            valid = [at for at, out in enumerate(excluding) if not out]
            self.valid.append(([events[at] for at in valid], [digests[at] for at in valid]))
            for event, digest, at_ms in zip(events, digests, newest_ms, strict=True):
                pending = _pending(event, digest, at_ms)
                if pending is not None:
                    self.pending.append(pending)

    def sample(self, impressions: Sequence[Event], valid: npt.NDArray[np.bool_]) -> None:
        """Chooses, by the hashes of their ids, those of a batch that are told to their publishers."""
        ids = [event.event_id.encode() for event in impressions]
        hashes = np.fromiter(map(xxhash.xxh3_64_intdigest, ids), dtype=np.uint64, count=len(ids))
        at = np.flatnonzero(valid & (hashes % np.uint64(SHOWN_EACH) == 0)).tolist()
        if at:
            self.valid.append(([impressions[i] for i in at], [xxhash.xxh3_128_digest(ids[i]) for i in at]))

    def _flag(self, event: Event, judge: Judge, remembered: Remembered, effect_ms: int) -> None:
        for rule in rules_in(remembered.bits):
            if len(self.words) < MAX_TOLD:
                evidence = judge.evidence(event, rule)
                self.words.append(Word(self.source, remembered, rule, evidence, effect_ms=effect_ms))
            else:
                self.untold[rule] = self.untold.get(rule, 0) + 1

    def take(self) -> tuple[list[Word], dict[Rule, int], list[Pending], list[tuple[Sequence[Event], Sequence[bytes]]]]:
        """At a tick: everything since the last one."""
        taken = self.words, self.untold, self.pending, self.valid
        self.words, self.untold, self.pending, self.valid = [], {}, [], []
        return taken


def rules_in(bits: int) -> list[Rule]:
    """The rules of these bits."""
    return [rule for rule in _RULES if bits & BIT[rule]]


def _remembered(counted: Counted, at: int, digest: bytes) -> Remembered:
    return Remembered(
        digest,
        counted.ids[at],
        int(counted.at_ms[at]),
        int(counted.bits[at]),
        int(counted.excluding[at]),
        counted.names[at],
        counted.dimensions[at],
        tuple(counted.amounts[at].tolist()),
        counted.cohorts[at],
    )


def _pending(event: Event, digest: bytes, newest_ms: int) -> Pending | None:
    """What an event refers to: a click to its impression, a conversion to the click that it is credited to."""
    if type(event) is Click:
        if event.impression_id is None:
            return None
        at_ms, impression = event.event_time_ms, _digest(event.impression_id)
        return Pending(digest, at_ms, impression, at_ms, newest_ms, event.click_type.value)
    if type(event) is Conversion:
        click = click_of(event)
        return None if click is None else Pending(digest, event.event_time_ms, _digest(click[0]), click[1], newest_ms)
    return None


def click_of(event: Conversion) -> tuple[str, int] | None:
    """The click that a conversion is credited to, and its time, where it tells both."""
    touch = event.attribution
    if touch is None or touch.touch_type is not TouchType.CLICK or touch.touch_id is None:
        return None
    return None if touch.touch_time_ms is None else (touch.touch_id, touch.touch_time_ms)


def _digest(event_id: str) -> bytes:
    return xxhash.xxh3_128_digest(event_id.encode())
