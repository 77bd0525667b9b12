"""Rules about what keeps a campaign running: impressions that come, and a balance that lasts."""

from math import exp
from typing import Any, Final

from streams.rules import HOUR_MS, MINUTE_MS
from streams.signals import Allowance
from streams.stages.alerting.facts import BETWEEN, CLEAR, UNKNOWN, Condition, Signal
from streams.terms import Alerting

MEMORY_MS: Final = 2 * HOUR_MS
"""Impressions per time and rate are an average of about so long before the gap."""
LEAST_MISSED: Final = 20.0
"""Impressions that should have come in the gap. None of 20 is chance once in 5e8 looks, so also small campaigns, whose
impressions come minutes apart, are judged rightly."""
RECENT_MS: Final = 48 * HOUR_MS
"""A campaign without an impression for so long is not stalled, it is asleep."""
KNOWN_MS: Final = 5 * MINUTE_MS
BURN_MEMORY_MS: Final = 24 * HOUR_MS
"""The burn of the last hour swings with the day: a balance is judged by its average over about a day."""
URGENT_MEMORY_MS: Final = 3 * HOUR_MS
URGENT_HOURS: Final = 6.0
"""Below this at the burn of about the last three hours, a balance is low whatever the day's average says."""
ENOUGH_EVENTS: Final = 30.0
MOST_BURN_MEMORY_MS: Final = 7 * 24 * HOUR_MS
"""A burn of a few clicks a day is mostly chance: it is averaged over about `ENOUGH_EVENTS` billable events, up to a
week. Twice as many weigh in an exponential average, so the burn is known to 13%."""
LEAST_EVENTS: Final = 10.0
"""An average over fewer is not known yet, and only an empty account is low."""
LASTS_AGAIN: Final = 1.25
"""Resolved when it lasts so many times the threshold: a top-up, not a quiet hour."""
MAX_POOLS: Final = 4


class StallWatch:
    """Whether impressions that should come do not."""

    __slots__ = ("_exposure", "_impressions", "_new", "_now_ms", "_waited", "last_ms", "since_ms")

    def __init__(self) -> None:
        self.last_ms = -1
        """Pane of the newest impression, event time."""
        self.since_ms = -1
        """The gap's begin: the newest impression, or when the campaign could deliver again."""
        self._new = 0
        self._impressions = 0.0
        self._exposure = 0.0
        """Time weighted by rate, ms, in which those came; decayed."""
        self._waited = 0.0
        """The same since the newest impression."""
        self._now_ms = -1

    def add(self, origin_ms: int, impressions: int) -> None:
        """One tick's impressions of one pane."""
        if impressions > 0:
            self._new += impressions
            self.last_ms = max(self.last_ms, origin_ms)

    def look(self, now_ms: int, rate: float, can_judge: bool, usual_per_h: float | None, stalled_ms: int) -> Signal:
        """`can_judge`: the campaign is to deliver, its partition lives, and impressions are not unknown."""
        elapsed = max(0, now_ms - self._now_ms) if self._now_ms >= 0 else 0
        self._now_ms = now_ms
        self._waited += elapsed * rate
        if self._new > 0:
            if can_judge:
                keep = exp(-min(50.0, self._waited / MEMORY_MS))
                self._impressions = self._impressions * keep + self._new
                self._exposure = self._exposure * keep + self._waited
            self._new = 0
            self._waited = 0.0
            self.since_ms = max(self.last_ms, self.since_ms) if can_judge else now_ms
        if not can_judge:
            self._waited, self.since_ms = 0.0, now_ms
            return UNKNOWN
        gap = now_ms - self.since_ms
        if now_ms - self.last_ms < min(stalled_ms / 4, 2 * MINUTE_MS):
            return CLEAR
        if gap < stalled_ms or self._exposure < KNOWN_MS * 1e-3 or self.last_ms < now_ms - RECENT_MS:
            return BETWEEN
        missed = self._impressions / self._exposure * self._waited
        if usual_per_h is not None:
            missed = min(missed, usual_per_h * gap / HOUR_MS)
        if missed < LEAST_MISSED:
            return BETWEEN
        figures = (("since", self.since_ms), ("gap_ms", gap), ("missed", int(missed)))
        return Signal(Condition.MET, float(gap), float(stalled_ms), "ms", figures, began_ms=self.since_ms)

    def snapshot(self) -> list[object]:
        """Builtin values."""
        return [
            *(self.last_ms, self.since_ms, self._new, self._now_ms),
            *(self._impressions, self._exposure, self._waited),
        ]

    def restore(self, snapshot: list[Any]) -> None:
        """Takes back what `snapshot` gave."""
        self.last_ms, self.since_ms, self._new, self._now_ms = snapshot[:4]
        self._impressions, self._exposure, self._waited = snapshot[4:]


