"""The market, as alerts need it: with cohorts of conversions, and with the truth about supply that stops."""

import numpy as np
import numpy.typing as npt

from bench.market import CONVERSION, Market
from bench.market_demand import usual_day
from streams.rules import HOUR_MS
from streams.state.windows import day_bounds

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class CohortMarket(Market):
    """The market, which also tells conversions of clicks' first hour by click hour, and where supply has stopped."""

    def __init__(self, count: int, seed: int) -> None:
        super().__init__(count, seed)
        self._young: Ints = np.zeros((60, 3, count), dtype=np.int64)
        self._young_hours = np.zeros(60, dtype=np.int64)
        self.early: list[tuple[int, Ints]] = []
        """This pane's conversions within an hour of their click: click hour, by campaign."""
        self.stopped_ms: Ints = np.full(count, -1, dtype=np.int64)
        """Since when a campaign's demand at rate 1 is nothing (injected, or a publisher's outage); -1: it is not."""
        self.unruly: dict[int, tuple[int, int]] = {}
        """Campaigns whose ad server ignores controls, from when until when."""

    def _account(self, begin: int, supply: Floats, spends: Ints) -> None:
        super()._account(begin, supply, spends)
        begun = np.where(self.stopped_ms < 0, begin, self.stopped_ms)
        self.stopped_ms = np.where(supply > 0, -1, begun).astype(np.int64)

    def _ripen(self, kind: int, arriving: Ints) -> Ints:
        if kind != CONVERSION:
            return super()._ripen(kind, arriving)
        shares, hazards, waiting = self._pools[kind]
        slot, rng, left = self.pane // 6 % 60, self._rng, arriving
        if self.pane % 6 == 0:
            waiting += self._young[slot]
            self._young[slot] = 0
            self._young_hours[slot] = self.now_ms - self.now_ms % HOUR_MS
        for part in range(len(shares) - 1):
            taken = rng.binomial(left, shares[part])
            self._young[slot, part] += taken
            left = left - taken
        self._young[slot, -1] += left
        young, old = rng.binomial(self._young, hazards[None]), rng.binomial(waiting, hazards)
        self._young -= young
        waiting -= old
        by_slot = young.sum(axis=1)
        hours = sorted(set(self._young_hours.tolist()))
        self.early = [(hour, by_slot[self._young_hours == hour].sum(axis=0)) for hour in hours]
        return np.asarray(by_slot.sum(axis=0) + old.sum(axis=0), dtype=np.int64)

    def usual_hour(self, index: int, start_ms: int) -> tuple[float, float, float, float, float]:
        """Expected impressions, clicks, conversions, spend (millimicros) and early conversions of a paced hour."""
        truth = self.truths[index]
        day = day_bounds(start_ms, truth.settings.time_zone)[0]
        cycle = usual_day(truth)
        share = float(cycle[(start_ms - day) // HOUR_MS * 4 % 96]) / float(cycle.sum()) * 4
        if truth.session_hours is not None:
            begins, ends = truth.session_hours
            share *= 1.0 if begins <= (start_ms - day) / HOUR_MS < ends else 0.0
        impressions = truth.daily_impressions * min(1.0, 1 / truth.abundance) * share
        clicks = impressions * truth.ctr
        conversions = clicks * truth.cvr
        return impressions, clicks, conversions, impressions * truth.value_millimicros, conversions * self._early(index)

    def _early(self, index: int) -> float:
        shares, delays = self.truths[index].delays[CONVERSION]
        return float(sum(s * (1 - np.exp(-HOUR_MS / d)) for s, d in zip(shares, delays, strict=True)))
