"""The closed loop of pacing: an ad server that obeys, over days of a simulated market; three ways to pace, same seeds.

* `none`: rate 1 until the budget is reached, as the ad server sees it with the same delay;
* `linkedin`: each minute ×1.1 or ×0.9 towards a plan by the forecast of traffic that ends after 22 of 24 hours,
  starting at 10% (LinkedIn, KDD 2014); its forecast is what our `TrafficShape` learned;
* `ours`: `CampaignPacer`.

Controls are decided every 10 s from what was seen (30% of each pane's events come one pane later) and hold from 2 s
into the next pane. Figures are over all whole periods (local days, live sessions) of all campaigns:

* `end_of_day_error_*`: |valid spend − plan| / plan, where supply allows: rate 1 would have brought 1.15 times the plan,
  and after a change of the budget 1.15 times what the rest of the day still needed. Both are the market's truth, the
  same for all policies. The plan is the budget in force at the period's end, but what was spent when it was lowered is
  not held against anyone;
* `overspend_p99`: what valid spend exceeds the plan by, share of the plan, all periods;
* `rate_volatility`: the way that the rate goes within a minute (sum of |changes|) over its highest value in it, the
  mean over all minutes and campaigns;
* `off_plan_mean`: mean distance of spend from an even or traffic-shaped plan during the period, share of the plan
  (campaigns that are to spend as soon as possible left out);
* `pipeline_events_per_s`: the standard workload from filled topics (as `bench pipeline`), its 1,000 campaigns paced;
* `control_ms_*`: from a record's append to the control that reflects it, with the broker, the worker and its sinks
  (`bench.control_latency`).
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from bench.control_latency import control_ms, paced
from bench.market import Incident, Market, Step
from bench.market_demand import PANE_MS
from bench.pipeline import DENSE_PER_S, pipeline
from bench.workload import Workload
from streams.rules import DAY_MS, HOUR_MS, MINUTE_MS
from streams.stages.pacing.campaign import CampaignPacer
from streams.stages.pacing.facts import Facts
from streams.stages.pacing.shape import TrafficShape
from streams.terms import PacingMode

Floats = npt.NDArray[np.float64]
Figures = dict[str, float | int]
SUPPLY_MARGIN: Final = 1.15
PANES_A_MINUTE: Final = MINUTE_MS // PANE_MS
POLICIES: Final = ("none", "linkedin", "ours")
MINUTES_A_PROBE: Final = 15
LOAD_PER_S: Final = 5_000.0
"""Events/s beside which the latency of controls is measured: what two processors carry with the generator, the broker
and the worker on them. Where the worker falls behind, the backlog is measured and not the control."""


class Policy(Protocol):
    """Decides all campaigns' rates from what was seen."""

    def decide(self, market: Market, step: Step) -> Floats:
        """The rates from now on."""


class Ours:
    """What the product does, without Kafka around it."""

    def __init__(self, market: Market) -> None:
        self.pacers = [CampaignPacer(settings.campaign_id) for settings in market.settings]
        self.shape = TrafficShape()
        self.settings = list(market.settings)

    def decide(self, market: Market, step: Step) -> Floats:
        """One look at each campaign."""
        facts = Facts(step.now_ms, step.now_ms + 2_000, step.unknown, False)
        rates = np.zeros(market.count)
        for change in step.changes:
            self.pacers[change.campaign].settings_changed(change.before, change.after, step.now_ms)
            self.settings[change.campaign] = change.after
        for index, pacer in enumerate(self.pacers):
            settings, session = self.settings[index], step.sessions[index]
            for added in step.added[index]:
                pacer.add(settings, added)
                self.shape.add(added.origin_ms, pacer.unthrottled(added.impressions))
            own = facts if session is None else facts._replace(sessions=(session,))
            rates[index] = pacer.evaluate(settings, own, self.shape).rate
        return rates


class Seen:
    """Spend of the running period as the ad server sees it, for the policies that need no more."""

    def __init__(self, market: Market) -> None:
        self.spend = np.zeros(market.count)
        self.periods: list[int | None] = [None] * market.count
        self.budget = np.zeros(market.count)
        self.began = np.zeros(market.count, dtype=bool)

    def take(self, market: Market, step: Step) -> None:
        """One step; `began` marks the campaigns whose period is new."""
        self.began[:] = False
        if step.now_ms // (HOUR_MS // 4) != (step.now_ms + 1) // (HOUR_MS // 4) or self.periods[0] is None:
            for index in range(market.count):
                period = market.period_of(index, step.now_ms + 1)
                if period != self.periods[index]:
                    self.periods[index], self.spend[index], self.began[index] = period, 0.0, True
        for index, rows in enumerate(step.added):
            start = self.periods[index]
            for row in rows:
                if start is not None and row.origin_ms >= start:
                    self.spend[index] += row.spend_millimicros - row.credited_millimicros
        self.budget = np.array([budget_of(market, index) for index in range(market.count)]) * 1_000.0

    @property
    def runs(self) -> npt.NDArray[np.bool_]:
        """Campaigns whose period is running."""
        return np.array([period is not None for period in self.periods])


