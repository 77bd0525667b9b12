"""Whether a ratio (CTR, CVR, conversions per spend) differs from what is usual at this weekday and hour.

**What is expected** of an hour is its exposure (impressions, clicks, spend) times the usual ratio of the same weekday
and hour, moved by the campaign's recent level, which follows trends and lasting changes within days.

**What counts as natural** is learned, too: how far the campaign's hours and days have been from what was expected,
beyond what sampling explains. A null is not "exactly as usual" but "within `SIGMAS` of that", or "drawn from that":
either of two tests may tell (`streams.stages.alerting.evidence`).

**When to tell**: the window from any of the last 24 hours until now has at least the minimum volume, is off by a
material ratio, and its evidence against the null exceeds log(24/alpha). Each start's evidence is always valid by either
test, and a day has 24 starts, so its chance of a false alert by sampling is at most twice alpha. Running a test
from every start finds a change quickly whenever it comes: an e-detector (Shin, Ramdas, Rinaldo 2023, arXiv 2203.03532).
"""

from math import exp, log, sqrt
from typing import Any, Final, NamedTuple

from streams.rules import HOUR_MS, MINUTE_MS
from streams.stages.alerting.evidence import edge_evidence, natural_evidence
from streams.stages.alerting.hours import EARLY_COMPLETE_MS, TAINT, Hours

ALPHA_PER_DAY: Final = 1 / 2_000
"""Four ratios by two tests for ten weeks: 560 days, so at most 0.28 false alerts by sampling; one is allowed."""
EVIDENCE: Final = log(24 / ALPHA_PER_DAY)
SIGMAS: Final = 3.0
"""Natural variation beyond it is rare, and a difference must be material and have evidence beyond it, too."""
LOW: Final = 0.7
HIGH: Final = 1 / LOW
"""A material change: by three tenths, or up by as much."""
STARTS_MS: Final = 24 * HOUR_MS
PARTIAL_MS: Final = 10 * MINUTE_MS
"""The current hour counts from then on: topics may be seconds apart, which is nothing of ten minutes."""
LEVEL_GAIN: Final = 0.25
LEVEL_CLIP: Final = 0.35
"""A day moves the level by at most 0.25 × 0.35: one bad day by 9%, a halving is followed within two weeks."""
DAY_EVENTS: Final = 30.0
"""Expected events that make a day's residual worth learning; an hour's, likewise."""
HOUR_EVENTS: Final = 8.0
PRIOR_HOUR_VAR: Final = 0.10**2
PRIOR_HOURS: Final = 48.0
PRIOR_DAY_VAR: Final = 0.08**2
PRIOR_DAYS: Final = 5.0
HOUR_MEMORY: Final = 336.0
DAY_MEMORY: Final = 28.0
OTHER_DAYS_VAR: Final = 0.10**2
"""Added where the same hour of other weekdays stands in for the same weekday."""


class Measure(NamedTuple):
    """A ratio of two counts of an hour."""

    name: str
    event: int
    exposure: int
    is_early: bool
    """Of clicks' first hour: an hour is complete only when its last click is an hour old."""
    taint: int
    """What must not be unknown in an hour, bits."""


class Ratio(NamedTuple):
    """What is expected of an hour: events per exposure, and the relative variance of knowing it."""

    rate: float
    variance: float
    is_same_weekday: bool


class Window(NamedTuple):
    """From an hour's start until now, or until the last hour that is complete."""

    start_ms: int
    end_ms: int
    events: float
    expected: float
    exposure: float
    spread: float
    """Relative variance of what is natural and of knowing the baseline."""
    evidence: float
    """Logarithm; 0 where the difference is not material."""
    is_same_weekday: bool

    @property
    def ratio(self) -> float:
        """Seen over expected."""
        return self.events / self.expected if self.expected > 0 else 0.0


class Variation:
    """A variance learned from residuals, beyond what sampling explains; a prior until there are some."""

    __slots__ = ("memory", "prior", "sum", "weight")

    def __init__(self, variance: float, weight: float, memory: float) -> None:
        self.sum, self.weight, self.prior, self.memory = variance * weight, weight, variance, memory

    @property
    def value(self) -> float:
        """Relative variance, at least a tenth of the prior."""
        return max(self.prior / 10, self.sum / self.weight)

    def learn(self, residual: float, sampling: float) -> None:
        """`residual` is a log ratio. Clipped, so that an incident does not make incidents normal."""
        bound = max(0.25, 3 * sqrt(self.value + sampling))
        clipped = max(-bound, min(bound, residual))
        keep = 1 - 1 / self.memory
        self.sum = self.sum * keep + clipped * clipped - sampling
        self.weight = self.weight * keep + 1


