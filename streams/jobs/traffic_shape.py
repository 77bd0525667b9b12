"""The shapes of traffic: when it comes, to whom it goes, and how long conversions take.

Everything draws from the `random.Random` it is given, whose `random()` is the same on every platform.
"""

import bisect
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from random import Random
from typing import Final
from zoneinfo import ZoneInfo

from streams.jobs.traffic_profile import TrafficProfile

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS

_BY_HOUR: Final = (
    *(0.70, 0.42, 0.26, 0.18, 0.15, 0.20, 0.38, 0.62, 0.82, 0.92, 0.98, 1.08),
    *(1.22, 1.16, 1.02, 0.98, 1.00, 1.08, 1.26, 1.52, 1.78, 1.86, 1.52, 1.08),
)
"""Relative traffic by local hour: a trough before dawn, a bump at noon, the peak at nine in the evening."""
_BY_WEEKDAY: Final = (0.94, 0.93, 0.94, 0.97, 1.04, 1.12, 1.06)  # from Monday

_WITHIN_AN_HOUR: Final = 0.35
_WITHIN_A_DAY: Final = 0.50
_LONGEST_DAYS: Final = 30


class Cycle:
    """How busy it is at a time, as a factor whose mean over a week is 1, and whether the live shop is on."""

    def __init__(self, profile: TrafficProfile) -> None:
        self._zone = ZoneInfo(profile.time_zone)
        self._flat = not profile.cycle
        self._live_from, self._live_to = profile.live_from_hour, profile.live_to_hour
        # Between the hours the factor is linear, and the mean of a closed polygon is that of its corners.
        self._hours = [h * len(_BY_HOUR) / sum(_BY_HOUR) for h in _BY_HOUR]
        self._days = [d * len(_BY_WEEKDAY) / sum(_BY_WEEKDAY) for d in _BY_WEEKDAY]

    def at(self, time_ms: float) -> tuple[float, bool]:
        """The factor, and whether the live shop is on."""
        local = datetime.fromtimestamp(time_ms / 1000, UTC).astimezone(self._zone)
        live = self._live_from <= local.hour < self._live_to
        if self._flat:
            return 1.0, live
        share = local.minute / 60
        here, following = self._hours[local.hour], self._hours[(local.hour + 1) % 24]
        return (here + (following - here) * share) * self._days[local.weekday()], live


def arrivals(profile: TrafficProfile, requests_per_s: float, random: Random) -> Iterator[tuple[int, bool]]:
    """Times of requests (epoch ms, ascending), a Poisson process, and whether the live shop is on; until the end."""
    cycle, draw, log = Cycle(profile), random.random, math.log
    now, end, per_ms = float(profile.first_ms), profile.end_ms, requests_per_s / 1000
    while now < end:
        factor, live = cycle.at(now)
        mean_gap = 1 / (per_ms * factor)
        slot_end = min((now // MINUTE_MS + 1) * MINUTE_MS, end)
        # Memoryless: what would fall beyond the minute is drawn again at the next minute's rate.
        while (now := now - mean_gap * log(1.0 - draw())) < slot_end:
            yield int(now), live
        now = slot_end


def chooser(weights: Sequence[float], random: Random) -> Callable[[], int]:
    """Draws an index with these weights."""
    steps = list(itertools.accumulate(weights))
    total, last, draw, find = steps[-1], len(steps) - 1, random.random, bisect.bisect_right
    return lambda: min(find(steps, draw() * total), last)


def zipf_weights(count: int, exponent: float) -> list[float]:
    """Weights of the ranks 1 … count, as 1 / rank ** exponent."""
    return [rank**-exponent for rank in range(1, count + 1)]


def rank_drawer(count: int, exponent: float, random: Random) -> Callable[[], int]:
    """Draws a rank 0 … count-1 with density ~ rank ** -exponent (exponent below 1), without a table."""
    power, draw = 1 / (1 - exponent), random.random
    span = (count + 1) ** (1 - exponent) - 1
    return lambda: min(int((1 + span * draw()) ** power), count) - 1


def conversion_delay_ms(random: Random, compress: float) -> int:
    """From the click to the conversion: 35% within an hour, 50% within a day, the rest within 30 days.

    Source: Criteo's conversion logs (Chapelle, "Modeling delayed feedback in display advertising", KDD 2014).
    """
    share = random.random()
    if share < _WITHIN_AN_HOUR:
        low, high = 10_000, HOUR_MS
    elif share < _WITHIN_A_DAY:
        low, high = HOUR_MS, DAY_MS
    else:
        low, high = DAY_MS, _LONGEST_DAYS * DAY_MS
    return scaled(log_uniform(random, low, high), compress)


def log_uniform(random: Random, low: float, high: float) -> float:
    """Between `low` and `high`, with every order of magnitude as likely."""
    return float(low * (high / low) ** random.random())


def scaled(delay_ms: float, compress: float) -> int:
    """A long delay, compressed; at least 200 ms."""
    return max(200, int(delay_ms * compress))
