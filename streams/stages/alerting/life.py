"""The life of an alert: pending, firing, resolved.

A condition must be met for a while before an alert fires (pending), must be clearly over for a while before it
resolves (a second, lower threshold: hysteresis), and cannot fire again at once (cool-down). All durations are event
time. Periods of minutes keep flapping away, as `for` and `keep_firing_for` do in Prometheus; the cool-down is what
keeps a receiver from muting (FACTS, "Alerts expected").
"""

from typing import Any, Final, NamedTuple

import xxhash

from streams.rules import HOUR_MS, MINUTE_MS
from streams.signals import AlertState
from streams.stages.alerting.facts import Condition, Signal
from streams.terms import AlertKind


class Timing(NamedTuple):
    """Durations of a kind, event time in ms."""

    pending_ms: int
    """The condition is met for so long before it fires."""
    clear_ms: int
    """It is clear for so long before it resolves."""
    cool_down_ms: int
    """From resolution until it may fire again."""


TIMINGS: Final = {
    AlertKind.EXHAUSTED: Timing(0, 0, 0),  # a fact of the period, told once in it
    AlertKind.EXHAUSTED_EARLY: Timing(0, 0, 0),
    AlertKind.BUDGET_LADDER: Timing(0, 0, 0),
    AlertKind.STALLED: Timing(0, MINUTE_MS, HOUR_MS),  # the gap itself is the pending time
    AlertKind.BALANCE_LOW: Timing(10 * MINUTE_MS, 10 * MINUTE_MS, 12 * HOUR_MS),
    AlertKind.COST_OVERRUN: Timing(10 * MINUTE_MS, HOUR_MS, 24 * HOUR_MS),
    AlertKind.OVER_DELIVERY: Timing(15 * MINUTE_MS, 15 * MINUTE_MS, 6 * HOUR_MS),
    AlertKind.UNDER_DELIVERY: Timing(30 * MINUTE_MS, 30 * MINUTE_MS, 6 * HOUR_MS),
    AlertKind.EXPECTED_UNDER_DELIVERY: Timing(60 * MINUTE_MS, 60 * MINUTE_MS, 12 * HOUR_MS),
    AlertKind.CTR_ANOMALY: Timing(10 * MINUTE_MS, HOUR_MS, 12 * HOUR_MS),
    AlertKind.CVR_ANOMALY: Timing(10 * MINUTE_MS, HOUR_MS, 12 * HOUR_MS),
    AlertKind.CPA_ANOMALY: Timing(10 * MINUTE_MS, HOUR_MS, 12 * HOUR_MS),
    AlertKind.CONVERSIONS_COLLAPSED: Timing(10 * MINUTE_MS, 30 * MINUTE_MS, 12 * HOUR_MS),
    AlertKind.INVALID_TRAFFIC: Timing(5 * MINUTE_MS, 15 * MINUTE_MS, 6 * HOUR_MS),
    AlertKind.INPUT_SILENT: Timing(10_000, 30_000, 60_000),
}
NEVER: Final = -1
_STEPPED: Final = frozenset({AlertKind.EXHAUSTED, AlertKind.EXHAUSTED_EARLY, AlertKind.BUDGET_LADDER})
"""Another step is another occurrence: the life of the former ends with it."""


class Change(NamedTuple):
    """A life's change that is told."""

    state: AlertState
    alert_id: str
    began_ms: int
    signal: Signal
    """What is told now; of a resolution: what cleared it."""
    fired: Signal
    """What was told when it fired."""


def alert_id_of(kind: AlertKind, subject: str, step: str, began_ms: int, campaign_id: str = "") -> str:
    """Deterministic: the same occurrence has the same id in every run over the same log. 128 bits, hex.

    `campaign_id`: of whom it is told, where the subject is not the campaign itself: a pool is the subject of many.
    """
    parts = (kind.value, subject, step, str(began_ms), *((campaign_id,) if campaign_id else ()))
    return xxhash.xxh3_128_hexdigest("\0".join(parts).encode())


