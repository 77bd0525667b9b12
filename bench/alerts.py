"""Alerts against truth: a closed loop of days with injected incidents, and many quiet weeks for false alerts.

**loop**: the market of `bench.market` (demand, delays, ad server and noise are simulated; pacing and alerts are the
product's own), 10 s a step. Three weeks of quiet history are learned first, hour by hour, as a loaded history would
be; the first simulated day settles the pacing and is not judged. Then incidents are injected, each into a campaign
whose volume allows to see it in principle (`VOLUME`: expected clicks or conversions while it lasts), and once a topic
dies in the evening. An incident is found if an alert of its kind (or of a kind that explains it better) fires for its
campaign before an hour after its end. Alerts outside of injected incidents are judged by the market's truth
(`Judge.is_true`): what was really spent and served, not what the pipeline saw.

**weeks**: quiet campaigns of three orders of magnitude, 13 weeks in steps of 20 minutes, of which ten are judged:
daily and weekly cycles, trends and drifts, days and hours that vary by themselves, heavy-tailed noise, counts that vary
more than Poisson, accounts that are topped up in time. Whatever fires there is false. There is no pacing in it: the
kinds about budgets are judged in the loop only.

`false_per_campaign_week` is the sum of both: kinds about budgets from the loop, all others from the weeks.
A receiver is an advertiser of ten campaigns; pushed changes of one cause within an hour are one message, what is not
pushed is one digest a day on which there is any.
"""

import os
from collections import Counter, defaultdict
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from bench.market import CONVERSION, USUAL_INVALID, Incident, Market, Step
from bench.market_demand import PANE_MS, usual_day
from streams.campaigns import CampaignSettings
from streams.events import Input
from streams.rules import DAY_MS, HOUR_MS, MINUTE_MS
from streams.signals import Alert, AlertState, Allowance, PoolKind
from streams.stages.alerting.campaign import CampaignAlerts
from streams.stages.alerting.facts import AlertFacts, PartitionFacts
from streams.stages.alerting.partition import PartitionAlerts
from streams.stages.pacing.campaign import CampaignPacer
from streams.stages.pacing.facts import Added, Decision, Facts
from streams.stages.pacing.shape import TrafficShape
from streams.state.windows import day_bounds
from streams.terms import AlertKind, Billing, BillingModel, PacingMode

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Figures = dict[str, float | int]
WEEK_MS: Final = 7 * DAY_MS
HISTORY_DAYS: Final = 21
GRACE_MS: Final = HOUR_MS
PANES_AN_HOUR: Final = HOUR_MS // PANE_MS
STALLED_PANES: Final = 30 * MINUTE_MS // PANE_MS
A_RECEIVER: Final = 10
LOOP_KINDS: Final = frozenset(
    {
        *(AlertKind.EXHAUSTED, AlertKind.EXHAUSTED_EARLY, AlertKind.OVER_DELIVERY, AlertKind.UNDER_DELIVERY),
        *(AlertKind.EXPECTED_UNDER_DELIVERY, AlertKind.BUDGET_LADDER),
    }
)
K = AlertKind
FINDS: Final[dict[str, tuple[AlertKind, ...]]] = {
    "stalled": (K.STALLED,),
    "ctr_down": (K.CTR_ANOMALY,),
    "ctr_up": (K.CTR_ANOMALY,),
    "cvr_down": (K.CVR_ANOMALY, K.CONVERSIONS_COLLAPSED),
    "cost_overrun": (K.COST_OVERRUN,),
    "cpa": (K.CPA_ANOMALY, K.COST_OVERRUN),
    "collapse": (K.CONVERSIONS_COLLAPSED,),
    "invalid": (K.INVALID_TRAFFIC,),
    "over_delivery": (K.OVER_DELIVERY, K.EXHAUSTED_EARLY),
    "under_delivery": (K.UNDER_DELIVERY, K.EXPECTED_UNDER_DELIVERY),
    "exhausted_early": (K.EXHAUSTED_EARLY, K.EXHAUSTED),
    "balance_low": (K.BALANCE_LOW,),
    "input_silent": (K.INPUT_SILENT,),
}
"""Which alerts find an incident of a kind."""
FACTORS: Final = {"ctr_down": 0.4, "ctr_up": 3.0, "cvr_down": 0.3, "cost_overrun": 0.3, "collapse": 0.02, "cpa": 3.0}
LASTS_H: Final = {"stalled": 3, "ctr_down": 8, "ctr_up": 8, "cvr_down": 10, "cost_overrun": 12, "cpa": 10}
LASTS_H.update({"collapse": 8, "invalid": 4, "over_delivery": 8, "under_delivery": 12, "exhausted_early": 6})
VOLUME: Final = {"ctr_down": 400, "ctr_up": 250, "cvr_down": 120, "cost_overrun": 100, "cpa": 120, "collapse": 60}