class Unpaced:
    """Rate 1 until the budget is reached."""

    def __init__(self, market: Market) -> None:
        self.seen = Seen(market)

    def decide(self, market: Market, step: Step) -> Floats:
        """All or nothing."""
        self.seen.take(market, step)
        return np.where(self.seen.runs & (self.seen.spend < self.seen.budget), 1.0, 0.0)


class TenPercent:
    """LinkedIn's rule."""

    def __init__(self, market: Market) -> None:
        self.seen = Seen(market)
        self.rates = np.full(market.count, 0.1)
        self.shape = TrafficShape()
        self.is_asap = np.array([s.pacing.mode is PacingMode.AS_SOON_AS_POSSIBLE for s in market.settings])
        self.is_even = np.array([s.pacing.mode is PacingMode.EVEN for s in market.settings])

    def decide(self, market: Market, step: Step) -> Floats:
        """A tenth up or down, once a minute."""
        seen = self.seen
        for index, rows in enumerate(step.added):
            for row in rows:
                self.shape.add(row.origin_ms, row.impressions / max(0.02, self.rates[index]))
        seen.take(market, step)
        self.rates[seen.began] = 0.1
        if (step.now_ms + 1) % MINUTE_MS == 0:
            target = np.array([self._target(market, index, step.now_ms) for index in range(market.count)]) * seen.budget
            self.rates *= np.where(seen.spend < target, 1.1, 0.9)
            np.clip(self.rates, 1e-4, 1.0, out=self.rates)
        return np.where(seen.runs & (seen.spend < seen.budget), self.rates, 0.0)

    def _target(self, market: Market, index: int, now_ms: int) -> float:
        bounds = market.bounds_of(index, now_ms)
        if bounds is None or self.is_asap[index]:
            return 1.0
        start, end = bounds
        finish = start + (end - start) * 22 // 24
        if self.is_even[index] or market.truths[index].session_hours is not None or self.shape.version < 0:
            return min(1.0, (now_ms - start) / (finish - start))
        return min(1.0, self._traffic(start, min(now_ms, finish)) / self._traffic(start, finish))

    def _traffic(self, start: int, end: int) -> float:
        first, last = start // HOUR_MS, end // HOUR_MS
        total = sum(self.shape.weight(hour) for hour in range(first, last))
        total -= self.shape.weight(first) * (start % HOUR_MS) / HOUR_MS
        return total + self.shape.weight(last) * (end % HOUR_MS) / HOUR_MS


MAKERS: Final[dict[str, Callable[[Market], Policy]]] = {"none": Unpaced, "linkedin": TenPercent, "ours": Ours}


def budget_of(market: Market, index: int) -> int:
    """Micros of the period."""
    budget = market.settings[index].budget
    return budget.session_micros or budget.daily_micros or 0


class Course:
    """What is measured on the way."""

    def __init__(self, market: Market) -> None:
        self.way = np.zeros(market.count)
        self.highest = np.zeros(market.count)
        self.before = np.ones(market.count)
        self.volatility: list[float] = []

    def note(self, rates: Floats, pane: int) -> None:
        """One pane's controls."""
        self.way += np.abs(rates - self.before)
        self.highest = np.maximum(self.highest, np.maximum(rates, self.before))
        self.before = rates
        if (pane + 1) % PANES_A_MINUTE == 0:
            shares = np.divide(self.way, self.highest, out=np.zeros_like(self.way), where=self.highest > 0)
            self.volatility.append(float(shares.mean()))
            self.way = np.zeros_like(self.way)
            self.highest = np.zeros_like(self.highest)


class Result(dict[str, Floats]):
    """Figures before they are summed up: one array for each."""


