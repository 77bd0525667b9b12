"""Unthrottled demand of a simulated market: one UTC day at a time, by campaign and pane."""

from datetime import UTC, datetime
from math import exp, pi, sqrt
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from bench.market_campaigns import Truth
from streams.rules import DAY_MS

PANE_MS: Final = 10_000
PANES_A_DAY: Final = DAY_MS // PANE_MS
SLOW_PANES: Final = 1_080
"""Correlation of the slow noise: 3 h."""
FAST_PANES: Final = 30
"""Of the fast noise: 5 min."""
SLOW_SIGMA, FAST_SIGMA, DAY_SIGMA = 0.18, 0.15, 0.1
BURSTS_A_DAY: Final = 0.6
OUTAGES_A_DAY: Final = 0.8
"""Of a publisher: a third of the campaigns get nothing for 10 to 40 min."""
Floats = npt.NDArray[np.float64]


def daily_demand(truths: list[Truth], seed: int, day_ms: int, day: int) -> Floats:
    """Expected impressions at rate 1: campaigns × panes. A function of seed and day alone."""
    rng = np.random.default_rng([seed, 11, day])
    count = len(truths)
    demand = np.array([truth.daily_impressions for truth in truths])[:, None] / PANES_A_DAY * _cycles(truths, day_ms)
    demand *= _noise(rng, count, SLOW_PANES, SLOW_SIGMA)
    demand *= _noise(rng, count, FAST_PANES, FAST_SIGMA)
    demand *= rng.lognormal(0.0, DAY_SIGMA, count)[:, None] * rng.lognormal(0.0, DAY_SIGMA / 2)
    _burst(rng, demand)
    _break(rng, demand)
    return demand


def usual_day(truth: Truth) -> Floats:
    """Share of a day's traffic by the local quarter of an hour, mean about 1, without weekday and noise."""
    hours = (np.arange(96) + 0.5) / 4
    return np.maximum(_cycle(truth, hours), 0.03)


def _cycle(truth: Truth, hours: Floats) -> Floats:
    swing = truth.swing
    cycle = 1 + swing * np.cos((hours - 20.5 - truth.shift_hours) * 2 * pi / 24)
    cycle += swing * 0.35 * np.cos((hours - 12.5 - truth.shift_hours) * 4 * pi / 24)
    if truth.live_evening is not None:
        begins, ends, lift = truth.live_evening
        cycle *= np.where((hours >= begins) & (hours < ends), lift, 1.0)
    return np.asarray(cycle)


def _cycles(truths: list[Truth], day_ms: int) -> Floats:
    """Share of a day's traffic by the local clock, mean about 1: a trough at 4, a peak at 21; more at the weekend."""
    times = day_ms + np.arange(PANES_A_DAY) * PANE_MS
    cycles = np.zeros((len(truths), PANES_A_DAY))
    offsets: dict[str, Floats] = {}
    for at, truth in enumerate(truths):
        zone = truth.settings.time_zone
        if zone not in offsets:
            offsets[zone] = np.array([_offset_ms(int(time), zone) for time in times[::90]]).repeat(90)
        local = times + offsets[zone]
        hours = local % DAY_MS / 3_600_000
        weekday = (local // DAY_MS + 3) % 7
        cycle = _cycle(truth, hours) * np.where(weekday >= 5, truth.weekend, 1.0)
        cycles[at] = np.maximum(cycle, 0.03)
    return cycles


def _offset_ms(at_ms: int, zone: str) -> int:
    offset = datetime.fromtimestamp(at_ms / 1000, UTC).astimezone(ZoneInfo(zone)).utcoffset()
    assert offset is not None
    return int(offset.total_seconds() * 1000)


def _noise(rng: np.random.Generator, count: int, panes: int, sigma: float) -> Floats:
    """Log-normal with mean 1 whose logarithm is an AR(1) with a correlation of so many panes."""
    keep = exp(-1 / panes)
    shocks = rng.standard_normal((PANES_A_DAY, count)) * sigma * sqrt(1 - keep * keep)
    state = rng.standard_normal(count) * sigma
    for pane in range(PANES_A_DAY):
        state = shocks[pane] = keep * state + shocks[pane]
    return np.asarray(np.exp(shocks.T - sigma * sigma / 2))


def _burst(rng: np.random.Generator, demand: Floats) -> None:
    for at in range(len(demand)):
        for _ in range(rng.poisson(BURSTS_A_DAY)):
            begin, length = rng.integers(0, PANES_A_DAY), rng.integers(12, 120)
            demand[at, begin : begin + length] *= rng.uniform(2, 6)


def _break(rng: np.random.Generator, demand: Floats) -> None:
    for _ in range(rng.poisson(OUTAGES_A_DAY)):
        begin, length = rng.integers(0, PANES_A_DAY), rng.integers(60, 240)
        hit = rng.random(len(demand)) < 1 / 3
        demand[hit, begin : begin + length] = 0.0