class Injected(NamedTuple):
    """An incident and its truth."""

    kind: str
    campaign: int
    start_ms: int
    end_ms: int


class CohortMarket(Market):
    """The market, which also tells conversions of clicks' first hour by click hour, and what was expected."""

    def __init__(self, count: int, seed: int) -> None:
        super().__init__(count, seed)
        self._young: Ints = np.zeros((60, 3, count), dtype=np.int64)
        self._young_hours = np.zeros(60, dtype=np.int64)
        self.early: list[tuple[int, Ints]] = []
        """This pane's conversions within an hour of their click: click hour, by campaign."""
        self.expected: Floats = np.zeros((STALLED_PANES, count))
        self.unruly: dict[int, tuple[int, int]] = {}
        """Campaigns whose ad server ignores controls, from when until when."""

    def _draw(self, expected: Floats, factors: dict[str, Floats]) -> dict[str, Ints]:
        self.expected[self.pane % STALLED_PANES] = expected
        return super()._draw(expected, factors)

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
        self.changes: list[Alert] = []
        self.gross: Ints = np.zeros((PANES_AN_HOUR, count), dtype=np.int64)
        self.spend: Ints = np.zeros((PANES_AN_HOUR, count), dtype=np.int64)
        self.left: Floats = np.array([30.0 * self._daily(index) for index in range(count)])
        self.drained: list[int] = []
        """Campaigns whose account lasts for one and a half days' budgets from the second day on."""
        self.held: list[tuple[int, Ints]] = []
        self.dead_since = 0
        self.last_s = 0
        self.judge = Judge(self)

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

    def run(self) -> dict[str, Any]:
        """All days; figures before they are summed up."""
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
            rates = self._decide(step)
        return self.judge.result()

    def _decide(self, step: Step) -> Floats:
        rates = np.zeros(self.count)
        facts = Facts(step.now_ms, step.now_ms + 2_000, step.unknown, False)
        at = self.market.pane % PANES_AN_HOUR
        self.gross[at] = step.counts["impressions"] + step.counts["clicks"]
        self.spend[at] = step.counts["spend_millimicros"] // 1_000
        self.left -= self.spend[at]
        burns, gross = self.spend.sum(axis=0).tolist(), self.gross.sum(axis=0).tolist()
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
            own = facts if session is None else facts._replace(session=session)
            decision = pacer.evaluate(settings, own, self.shape)
            rates[index] = decision.rate
            told = self._facts(step, index, decision, burns[index], gross[index])
            changes += alerts.evaluate(settings, told)
        self.dead_since = (self.dead_since or step.now_ms) if step.unknown else 0
        silent = dict.fromkeys(step.unknown, self.dead_since)
        changes += self.partition.evaluate(PartitionFacts(step.now_ms, step.now_ms + 2_000, 0, silent))
        self.judge.note(step, changes)
        return rates

    def _cohorts(self, step: Step) -> list[tuple[int, list[int]]]:
        if Input.CONVERSIONS in step.unknown:
            self.held += self.market.early
            return []
        told = [(hour, early.tolist()) for hour, early in [*self.held, *self.market.early]]
        self.held = []
        return told

    def _facts(self, step: Step, index: int, decision: Decision, burn: int, gross: int) -> AlertFacts:
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
        invalid = (int(gross * share), gross)
        return AlertFacts(
            step.now_ms, step.now_ms + 2_000, 0, step.unknown, False, decision, (allowance,), True, invalid
        )