class RatioWatch:
    """One ratio of one campaign."""

    __slots__ = ("_date", "_day", "_rates", "days", "hours", "level", "measure")

    def __init__(self, measure: Measure) -> None:
        self.measure = measure
        self.level = 0.0
        """Log: the campaign's recent days over its baseline."""
        self.hours = Variation(PRIOR_HOUR_VAR, PRIOR_HOURS, HOUR_MEMORY)
        self.days = Variation(PRIOR_DAY_VAR, PRIOR_DAYS, DAY_MEMORY)
        self._rates: dict[int, Ratio | None] = {}
        """Fixed when an hour is first judged: what it teaches later does not excuse it."""
        self._date = ""
        self._day = [0.0, 0.0, 0.0]
        """Events, expected, and the squared expectation's variance of the day that is being learned."""

    def ratio(self, hours: Hours, start_ms: int, zone: str) -> Ratio | None:
        """What is expected of an hour, fixed at first asking."""
        if start_ms in self._rates:
            return self._rates[start_ms]
        usual = hours.usual(start_ms, zone)
        found = None
        if usual is not None:
            events, exposure = usual[self.measure.event], usual[self.measure.exposure]
            if events > 0 and exposure > 0:
                variance = 1 / events + (0.0 if usual.is_same_weekday else OTHER_DAYS_VAR)
                found = Ratio(events / exposure * exp(self.level), variance, usual.is_same_weekday)
        self._rates[start_ms] = found
        return found

    def learn(self, hours: Hours, start_ms: int, zone: str, date: str, is_excused: bool) -> None:
        """Takes a complete hour's residual, before the hour becomes part of the baseline.

        An hour of an alert teaches nothing about what is natural (`is_excused`), but the level follows it.
        """
        if date != self._date:
            self._close_day()
            self._date = date
        counts, ratio = hours.recent[start_ms], self.ratio(hours, start_ms, zone)
        if ratio is None or counts[TAINT] & self.measure.taint:
            return
        events, expected = max(0, counts[self.measure.event]), counts[self.measure.exposure] * ratio.rate
        if expected <= 0:
            return
        if expected >= HOUR_EVENTS and not is_excused:
            self.hours.learn(log((events + 0.5) / (expected + 0.5)), 1 / expected + ratio.variance)
        self._day[0] += events
        self._day[1] += expected
        self._day[2] += expected * expected * ratio.variance

    def _close_day(self) -> None:
        events, expected, squares = self._day
        self._day = [0.0, 0.0, 0.0]
        if expected < DAY_EVENTS:
            return
        residual = log((events + 0.5) / (expected + 0.5))
        sampling = 1 / expected + squares / expected**2
        if abs(residual) < LEVEL_CLIP + 3 * sqrt(sampling):
            self.days.learn(residual, sampling)
        weight = self.days.value / (self.days.value + sampling)  # a small campaign's noise is no level
        self.level += LEVEL_GAIN * weight * max(-LEVEL_CLIP, min(LEVEL_CLIP, residual))
        self.level = max(-2.0, min(2.0, self.level))

    def forget(self, before_ms: int) -> None:
        """Drops what was expected of hours before a time."""
        for start in [start for start in self._rates if start < before_ms]:
            del self._rates[start]

    def windows(self, hours: Hours, now_ms: int, zone: str) -> list[Window]:
        """From each of the last 24 hours' starts until now, the shortest first."""
        measure = self.measure
        newest = now_ms - now_ms % HOUR_MS
        complete_ms = now_ms - (EARLY_COMPLETE_MS if measure.is_early else PARTIAL_MS)
        last = complete_ms - complete_ms % HOUR_MS
        end_ms = min(now_ms, last + HOUR_MS)
        found: list[Window] = []
        events = expected = exposure = squares = variances = 0.0
        is_same_weekday = True
        day_variance, hour_variance = self.days.value, self.hours.value
        for start in range(last, newest - STARTS_MS, -HOUR_MS):
            counts = hours.recent.get(start)
            if counts is None or counts[TAINT] & measure.taint:
                continue
            ratio = self.ratio(hours, start, zone)
            if ratio is None or counts[measure.exposure] <= 0:
                continue
            mean = counts[measure.exposure] * ratio.rate
            events += counts[measure.event]
            exposure += counts[measure.exposure]
            expected += mean
            squares += mean * mean
            variances += mean * mean * ratio.variance
            is_same_weekday = is_same_weekday and ratio.is_same_weekday
            spread = day_variance + (hour_variance * squares + variances) / (expected * expected)
            is_material = not LOW * expected < events < HIGH * expected
            evidence = _evidence(events, expected, spread) if is_material else 0.0
            found.append(Window(start, end_ms, max(0.0, events), expected, exposure, spread, evidence, is_same_weekday))
        return found

    def snapshot(self) -> list[object]:
        """Builtin values."""
        rates = [[start, *(self._rates[start] or ())] for start in sorted(self._rates)]
        varied = [self.hours.sum, self.hours.weight, self.days.sum, self.days.weight]
        return [self.level, varied, rates, self._date, list(self._day)]

    def restore(self, snapshot: list[Any]) -> None:
        """Takes back what `snapshot` gave."""
        self.level, varied, rates, self._date, day = snapshot
        self.hours.sum, self.hours.weight, self.days.sum, self.days.weight = varied
        self._rates = {row[0]: Ratio(*row[1:]) if len(row) > 1 else None for row in rates}
        self._day = list(day)


def telling(windows: list[Window], least_expected: float, low: float, high: float) -> Window | None:
    """The window with the most evidence among those of enough volume that are off by a material ratio."""
    best = None
    for window in windows:
        if window.evidence < EVIDENCE or window.expected < least_expected:
            continue
        if low < window.ratio < high:
            continue
        if best is None or window.evidence > best.evidence:
            best = window
    return best


def _evidence(events: float, expected: float, spread: float) -> float:
    """By either way to allow for natural variation."""
    edge = edge_evidence(events, expected, exp(SIGMAS * sqrt(spread)))
    return max(edge, natural_evidence(events, expected, spread))


def news(windows: list[Window], told_ms: int) -> list[Window]:
    """Those that begin after what was told was over."""
    return [window for window in windows if window.start_ms >= told_ms]


def current(windows: list[Window], least_expected: float) -> Window | None:
    """The shortest window of enough volume: how things stand now."""
    for window in windows:
        if window.expected >= least_expected:
            return window
    return None
