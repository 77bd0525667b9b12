"""What alerts of the closed loop are worth: each beside the market's truth of its moment.

**Stalled** means an active campaign without impressions while its partition lives. The market knows when a campaign's
demand at rate 1 was nothing: in an injected stall, and while one of its publishers is out, which is an incident of the
market itself (`bench.market_demand`). The alert is true if that had lasted for the alert's threshold when it fired,
less `RESOLUTION_MS`; a gap that chance made longer than its outage is false. How many of the true ones tell of outages
nobody injected is reported beside (`loop.stalled_by_outage`), and so are the figures as they would be if all of those
were false (`*_if_outages_were_false`).

**Expected to under-deliver** is a forecast: true where a usual day's demand cannot spend the budget, or where its
period then ended short of the budget by half of the alert's threshold.
"""

from collections import Counter, defaultdict
from typing import Any, Final

from bench.alerts_incidents import FINDS, FOLLOWS, Injected, K
from bench.alerts_loop import Loop
from bench.market import Step
from bench.market_demand import PANE_MS
from streams.rules import DAY_MS, HOUR_MS
from streams.signals import Alert, AlertState
from streams.terms import PPM

GRACE_MS: Final = HOUR_MS
"""An incident may still be found so long after its end."""
RESOLUTION_MS: Final = 3 * PANE_MS
"""A gap begins with its newest impression's pane, whose own outage may begin a pane later; and supply is by panes."""
LATE_MS: Final = 3 * HOUR_MS
"""Of those that are missed, some are told until then: clicks of an incident's last hour have their hour to convert."""
A_RECEIVER: Final = 10
"""Campaigns of one advertiser."""
BUDGET_KINDS: Final = frozenset(
    {
        *(K.EXHAUSTED, K.EXHAUSTED_EARLY, K.OVER_DELIVERY, K.UNDER_DELIVERY),
        *(K.EXPECTED_UNDER_DELIVERY, K.BUDGET_LADDER),
    }
)
"""Kinds about budgets: true by what was really spent."""


class Judge:
    """Keeps every change beside the truth of its moment."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.told: list[Alert] = []
        self.false: list[Alert] = []
        self.by_outage: list[Alert] = []
        """True alerts of stalling that no injected incident explains."""
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
            if alert.state is not AlertState.FIRING:
                continue
            if not self.is_true(alert):
                self.false.append(alert)
            elif alert.kind is K.STALLED and not self._is_injected(alert):
                self.by_outage.append(alert)

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
        if self._is_injected(alert):
            return True
        index, at_ms, kind = self._index(alert), alert.changed_ms, alert.kind
        if kind is K.STALLED:
            return self._has_stopped(index, at_ms)
        now = self._of(index, at_ms)
        if kind not in BUDGET_KINDS or now is None:
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

    def _is_injected(self, alert: Alert) -> bool:
        """Whether an injected incident is, or really causes, what an alert tells of."""
        index, at_ms, kind = self._index(alert), alert.changed_ms, alert.kind
        for incident in self.loop.injected:
            is_its = incident.campaign == index and incident.start_ms - PANE_MS <= at_ms <= incident.end_ms + LATE_MS
            if is_its and (kind in FINDS[incident.kind] or kind in FOLLOWS.get(incident.kind, ())):
                return True
        return False

    def _has_stopped(self, index: int, at_ms: int) -> bool:
        since_ms = int(self.loop.market.stopped_ms[index])
        return 0 <= since_ms <= at_ms - self.loop.settings[index].alerts.stalled_ms + RESOLUTION_MS

    def _cannot_spend(self, index: int) -> bool:
        """The campaign's demand, at rate 1, is short of its budget on a usual day."""
        return self.loop.market.truths[index].abundance < 1.0

    def _came_true(self, alert: Alert) -> bool:
        """At the end: what a forecast said has happened."""
        now = self._of(self._index(alert), alert.changed_ms)
        if alert.kind is not K.EXPECTED_UNDER_DELIVERY or now is None:
            return False
        spent, budget, bounds = now
        least = 1 - self.loop.settings[self._index(alert)].alerts.expected_under_ppm / PPM / 2
        return bounds[1] <= self.loop.market.now_ms and spent <= least * budget

    def result(self) -> dict[str, Any]:
        """What is summed up over seeds."""
        loop = self.loop
        self.false = [alert for alert in self.false if not self._came_true(alert)]
        found, delays = Counter[str](), defaultdict[str, list[float]](list)
        fired = [alert for alert in self.told if alert.state is AlertState.FIRING]
        missed, late = [], 0
        for incident in loop.injected:
            hit = [a.changed_ms for a in fired if self._finds(a, incident)]
            found[incident.kind] += bool(hit)
            if hit:
                begin = incident.start_ms if incident.kind != "balance_low" else min(hit)
                delays[incident.kind].append((min(hit) - begin) / 1_000)
            else:
                missed.append(incident)
                late += any(self._finds(alert, incident, LATE_MS) for alert in fired)
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
            "late": late,
            "exhaustions": len(early),
            "exhaustions_found": seen,
            "alerts_while_dead": len(blind),
            "operations": sum(a.kind is K.INPUT_SILENT for a in fired),
            "fired": Counter(alert.kind.value for alert in fired),
            "false": Counter(alert.kind.value for alert in self.false),
            "stalled_by_outage": len(self.by_outage),
            "strict": messages(self.told, [*self.false, *self.by_outage], loop.count / A_RECEIVER * (loop.days - 1)),
            "examples": [(a.kind.value, a.campaign_id, a.changed_ms, a.text.en) for a in self.false[:400]],
            "campaign_weeks": loop.count * (loop.days - 1) / 7,
            **messages(self.told, self.false, loop.count / A_RECEIVER * (loop.days - 1)),
        }

    def _finds(self, alert: Alert, incident: Injected, grace_ms: int = GRACE_MS) -> bool:
        is_its = self._index(alert) == incident.campaign and alert.kind in FINDS[incident.kind]
        return is_its and incident.start_ms - PANE_MS <= alert.changed_ms <= incident.end_ms + grace_ms


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