class Judge:
    """Keeps every change beside the truth of its moment."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.told: list[Alert] = []
        self.false: list[Alert] = []
        self.unexplained: list[tuple[Alert, float]] = []
        self.crossed: dict[tuple[int, int], tuple[int, float]] = {}
        """(campaign, period): when the true spend reached its budget, and the share of the period by then."""

    def note(self, step: Step, changes: list[Alert]) -> None:
        """One step's changes."""
        if self.loop.market.pane % 6 == 0:
            self._cross(step)
        if step.now_ms < self.loop.market.start_ms + DAY_MS:
            return
        for alert in changes:
            self.told.append(alert)
            if alert.state is AlertState.FIRING and not self.is_true(alert):
                self.false.append(alert)

    def _index(self, alert: Alert) -> int:
        return int(alert.campaign_id[2:]) if alert.campaign_id else -1

    def _of(self, index: int, at_ms: int) -> tuple[float, float, tuple[int, int]] | None:
        """True valid spend and budget of the period of a moment, micros, and its bounds."""
        market = self.loop.market
        bounds = market.bounds_of(index, at_ms)
        if bounds is None:
            return None
        gross, credited = market.spent[index].get(bounds[0], [0, 0])
        budget = self.loop.settings[index].budget
        return (gross - credited) / 1_000, float(budget.session_micros or budget.daily_micros or 0), bounds

    def _cross(self, step: Step) -> None:
        for index in range(self.loop.count):
            now = self._of(index, step.now_ms)
            if now is None or now[0] < 0.997 * now[1]:
                continue
            start, end = now[2]
            key, share = (index, start), (step.now_ms - start) / (end - start)
            if key not in self.crossed and start >= self.loop.market.start_ms + DAY_MS:
                self.crossed[key] = (step.now_ms, share)

    def is_true(self, alert: Alert) -> bool:
        """Whether the market's truth at this moment, or an injected incident, bears an alert out."""
        index, at_ms, kind = self._index(alert), alert.changed_ms, alert.kind
        for incident in self.loop.injected:
            is_its = (
                incident.campaign == index and incident.start_ms - PANE_MS <= at_ms <= incident.end_ms + 3 * HOUR_MS
            )
            if is_its and (kind in FINDS[incident.kind] or kind in _FOLLOWS.get(incident.kind, ())):
                return True
        if kind is K.STALLED:
            return float(self.loop.market.expected[:, index].sum()) < 1.0
        now = self._of(index, at_ms)
        if kind not in LOOP_KINDS or now is None:
            return False
        spent, budget, _ = now
        if kind in (K.EXHAUSTED, K.EXHAUSTED_EARLY):
            return spent >= 0.99 * budget
        if kind is K.BUDGET_LADDER:
            return spent >= ((alert.expected or 0) - 1) / 100 * budget
        if kind is K.EXPECTED_UNDER_DELIVERY:
            return self._cannot_spend(index)
        planned = self.loop.market.planned_share(index, at_ms) * budget
        if kind is K.OVER_DELIVERY:
            return spent - planned >= 0.05 * budget
        return planned - spent >= 0.05 * budget or self._cannot_spend(index)

    def _cannot_spend(self, index: int) -> bool:
        """The campaign's demand, at rate 1, is short of its budget on a usual day."""
        return self.loop.market.truths[index].abundance < 1.0

    def result(self) -> dict[str, Any]:
        """What is summed up over seeds."""
        loop = self.loop
        found, delays = Counter[str](), defaultdict[str, list[float]](list)
        fired = [alert for alert in self.told if alert.state is AlertState.FIRING]
        missed = []
        for incident in loop.injected:
            hit = [a.changed_ms for a in fired if self._finds(a, incident)]
            found[incident.kind] += bool(hit)
            if hit:
                begin = incident.start_ms if incident.kind != "balance_low" else min(hit)
                delays[incident.kind].append((min(hit) - begin) / 1_000)
            else:
                missed.append(incident)
        early = [(k, at, s) for k, (at, s) in self.crossed.items() if s < 0.975]
        told = {(self._index(a), a.changed_ms): a for a in fired if a.kind in (K.EXHAUSTED, K.EXHAUSTED_EARLY)}
        seen = sum(any(i == k[0] and abs(at - t) < HOUR_MS for i, t in told) for k, at, _ in early)
        died = [i for i in loop.injected if i.kind == "input_silent"]
        blind = [
            a for a in fired if a.campaign_id and any(d.start_ms + 60_000 <= a.changed_ms < d.end_ms for d in died)
        ]
        return {
            "injected": Counter(incident.kind for incident in loop.injected),
            "found": found,
            "delays": dict(delays),
            "missed": [(m.kind, loop.settings[m.campaign].campaign_id if m.campaign >= 0 else "") for m in missed],
            "exhaustions": len(early),
            "exhaustions_found": seen,
            "alerts_while_dead": len(blind),
            "operations": sum(a.kind is K.INPUT_SILENT for a in fired),
            "fired": Counter(alert.kind.value for alert in fired),
            "false": Counter(alert.kind.value for alert in self.false),
            "examples": [(a.kind.value, a.campaign_id, a.changed_ms, a.text.en) for a in self.false[:400]],
            "campaign_weeks": loop.count * (loop.days - 1) / 7,
            **messages(self.told, self.false, loop.count / A_RECEIVER * (loop.days - 1)),
        }

    def _finds(self, alert: Alert, incident: Injected) -> bool:
        is_its = self._index(alert) == incident.campaign and alert.kind in FINDS[incident.kind]
        return is_its and incident.start_ms - PANE_MS <= alert.changed_ms <= incident.end_ms + GRACE_MS