class BalanceWatch:
    """How long an account's balance lasts."""

    __slots__ = ("_burns",)

    def __init__(self) -> None:
        self._burns: dict[str, tuple[float, float, int, int]] = {}
        """By pool: averages over about a day and about three hours, when, and since when."""

    def look(self, allowance: Allowance, now_ms: int, alerting: Alerting, unit_micros: float) -> Signal:
        """Hours that the balance lasts, against those that it should.

        `unit_micros`: what one billable event costs; 0 where only the events know.
        """
        smooth, latest = self._smoothed(allowance, now_ms, unit_micros)
        left = allowance.left_micros
        since_ms = self._burns[allowance.pool_id][3] - HOUR_MS  # a burn is that of the hour before
        if left > 0 and smooth * (now_ms - since_ms) / HOUR_MS < LEAST_EVENTS * unit_micros:
            return BETWEEN
        if left > 0 and smooth <= 0:
            return CLEAR
        hours = max(0.0, left / smooth) if smooth > 0 else 0.0
        urgent = max(0.0, left / latest) if latest > 0 else hours
        least = float(alerting.balance_hours)
        is_low = left <= 0 or hours < least or urgent < min(URGENT_HOURS, least)
        if not is_low:
            return CLEAR if min(hours, urgent * 4) >= LASTS_AGAIN * least else BETWEEN
        burn = max(smooth, latest) if urgent < min(URGENT_HOURS, least) else smooth
        lasts = min(hours, urgent) if urgent < min(URGENT_HOURS, least) else hours
        figures = (
            ("account", allowance.pool_id),
            ("left", left),
            ("burn", int(burn)),
            ("lasts_ms", int(lasts * HOUR_MS)),
            ("least_ms", int(least * HOUR_MS)),
        )
        form = "empty" if left <= 0 else ""
        return Signal(Condition.MET, lasts, least, "hours", figures, form=form)

    def _smoothed(self, allowance: Allowance, now_ms: int, unit: float) -> tuple[float, float]:
        known = self._burns.get(allowance.pool_id)
        latest = float(allowance.burn_micros_per_h)
        if known is None:
            if len(self._burns) >= MAX_POOLS:
                del self._burns[min(self._burns, key=lambda pool: (self._burns[pool][2], pool))]
            self._burns[allowance.pool_id] = (latest, latest, now_ms, now_ms)
            return latest, latest
        slow, quick, at_ms, since_ms = known
        if now_ms > at_ms:
            passed, seen_ms = now_ms - at_ms, now_ms - since_ms  # before an average's memory is full: the plain mean
            enough_ms = min(MOST_BURN_MEMORY_MS, ENOUGH_EVENTS * unit / slow * HOUR_MS) if slow > 0 else 0.0
            slow += _gain(passed, min(seen_ms, max(BURN_MEMORY_MS, enough_ms))) * (latest - slow)
            quick += _gain(passed, min(seen_ms, max(URGENT_MEMORY_MS, enough_ms))) * (latest - quick)
            self._burns[allowance.pool_id] = (slow, quick, now_ms, since_ms)
        return slow, quick

    def snapshot(self) -> list[object]:
        """Builtin values."""
        return [[pool, *held] for pool, held in sorted(self._burns.items())]

    def restore(self, snapshot: list[Any]) -> None:
        """Takes back what `snapshot` gave."""
        self._burns = {pool: (slow, quick, at_ms, since_ms) for pool, slow, quick, at_ms, since_ms in snapshot}


def _gain(passed_ms: int, memory_ms: float) -> float:
    return 1 - exp(-passed_ms / memory_ms)