def simulate(policy: str, seed: int, count: int, days: int) -> Result:
    """One policy through one market."""
    start = Market(1, seed).start_ms
    outage = Incident("dead_impressions", -1, start + DAY_MS + 15 * HOUR_MS, start + DAY_MS + 15 * HOUR_MS + 1_200_000)
    market = Market(count, seed, [outage])
    player: Policy = MAKERS[policy](market)
    course, rates = Course(market), np.zeros(count) if policy == "ours" else np.ones(count)
    distance = Distance(market)
    for pane in range(days * DAY_MS // PANE_MS):
        step = market.step(rates)
        rates = player.decide(market, step)
        course.note(rates, pane)
        if pane % (MINUTES_A_PROBE * PANES_A_MINUTE) == 0:
            distance.note(market)
    return Result(volatility=np.array(course.volatility), off_plan=np.array(distance.shares), **ends_of(market))


class Distance:
    """How far spend is from the plan during a period: even, or by the true share of the day's expected traffic."""

    def __init__(self, market: Market) -> None:
        self.shares: list[float] = []
        self.kept = [s.pacing.mode is not PacingMode.AS_SOON_AS_POSSIBLE for s in market.settings]

    def note(self, market: Market) -> None:
        """One probe."""
        for index in range(market.count):
            bounds = market.bounds_of(index, market.now_ms - 1)
            if bounds is None or not self.kept[index] or bounds[0] < market.start_ms:
                continue
            if market.truths[index].abundance < SUPPLY_MARGIN or market.truths[index].session_hours is not None:
                continue
            planned = budget_of(market, index) * market.planned_share(index, market.now_ms)
            gross, credited = market.spent[index].get(bounds[0], [0, 0])
            self.shares.append(abs((gross - credited) / 1_000 - planned) / budget_of(market, index))


def ends_of(market: Market) -> dict[str, Floats]:
    """Errors and overspend of all whole periods."""
    errors, over, codes = [], [], []
    for index in range(market.count):
        for start, supply in market.supply[index].items():
            bounds = market.bounds_of(index, start)
            assert bounds is not None
            if start < market.start_ms or bounds[1] > market.now_ms:
                continue
            plan, spent = market.plan_of(index, start), market.spent[index].get(start, [0, 0])
            off = (spent[0] - spent[1]) / 1_000 / plan.micros - 1
            over.append(max(0.0, off))
            codes.append(index)
            whole, after = supply[0] / 1_000, supply[1] / 1_000
            need_after = plan.budget - plan.before * (1 - after / whole) if whole > 0 else plan.budget
            allows = whole >= SUPPLY_MARGIN * plan.budget and after >= SUPPLY_MARGIN * need_after
            errors.append(abs(off) if allows else np.nan)
    return {"errors": np.array(errors), "over": np.array(over), "codes": np.array(codes, dtype=np.float64)}


def summed_up(results: list[Result]) -> Figures:
    """The figures of one policy."""
    errors = np.concatenate([result["errors"] for result in results])
    over = np.concatenate([result["over"] for result in results])
    allowed = errors[~np.isnan(errors)]
    return {
        "end_of_day_error_median": float(np.median(allowed)),
        "end_of_day_error_p95": float(np.quantile(allowed, 0.95)),
        "overspend_p99": float(np.quantile(over, 0.99)),
        "rate_volatility": float(np.mean(np.concatenate([result["volatility"] for result in results]))),
        "off_plan_mean": float(np.mean(np.concatenate([result["off_plan"] for result in results]))),
        "periods": len(over),
        "periods_where_supply_allows": len(allowed),
    }


async def run(quick: bool) -> Figures:
    """All policies on the same seeds, in as many processes as there are processors."""
    seeds, count, days = ((1, 2), 50, 2) if quick else ((1, 2, 3, 4), 60, 4)
    jobs = [(policy, seed) for policy in reversed(POLICIES) for seed in seeds]
    with ProcessPoolExecutor(max_workers=max(1, min(2, os.cpu_count() or 1))) as pool:
        waiting = [pool.submit(simulate, policy, seed, count, days) for policy, seed in jobs]
        results = [job.result() for job in waiting]
    figures: Figures = {"campaigns": count * len(seeds), "days": days}
    for policy in POLICIES:
        own = [result for (name, _), result in zip(jobs, results, strict=True) if name == policy]
        figures.update({f"{policy}.{figure}": value for figure, value in summed_up(own).items()})
    figures["pipeline_events_per_s"] = await paced_pipeline(400_000 if quick else 4_000_000)
    figures.update(await control_ms(LOAD_PER_S, 15.0 if quick else 75.0))
    return figures


async def paced_pipeline(events: int) -> float:
    """Event times begin now: spend falls into the day that is paced."""
    workload = Workload(events, DENSE_PER_S, start_ms=time.time_ns() // 1_000_000)
    return await pipeline(workload, campaigns=[paced(f"c{n:05d}") for n in range(workload.campaigns)])