class Life:
    """One kind of alert about one subject: at most one occurrence is alive. `campaign_id`: as of `alert_id_of`."""

    __slots__ = (
        *("alert_id", "began_ms", "campaign_id", "clear_since_ms", "cool_until_ms"),
        *("fired", "kind", "last_step", "since_ms", "subject"),
    )

    def __init__(self, kind: AlertKind, subject: str, campaign_id: str = "") -> None:
        self.kind = kind
        self.subject = subject
        self.campaign_id = campaign_id
        self.alert_id = ""
        """Of the occurrence that fires; empty: none does."""
        self.fired: Signal | None = None
        self.began_ms = NEVER
        """Of the latest occurrence: a later one begins later, so no two have one id."""
        self.since_ms = NEVER
        """Pending since."""
        self.clear_since_ms = NEVER
        self.cool_until_ms = NEVER
        self.last_step = ""
        """Of the latest occurrence: a step (a day, a period) is told once."""

    @property
    def is_firing(self) -> bool:
        """Whether an occurrence has fired and not resolved."""
        return self.alert_id != ""

    @property
    def ended_ms(self) -> int:
        """When the latest occurrence resolved; `NEVER` where none has."""
        return NEVER if self.cool_until_ms == NEVER else self.cool_until_ms - TIMINGS[self.kind].cool_down_ms

    def look(self, signal: Signal, now_ms: int) -> list[Change]:
        """Takes one look's answer; gives what is to be told."""
        if signal.condition == Condition.UNKNOWN:
            return []
        if not self.alert_id:
            return self._wait(signal, now_ms)
        fired = self.fired
        assert fired is not None
        if signal.condition == Condition.MET and self.kind in _STEPPED and signal.step != fired.step:
            return [*self.end(signal, now_ms), *self._wait(signal, now_ms)]
        return self._hold(signal, now_ms)

    def end(self, signal: Signal, now_ms: int) -> list[Change]:
        """Resolves at once what fires; forgets what is pending."""
        self.since_ms = NEVER
        if not self.alert_id:
            return []
        assert self.fired is not None
        change = Change(AlertState.RESOLVED, self.alert_id, self.began_ms, signal, self.fired)
        self.alert_id, self.fired, self.clear_since_ms = "", None, NEVER
        self.cool_until_ms = now_ms + TIMINGS[self.kind].cool_down_ms
        return [change]

    def _wait(self, signal: Signal, now_ms: int) -> list[Change]:
        was_told = signal.step != "" and signal.step == self.last_step
        if signal.condition != Condition.MET or was_told:
            self.since_ms = NEVER
            return []
        if self.since_ms == NEVER:
            self.since_ms = now_ms
        timing = TIMINGS[self.kind]
        if now_ms - self.since_ms < timing.pending_ms or now_ms < self.cool_until_ms:
            return []
        began = self.since_ms if signal.began_ms is None else signal.began_ms
        self.began_ms = max(began, self.began_ms + 1)
        self.alert_id = alert_id_of(self.kind, self.subject, signal.step, self.began_ms, self.campaign_id)
        self.fired, self.last_step = signal, signal.step
        self.since_ms = self.clear_since_ms = NEVER
        return [Change(AlertState.FIRING, self.alert_id, self.began_ms, signal, signal)]

    def _hold(self, signal: Signal, now_ms: int) -> list[Change]:
        if signal.condition != Condition.CLEAR:
            self.clear_since_ms = NEVER
            return []
        if self.clear_since_ms == NEVER:
            self.clear_since_ms = now_ms
        if now_ms - self.clear_since_ms < TIMINGS[self.kind].clear_ms:
            return []
        return self.end(signal, now_ms)

    def snapshot(self) -> list[object]:
        """Builtin values."""
        fired = None if self.fired is None else [int(self.fired.condition), *self.fired[1:]]
        return [
            *(self.kind.value, self.subject, self.alert_id, fired),
            *(self.began_ms, self.since_ms, self.clear_since_ms, self.cool_until_ms, self.last_step),
        ]

    @classmethod
    def restored(cls, snapshot: list[Any], campaign_id: str = "") -> "Life":
        """The life of which `snapshot` was taken."""
        kind, subject, alert_id, fired, began, since, clear_since, cool_until, last_step = snapshot
        life = cls(AlertKind(kind), subject, campaign_id)
        life.alert_id, life.began_ms, life.since_ms = alert_id, began, since
        life.clear_since_ms, life.cool_until_ms, life.last_step = clear_since, cool_until, last_step
        if fired is not None:
            condition, seen, expected, unit, figures, began_ms, step, form = fired
            told = tuple((name, value) for name, value in figures)
            life.fired = Signal(Condition(condition), seen, expected, unit, told, began_ms, step, form)
        return life
