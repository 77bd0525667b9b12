"""Days of a closed loop: the market, the product's pacing and alerts, and incidents whose truth is known."""

from collections.abc import Callable
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from bench.alerts_incidents import FACTORS, LASTS_H, VOLUME, Injected
from bench.alerts_market import CohortMarket
from bench.market import USUAL_INVALID, Incident, Step
from bench.market_demand import PANE_MS
from streams.events import Input
from streams.rules import DAY_MS, HOUR_MS
from streams.signals import Alert, Allowance, PoolKind
from streams.stages.alerting.campaign import CampaignAlerts
from streams.stages.alerting.facts import AlertFacts, InvalidCounts, PartitionFacts
from streams.stages.alerting.partition import PartitionAlerts
from streams.stages.pacing.campaign import CampaignPacer
from streams.stages.pacing.facts import Added, Decision, Facts
from streams.stages.pacing.shape import TrafficShape
from streams.state.windows import day_bounds
from streams.terms import BillingModel, PacingMode

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
HISTORY_DAYS: Final = 21
JUDGED: Final = ("clicks", "impressions")
PANES_AN_HOUR: Final = HOUR_MS // PANE_MS
Note = Callable[[Step, list[Alert]], None]
"""Takes one step's changes."""


class Loop:
    """Days of a closed loop with incidents."""

    def __init__(self, seed: int, count: int, days: int) -> None:
        self.market = CohortMarket(count, seed)
        self.rng = np.random.default_rng([seed, 23])
        self.count, self.days = count, days
        self._give_targets()
        self.settings = list(self.market.settings)
        self.pacers = [CampaignPacer(settings.campaign_id) for settings in self.settings]
        self.alerts = [CampaignAlerts(settings.campaign_id) for settings in self.settings]
        self.partition = PartitionAlerts(0)
        self.shape = TrafficShape()
        self.injected: list[Injected] = []
        self.gross: dict[str, Ints] = {name: np.zeros((PANES_AN_HOUR, count), dtype=np.int64) for name in JUDGED}
        self.spend: Ints = np.zeros((PANES_AN_HOUR, count), dtype=np.int64)
        self.left: Floats = np.array([30.0 * self._daily(index) for index in range(count)])
        self.drained: list[int] = []
        """Campaigns whose account lasts for one and a half days' budgets from the second day on."""
        self.held: list[tuple[int, Ints]] = []
        self.dead_since = 0

    def _daily(self, index: int) -> float:
        budget = self.market.settings[index].budget
        return float(budget.session_micros or budget.daily_micros or 0)

    def _give_targets(self) -> None:
        """Campaigns that are billed by impression or click are judged by what a conversion usually costs them."""
        for index, truth in enumerate(self.market.truths):
            billing = self.market.settings[index].billing
            if billing.model is BillingModel.CPA:
                continue
            cost = int(truth.value_millimicros / truth.ctr / truth.cvr / 1_000)
            billing = msgspec.structs.replace(billing, target_cost_micros=cost)
            self.market.settings[index] = msgspec.structs.replace(self.market.settings[index], billing=billing)

    # Before

    def learn_history(self) -> None:
        """Three quiet weeks, hour by hour."""
        start = self.market.start_ms - HISTORY_DAYS * DAY_MS
        for index, alerts in enumerate(self.alerts):
            settings, carried = self.settings[index], 0.0
            for hour in range(start, self.market.start_ms, HOUR_MS):
                usual = self.market.usual_hour(index, hour)
                late = usual[2] - usual[4]
                carried += (late - carried) / 8
                early = int(self.rng.poisson(usual[4]))
                impressions, clicks = int(self.rng.poisson(usual[0])), int(self.rng.poisson(usual[1]))
                conversions = early + int(self.rng.poisson(carried))
                alerts.add(Added(hour, impressions, 0, clicks, conversions, int(usual[3])))
                alerts.add_cohort(hour, 0, early)
                alerts.evaluate(settings, AlertFacts(hour + HOUR_MS - 1, 0, is_catching_up=True))

    def plan_incidents(self) -> None:
        """One of each kind a day, in campaigns that are big enough, never two in one."""
        free = [i for i in range(self.count) if self.market.truths[i].session_hours is None]
        self.rng.shuffle(free)
        for day in range(1, self.days):
            for kind in [*LASTS_H]:
                found = next((i for i in free if self._suits(kind, i)), None)
                if found is None:
                    continue
                free.remove(found)
                self._inject(kind, found, day)
        for index in [i for i in free if self.market.truths[i].abundance > 1.4][:3]:
            free.remove(index)
            self.drained.append(index)
            begins = self.market.start_ms + DAY_MS
            self.injected.append(Injected("balance_low", index, begins, self.market.start_ms + self.days * DAY_MS))
        died = self.market.start_ms + DAY_MS + 20 * HOUR_MS
        self.market.incidents.append(Incident("dead_impressions", -1, died, died + HOUR_MS))
        self.injected.append(Injected("input_silent", -1, died, died + HOUR_MS))

    def _suits(self, kind: str, index: int) -> bool:
        truth, settings = self.market.truths[index], self.market.settings[index]
        mode = settings.pacing.mode
        usual = [self.market.usual_hour(index, self.market.start_ms + h * HOUR_MS) for h in range(24)]
        share = LASTS_H[kind] / 24
        clicks, early = sum(u[1] for u in usual) * share, sum(u[4] for u in usual) * share
        is_asap = mode is PacingMode.AS_SOON_AS_POSSIBLE
        if kind in ("stalled", "under_delivery"):
            return truth.abundance > 1.4 and not is_asap and sum(u[0] for u in usual) > 5_000
        if kind == "over_delivery":
            return truth.abundance > 5 and not is_asap and settings.billing.model is not BillingModel.CPA
        if kind == "exhausted_early":
            return truth.abundance > 2 and not is_asap
        if is_asap or truth.abundance < 1.4:
            return False
        if kind == "invalid":
            return clicks > 50
        if kind.startswith("ctr"):
            return clicks > VOLUME[kind]
        if kind == "cpa":  # of an auction whose price rises
            return settings.billing.model is BillingModel.OCPM and early > VOLUME[kind]
        return settings.billing.model is not BillingModel.CPA and early > VOLUME[kind]

    def _inject(self, kind: str, index: int, day: int) -> None:
        zone = self.market.truths[index].settings.time_zone
        local = day_bounds(self.market.start_ms + day * DAY_MS + 12 * HOUR_MS, zone)[0]
        start = local + int(self.rng.uniform(8, 11) * HOUR_MS) + (6 * HOUR_MS if kind == "exhausted_early" else 0)
        start -= start % PANE_MS
        latest = self.market.start_ms + self.days * DAY_MS - 2 * HOUR_MS
        end = min(start + LASTS_H[kind] * HOUR_MS, latest)
        if start >= end - LASTS_H[kind] * HOUR_MS // 2 or start < self.market.start_ms + DAY_MS:
            return
        self.injected.append(Injected(kind, index, start, end))
        if kind in ("stalled", "under_delivery"):
            factor = 0.0 if kind == "stalled" else 0.3 / self.market.truths[index].abundance
            self.market.incidents.append(Incident("demand", index, start, end, factor))
        elif kind == "over_delivery":
            self.market.unruly[index] = (start, end)
        elif kind == "exhausted_early":
            self.market._changes = sorted([*self.market._changes, (start, index, 0.15)], key=lambda c: (c[0], c[1]))
        elif kind == "invalid":
            self.market.incidents.append(Incident("invalid", index, start, end, 0.4))
        else:
            what = {"ctr_down": "ctr", "ctr_up": "ctr", "cpa": "price"}.get(kind, "cvr")
            self.market.incidents.append(Incident(what, index, start, end, FACTORS[kind]))

    # The loop

    def run(self, note: Note) -> None:
        """All days."""
        self.learn_history()
        self.plan_incidents()
        rates = np.zeros(self.count)
        for pane in range(self.days * DAY_MS // PANE_MS):
            if pane == DAY_MS // PANE_MS:
                for index in self.drained:
                    self.left[index] = 1.5 * self._daily(index)
            for index, (start, end) in self.market.unruly.items():
                if start <= self.market.now_ms < end:
                    rates[index] = 1.0
            step = self.market.step(rates)
            rates, changes = self._decide(step)
            note(step, changes)

    def _decide(self, step: Step) -> tuple[Floats, list[Alert]]:
        rates = np.zeros(self.count)
        facts = Facts(step.now_ms, step.now_ms + 2_000, step.unknown, False)
        at = self.market.pane % PANES_AN_HOUR
        for name, counts in self.gross.items():
            counts[at] = step.counts[name]
        self.spend[at] = step.counts["spend_millimicros"] // 1_000
        self.left -= self.spend[at]
        burns = self.spend.sum(axis=0).tolist()
        gross = list(zip(*(self.gross[name].sum(axis=0).tolist() for name in JUDGED), strict=True))
        cohorts = self._cohorts(step)
        for change in step.changes:
            self.pacers[change.campaign].settings_changed(change.before, change.after, step.now_ms)
            self.settings[change.campaign] = change.after
        changes: list[Alert] = []
        for index, pacer in enumerate(self.pacers):
            settings, session, alerts = self.settings[index], step.sessions[index], self.alerts[index]
            for added in step.added[index]:
                pacer.add(settings, added)
                alerts.add(added)
                self.shape.add(added.origin_ms, pacer.unthrottled(added.impressions))
            for hour, early in cohorts:
                if early[index]:
                    alerts.add_cohort(hour, 0, early[index])
            own = facts if session is None else facts._replace(sessions=(session,))
            decision = pacer.evaluate(settings, own, self.shape)
            rates[index] = decision.rate
            told = self._facts(step, index, decision, burns[index], gross[index])
            changes += alerts.evaluate(settings, told)
        self.dead_since = (self.dead_since or step.now_ms) if step.unknown else 0
        silent = dict.fromkeys(step.unknown, self.dead_since)
        changes += self.partition.evaluate(PartitionFacts(step.now_ms, step.now_ms + 2_000, 0, silent))
        return rates, changes

    def _cohorts(self, step: Step) -> list[tuple[int, list[int]]]:
        if Input.CONVERSIONS in step.unknown:
            self.held += self.market.early
            return []
        told = [(hour, early.tolist()) for hour, early in [*self.held, *self.market.early]]
        self.held = []
        return told

    def _facts(self, step: Step, index: int, decision: Decision, burn: int, gross: tuple[int, int]) -> AlertFacts:
        allowance = Allowance(
            campaign_id=self.settings[index].campaign_id,
            pool=PoolKind.BALANCE,
            pool_id=f"acc-{index}",
            currency="USD",
            limit_micros=10**15,
            left_micros=int(self.left[index]),
            burn_micros_per_h=burn,
            sequence=0,
        )
        share = USUAL_INVALID
        for incident in self.injected:
            if incident.kind == "invalid" and incident.campaign == index:
                overlap = min(step.now_ms, incident.end_ms) - max(step.now_ms - HOUR_MS, incident.start_ms)
                share += 0.4 * max(0, overlap) / HOUR_MS
        invalid = InvalidCounts(*((int(count * share), count) for count in gross))
        return AlertFacts(
            step.now_ms, step.now_ms + 2_000, 0, step.unknown, False, decision, (allowance,), True, invalid
        )