_FOLLOWS: Final[dict[str, tuple[AlertKind, ...]]] = {
    "stalled": (K.UNDER_DELIVERY, K.EXPECTED_UNDER_DELIVERY),
    "under_delivery": (K.STALLED,),
    "ctr_down": (K.UNDER_DELIVERY, K.EXPECTED_UNDER_DELIVERY, K.COST_OVERRUN, K.CPA_ANOMALY),
    "ctr_up": (K.CVR_ANOMALY, K.CPA_ANOMALY),
    "cvr_down": (K.COST_OVERRUN, K.CPA_ANOMALY),
    "cost_overrun": (K.CVR_ANOMALY, K.CPA_ANOMALY, K.CONVERSIONS_COLLAPSED),
    "collapse": (K.COST_OVERRUN, K.CVR_ANOMALY, K.CPA_ANOMALY),
    "cpa": (K.OVER_DELIVERY,),
    "invalid": (K.UNDER_DELIVERY, K.COST_OVERRUN, K.CPA_ANOMALY, K.EXPECTED_UNDER_DELIVERY),
    "over_delivery": (K.EXHAUSTED, K.BUDGET_LADDER, K.CONVERSIONS_COLLAPSED),
    "exhausted_early": (K.OVER_DELIVERY, K.BUDGET_LADDER),
}
"""What an incident also really causes."""


