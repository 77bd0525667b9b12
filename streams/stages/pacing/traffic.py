"""What a campaign's traffic would bring unthrottled, what one carrier is worth, and what is still in flight.

The model that feeds the control forward. Expected carriers per ms at rate 1 are `density(hour) × level`:
the density is learned by hour of the day (where not yet, the partition's shape scaled to this campaign), the level is
how the last minutes differ from it. Every estimate is a ratio of decayed sums, what came over what was let through,
so a changing rate does not disturb it.

In flight = value × Σ over the delay's parts of carriers still waiting × the chance to come before the period's end
(Pinterest 2017: actual plus expected spend must stay within the budget).
"""

from math import exp
from typing import Any, Final

from streams.rules import HOUR_MS, MINUTE_MS
from streams.stages.pacing.billing import (
    Kernel,
    is_carried_by_clicks,
    kernel_of,
    price_of_event,
    price_of_impression,
)
from streams.stages.pacing.facts import Added
from streams.stages.pacing.shape import TrafficShape
from streams.terms import Billing

MAX_PENDING: Final = 1_024
"""Panes between two looks that are told apart; what is older counts as long ago."""
SHORT_MS: Final = 8 * MINUTE_MS
LONG_MS: Final = 3 * HOUR_MS
BASE_MS: Final = 24 * HOUR_MS
VALUE_MS: Final = 8 * HOUR_MS
VALUE_EVENTS: Final = 400.0
"""What a carrier is worth is forgotten no faster than so many billable events come: few are worth keeping."""
PRIOR_CARRIERS: Final = 20.0
"""Carriers that the learned density is worth against the last minutes."""
KNOWN_CARRIERS: Final = 20.0
HALF_PANE_MS: Final = 5_000
MAX_STEP_MS: Final = 5 * MINUTE_MS
"""Longer steps teach nothing: which rate was in force is not known."""
CELL_GAIN: Final = 0.35
CELL_PRIOR_CARRIERS: Final = 10.0
LEAST_EXPOSURE_MS: Final = 60_000.0


class Step:
    """What one look found out: spend expected since the last look, spend that arrived, and its share from a silence."""

    __slots__ = ("arrived", "ripe", "silent")

    def __init__(self) -> None:
        self.ripe = 0.0
        self.arrived = 0
        self.silent = 0


class Traffic:
    """One campaign's model: about seventy numbers."""

    def __init__(self) -> None:
        self.pending: dict[int, list[int]] = {}
        self.old = [0, 0]
        self.last_ms = -1
        self.hour = -1
        self.hour_sums = [0.0, 0.0]
        self.is_hour_good = True
        self.cells = [0.0] * 24
        self.short = [0.0, 0.0]
        self.long = [0.0, 0.0]
        self.base = [0.0, 0.0]
        self.waiting: list[float] = []
        self.value_sums = [0.0, 0.0]
        self._billing: Billing | None = None
        self._kernel: Kernel = Kernel((), (), 0.0, 0.0, 0.0)
        self._by_clicks = False
        self._fixed: float | None = None
        self._unit: float | None = None
        self._old_waiting: list[float] = []

    # In

    def add(self, billing: Billing, added: Added) -> None:
        """Keeps a pane's amounts for the next look; integers, so the order does not matter."""
        self.bill(billing)
        carriers = added.clicks if self._by_clicks else added.impressions
        spend = added.spend_millimicros - added.credited_millimicros
        pane = self.pending.get(added.origin_ms)
        if pane is not None:
            pane[0] += carriers
            pane[1] += spend
            return
        self.pending[added.origin_ms] = [carriers, spend]
        if len(self.pending) > MAX_PENDING:
            carriers, spend = self.pending.pop(min(self.pending))
            self.old[0] += carriers
            self.old[1] += spend

    def bill(self, billing: Billing) -> None:
        """By which terms carriers are looked at from now on. Not kept: whoever asks first says so."""
        if billing is not self._billing:
            self._set_billing(billing)

    def _set_billing(self, billing: Billing) -> None:
        self._billing = billing
        self._kernel = kernel_of(billing)
        self._by_clicks = is_carried_by_clicks(billing)
        self._fixed = price_of_impression(billing)
        self._unit = price_of_event(billing)
        if len(self.waiting) != len(self._kernel.weights):
            self.waiting = [0.0] * len(self._kernel.weights)

    def billing_changed(self, before: Billing, after: Billing) -> None:
        """Another model or price: what was learned about the value of a carrier no longer holds."""
        if is_carried_by_clicks(before) != is_carried_by_clicks(after):
            self.short, self.long, self.base = [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]
            self.cells, self.hour_sums = [0.0] * 24, [0.0, 0.0]
            self.waiting = []
        if before.model is not after.model:
            self.value_sums = [0.0, 0.0]
        elif before.price_micros and after.price_micros:
            self.value_sums[0] *= after.price_micros / before.price_micros
        self._set_billing(after)

    def advance(
        self, billing: Billing, now_ms: int, rate: float, shape: TrafficShape, is_blind: bool, silence: tuple[int, int]
    ) -> Step:
        """Takes what came since the last look, in the order of origin, with the rate in force since then."""
        self.bill(billing)
        step = Step()
        elapsed = now_ms - self.last_ms if self.last_ms >= 0 else 0
        carriers, fresh_ripe = self._take(now_ms, step, silence)
        ripe = fresh_ripe
        weights, delays, waiting = self._kernel.weights, self._kernel.delays_ms, self.waiting
        if elapsed:
            for at, delay in enumerate(delays):
                left = self._old_waiting[at] * exp(-elapsed / delay)
                ripe += weights[at] * (self._old_waiting[at] - left)
                waiting[at] += left
        else:
            for at in range(len(delays)):
                waiting[at] += self._old_waiting[at]
        step.ripe = ripe * self.value
        self.last_ms = now_ms
        if elapsed and not is_blind and elapsed <= MAX_STEP_MS:
            self._learn(now_ms, elapsed, rate * elapsed, carriers, ripe, step.arrived, shape)
        elif elapsed or is_blind:
            self.is_hour_good = False
        return step

    def _take(self, now_ms: int, step: Step, silence: tuple[int, int]) -> tuple[float, float]:
        """Carriers that came, and how many of them are ripe already. Clears what was pending."""
        weights, delays = self._kernel.weights, self._kernel.delays_ms
        self._old_waiting, self.waiting = self.waiting, [0.0] * len(delays)
        carriers, ripe = float(self.old[0]), float(self.old[0])
        step.arrived = self.old[1]
        pending = self.pending
        for origin in pending if len(pending) == 1 else sorted(pending):
            count, spend = pending[origin]
            carriers += count
            step.arrived += spend
            if silence[0] <= origin < silence[1]:
                step.silent += spend
            age = now_ms - origin - HALF_PANE_MS
            come = float(count)
            for at, delay in enumerate(delays):
                left = count * exp(-age / delay) if age > 0 else count
                self.waiting[at] += left
                come -= weights[at] * left
            ripe += come
        self.pending = {}
        self.old = [0, 0]
        return carriers, ripe

    # Learning

    def _learn(
        self,
        now_ms: int,
        elapsed: int,
        exposure: float,
        carriers: float,
        ripe: float,
        arrived: int,
        shape: TrafficShape,
    ) -> None:
        hour = now_ms // HOUR_MS
        if hour != self.hour:
            self._close_hour(hour, shape)
        weight = shape.weight(hour)
        expected = exposure * self.density(hour, shape)
        keep_short, keep_long = exp(-elapsed / SHORT_MS), exp(-elapsed / LONG_MS)
        unit = self.unit
        seen = ripe * self.value / unit / VALUE_EVENTS if unit > 0 else 0.0
        keep_value = exp(-min(elapsed / VALUE_MS, seen)) if ripe > 0 else 1.0
        short, long, base, values = self.short, self.long, self.base, self.value_sums
        if expected > 0:
            short[0] = short[0] * keep_short + carriers
            short[1] = short[1] * keep_short + expected
            long[0] = long[0] * keep_long + carriers
            long[1] = long[1] * keep_long + expected
        keep_base = exp(-elapsed / BASE_MS)
        base[0] = base[0] * keep_base + carriers
        base[1] = base[1] * keep_base + exposure * weight
        self.hour_sums[0] += carriers
        self.hour_sums[1] += exposure
        values[0] = max(0.0, values[0] * keep_value + arrived)
        values[1] = max(0.0, values[1] * keep_value + ripe)

    def _close_hour(self, hour: int, shape: TrafficShape) -> None:
        carriers, exposure = self.hour_sums
        if self.is_hour_good and exposure >= LEAST_EXPOSURE_MS and self.hour >= 0:
            prior = self.density(self.hour, shape)
            if prior > 0:
                seen = (carriers + CELL_PRIOR_CARRIERS) / (exposure + CELL_PRIOR_CARRIERS / prior)
                at = self.hour % 24
                known = self.cells[at]
                self.cells[at] = known + CELL_GAIN * (seen - known) if known > 0 else seen
        self.hour, self.hour_sums, self.is_hour_good = hour, [0.0, 0.0], True

    # Answers

    @property
    def is_known(self) -> bool:
        """Whether enough was seen to steer by."""
        return self.base[0] >= KNOWN_CARRIERS and self.value > 0

    @property
    def value(self) -> float:
        """Expected spend of one carrier, millimicros."""
        if self._fixed is not None:
            return self._fixed
        kernel, unit = self._kernel, self._unit
        prior = kernel.prior_events * unit if unit is not None else 0.0
        carriers = self.value_sums[1] + (kernel.prior_carriers if unit is not None else 0.0)
        return (self.value_sums[0] + prior) / carriers if carriers > 0 else 0.0

    @property
    def unit(self) -> float:
        """What one billable event costs, millimicros."""
        return self._unit if self._unit is not None else self.value

    def density(self, hour: int, shape: TrafficShape) -> float:
        """Carriers per ms at rate 1 that are usual in an absolute hour; 0 while nothing is known."""
        cell = self.cells[hour % 24]
        if cell > 0:
            return cell
        return self.base[0] / self.base[1] * shape.weight(hour) if self.base[1] > 0 else 0.0

    @property
    def level_now(self) -> float:
        """The last minutes against what is usual."""
        return (self.short[0] + PRIOR_CARRIERS) / (self.short[1] + PRIOR_CARRIERS)

    @property
    def level_today(self) -> float:
        """The last hours against what is usual."""
        return (self.long[0] + PRIOR_CARRIERS) / (self.long[1] + PRIOR_CARRIERS)

    def in_flight(self, left_ms: float) -> float:
        """Expected spend, millimicros, of carriers seen, that will come within `left_ms`."""
        carriers = 0.0
        for weight, delay, waiting in zip(self._kernel.weights, self._kernel.delays_ms, self.waiting, strict=True):
            carriers += weight * waiting * (1.0 - exp(-left_ms / delay))
        return max(0.0, carriers * self.value) if carriers else 0.0

    def share_within(self, left_ms: float) -> float:
        """Share of a carrier's spend that comes within a time."""
        kernel = self._kernel
        share = 1.0
        for weight, delay in zip(kernel.weights, kernel.delays_ms, strict=True):
            share -= weight * exp(-left_ms / delay)
        return share

    def snapshot(self) -> list[Any]:
        """Builtin values."""
        pending = [(origin, list(self.pending[origin])) for origin in sorted(self.pending)]
        sums = [self.short, self.long, self.base, self.value_sums, self.hour_sums, self.waiting, self.cells]
        return [pending, list(self.old), self.last_ms, self.hour, self.is_hour_good, [list(each) for each in sums]]

    def restore(self, snapshot: list[Any]) -> None:
        """Takes back what `snapshot` gave."""
        pending, self.old, self.last_ms, self.hour, self.is_hour_good, sums = snapshot
        self.pending = {origin: list(amounts) for origin, amounts in pending}
        self.short, self.long, self.base, self.value_sums, self.hour_sums, self.waiting, self.cells = map(list, sums)
        self._billing = None