def messages(told: list[Alert], false: list[Alert], receiver_days: float) -> dict[str, float]:
    """Pushed: one for receiver, cause and hour. Digest: one for receiver and day, if there is anything in it."""
    wrong = {alert.alert_id for alert in false}
    pushed, digests, pushed_wrong, digests_wrong = set(), set(), set(), set()
    for alert in told:
        if alert.audience.value != "advertiser":
            continue
        receiver = alert.advertiser_id
        push = (receiver, alert.cause, alert.kind.value, alert.state.value, alert.changed_ms // HOUR_MS)
        digest = (receiver, alert.changed_ms // DAY_MS)
        is_wrong = alert.alert_id in wrong
        if alert.is_pushed:
            pushed.add(push)
            if is_wrong:
                pushed_wrong.add(push)
        elif alert.state is AlertState.FIRING:
            digests.add(digest)
            if is_wrong:
                digests_wrong.add(digest)
    return {
        "receiver_days": receiver_days,
        "pushed": len(pushed),
        "digests": len(digests),
        "pushed_false": len(pushed_wrong),
        "digests_false": len(digests_wrong),
    }


# Weeks


STEP_MS: Final = 20 * MINUTE_MS
LEARN_WEEKS: Final = 3
JUDGED_WEEKS: Final = 10


def quiet_weeks(seed: int, count: int) -> dict[str, Any]:
    """Quiet campaigns for ten judged weeks: whatever fires is false."""
    fired: list[Alert] = []
    told: list[Alert] = []
    for index in range(count):
        changes = _quiet_campaign(np.random.default_rng([seed, 41, index]), index)
        told += changes
        fired += [alert for alert in changes if alert.state is AlertState.FIRING]
    receiver_days = count / A_RECEIVER * JUDGED_WEEKS * 7
    return {
        "campaign_weeks": count * JUDGED_WEEKS,
        "false": Counter(alert.kind.value for alert in fired),
        "examples": [(a.kind.value, a.campaign_id, a.changed_ms, a.text.en) for a in fired],
        **messages(told, fired, receiver_days),
    }


def _quiet_campaign(rng: np.random.Generator, index: int) -> list[Alert]:
    """One campaign's 13 weeks. Sizes: 200 to 2 million impressions a day."""
    daily = 10 ** rng.uniform(2.3, 6.3)
    ctr, cvr, early = rng.uniform(0.005, 0.03), rng.uniform(0.01, 0.08), rng.uniform(0.35, 0.75)
    price = float(rng.uniform(1e8, 1e9))  # millimicros a click
    settings = CampaignSettings(
        campaign_id=f"c-{index}",
        advertiser_id=f"a-{index // A_RECEIVER}",
        currency="USD",
        time_zone=("UTC", "Asia/Shanghai", "America/New_York", "Europe/Berlin")[index % 4],
        billing=Billing(model=BillingModel.CPC, price_micros=int(price / 1_000)),
    )
    steps, a_day = (LEARN_WEEKS + JUDGED_WEEKS) * WEEK_MS // STEP_MS, DAY_MS // STEP_MS
    start = 1_772_928_000_000 - (LEARN_WEEKS + JUDGED_WEEKS) * WEEK_MS
    at = np.arange(steps)
    traffic = daily / a_day * _cycle(rng, at, a_day, 0.6) * _drift(rng, steps, a_day, 0.10, 0.20, 0.03)
    clicked = ctr * _cycle(rng, at, a_day, 0.15) * _drift(rng, steps, a_day, 0.05, 0.08, 0.03)
    converted = cvr * _cycle(rng, at, a_day, 0.25) * _drift(rng, steps, a_day, 0.07, 0.10, 0.03)
    # the true cost of no day is more than 1.25 times the target
    clicks_a_day = (traffic * clicked).reshape(-1, a_day).sum(axis=1)
    conversions_a_day = (traffic * clicked * converted).reshape(-1, a_day).sum(axis=1)
    dearest = price / 1_000 * float((clicks_a_day / conversions_a_day).max())
    billing = msgspec.structs.replace(settings.billing, target_cost_micros=int(dearest / rng.uniform(0.8, 1.25)))
    settings = msgspec.structs.replace(settings, billing=billing)
    impressions = rng.poisson(traffic * rng.gamma(20, 1 / 20, steps))
    clicks = rng.binomial(impressions, np.clip(clicked, 0, 0.5))
    conversions = rng.binomial(clicks, np.clip(converted, 0, 0.9))
    soon = rng.binomial(conversions, early)
    later = np.zeros(steps, dtype=np.int64)
    for delay, share in ((2, 0.3), (9, 0.3), (36, 0.25), (108, 0.15)):
        part = rng.binomial(conversions - soon, share)
        later[delay:] += part[: steps - delay]
    alerts, told = CampaignAlerts(settings.campaign_id), []
    left, burns = 5.0 * daily * ctr * price, traffic * clicked * price
    for step in range(steps):
        begin = start + step * STEP_MS
        spend = int(clicks[step] * price)
        shown, clicked_now = int(impressions[step]), int(clicks[step])
        alerts.add(Added(begin, shown, 0, clicked_now, int(soon[step] + later[step]), spend))
        alerts.add_cohort(begin - begin % HOUR_MS, 0, int(soon[step]))
        left -= spend
        a_day_costs = float(burns[step : step + a_day].sum())
        if left < 2.5 * a_day_costs:  # topped up in time
            left += rng.uniform(3, 7) * a_day_costs
        hourly = int(clicks[max(0, step - 2) : step + 1].sum() * price / 1_000)
        facts = _quiet_facts(begin + STEP_MS - 1, index, int(left / 1_000), hourly, shown, clicked_now)
        changes = alerts.evaluate(settings, facts)
        if begin >= start + LEARN_WEEKS * WEEK_MS:
            told += changes
    return told


def _quiet_facts(now_ms: int, index: int, left: int, burn: int, shown: int, clicks: int) -> AlertFacts:
    allowance = Allowance(
        campaign_id=f"c-{index}",
        pool=PoolKind.BALANCE,
        pool_id=f"acc-{index}",
        currency="USD",
        limit_micros=10**15,
        left_micros=left,
        burn_micros_per_h=burn,
        sequence=0,
    )
    gross = 3 * (shown + clicks)
    return AlertFacts(now_ms, now_ms, allowances=(allowance,), invalid=(gross // 50, gross))


def _cycle(rng: np.random.Generator, at: Ints, a_day: int, swing: float) -> Floats:
    """By hour and weekday, mean about 1."""
    hours = 2 * np.pi * (at % a_day) / a_day
    day = 1 + swing * np.cos(hours - rng.uniform(0, 6.3)) + swing / 3 * np.cos(2 * hours - rng.uniform(0, 6.3))
    weekdays = rng.lognormal(0, 0.1, 7)
    return np.asarray(np.maximum(0.05, day) * weekdays[at // a_day % 7])


def _drift(rng: np.random.Generator, steps: int, a_day: int, days: float, hours: float, weekly: float) -> Floats:
    """Log-normal: a trend and a random walk by the week, days that differ, and heavy-tailed noise over some hours."""
    count = steps // a_day
    walk = np.cumsum(rng.normal(rng.normal(0, weekly) / 7, weekly / np.sqrt(7), count))
    daily = rng.normal(0, days, count)
    keep, noise, state = np.exp(-1 / 6), np.zeros(steps), 0.0
    shocks = rng.standard_t(6, steps) / np.sqrt(1.5) * hours * np.sqrt(1 - keep * keep)
    for step in range(steps):
        state = noise[step] = keep * state + shocks[step]
    return np.asarray(np.exp(np.repeat(walk + daily, a_day)[:steps] + noise))


# Figures


def closed_loop(seed: int, count: int, days: int) -> dict[str, Any]:
    """One market."""
    return Loop(seed, count, days).run()


def summed_up(loops: list[dict[str, Any]], weeks: list[dict[str, Any]]) -> Figures:
    """The figures of all runs."""
    injected, found, delays = Counter[str](), Counter[str](), defaultdict[str, list[float]](list)
    for loop in loops:
        injected += loop["injected"]
        found.update(loop["found"])
        for kind, values in loop["delays"].items():
            delays[kind] += values
    false_loop, false_weeks = Counter[str](), Counter[str]()
    for loop in loops:
        false_loop.update(loop["false"])
    for week in weeks:
        false_weeks.update(week["false"])
    loop_weeks, quiet = (sum(r["campaign_weeks"] for r in runs) for runs in (loops, weeks))
    total = {
        n: sum(r[n] for r in loops) for n in ("receiver_days", "pushed", "digests", "pushed_false", "digests_false")
    }
    quiet_days = sum(week["receiver_days"] for week in weeks)
    quiet_pushed = sum(week["pushed_false"] for week in weeks)
    budget_false = sum(n for kind, n in false_loop.items() if AlertKind(kind) in LOOP_KINDS)
    every = [value for kind, values in delays.items() if kind != "balance_low" for value in values]
    figures: Figures = {
        "incidents": sum(injected.values()),
        "found": sum(found.values()),
        "delay_s_p50": float(np.median(every)) if every else 0.0,
        "false_per_campaign_week": budget_false / loop_weeks + sum(false_weeks.values()) / quiet,
        "messages_per_receiver_day": (total["pushed"] + total["digests"]) / total["receiver_days"],
        "pushed_per_receiver_day": total["pushed"] / total["receiver_days"],
        "false_messages_per_receiver_day": quiet_pushed / quiet_days + total["pushed_false"] / total["receiver_days"],
        "natural_exhaustions": sum(loop["exhaustions"] for loop in loops),
        "natural_exhaustions_found": sum(loop["exhaustions_found"] for loop in loops),
        "campaign_alerts_while_impressions_are_dead": sum(loop["alerts_while_dead"] for loop in loops),
        "loop.campaign_weeks": loop_weeks,
        "loop.false": sum(false_loop.values()),
        "weeks.campaign_weeks": quiet,
        "weeks.false": sum(false_weeks.values()),
        "weeks.pushed_false": quiet_pushed,
    }
    for kind in sorted(injected):
        figures[f"{kind}.incidents"], figures[f"{kind}.found"] = injected[kind], found[kind]
        if kind != "balance_low" and delays[kind]:
            figures[f"{kind}.delay_s_p50"] = float(np.median(delays[kind]))
    figures.update({f"loop.false.{kind}": n for kind, n in sorted(false_loop.items())})
    figures.update({f"weeks.false.{kind}": n for kind, n in sorted(false_weeks.items())})
    return figures


async def run(quick: bool) -> Figures:
    """Both simulations, in as many processes as there are processors."""
    seeds, count, days, quiet = ((11,), 16, 2, 6) if quick else ((11, 12), 60, 3, 60)
    with ProcessPoolExecutor(max_workers=max(1, min(2, os.cpu_count() or 1))) as pool:
        loops = [pool.submit(closed_loop, seed, count, days) for seed in seeds]
        weeks = [pool.submit(quiet_weeks, seed, quiet) for seed in seeds]
        return summed_up([job.result() for job in loops], [job.result() for job in weeks])
