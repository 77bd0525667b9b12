"""All alerts of one campaign: rules are asked at each look, lives decide what is told.

Nothing here knows the clock or the order of additions within a tick: changes are a function of the calls.

* **Unknown** inputs (law 10): a rule that needs one is not asked, and its lives stay as they are. What was unknown
  taints its hours: they are neither judged nor learned.
* **History** (`is_catching_up`): hours are learned, nothing fires and nothing resolves. What is still so when the
  present is reached fires then; what came and went in the past is in ClickHouse, and of no use to a receiver.
* **Outside its flight** a campaign alerts nothing; what still fires is closed, as is what fires about a pool that it
  has left, or about a budget where it has none any more.
* **Told once**: hours of an occurrence that has ended are no evidence of another, neither of its kind nor of what
  follows from it.
* **One cause, one alert**: exhaustion and stalling silence what follows from them, and so on (`_SILENCED_BY`).
"""

from typing import Any, Final

from streams.campaigns import CampaignSettings
from streams.events import Input
from streams.rules import HOUR_MS, MINUTE_MS
from streams.signals import Alert, AlertState, Audience, PoolKind, RateReason
from streams.stages.alerting.delivery import (
    ToldStep,
    delivery,
    exhausted,
    expected_under,
    ladder,
    pool_exhausted,
    total_ladder,
    unit_micros,
)
from streams.stages.alerting.facts import BETWEEN, CLEAR, UNKNOWN, AlertFacts, Condition, Finding, Signal
from streams.stages.alerting.figures import Place
from streams.stages.alerting.hours import (
    CLICKS,
    CONVERSIONS,
    EARLY,
    IMPRESSIONS,
    SPEND,
    TAINT,
    TAINT_CLICKS,
    TAINT_CONVERSIONS,
    TAINT_IMPRESSIONS,
    Hours,
)
from streams.stages.alerting.life import NEVER, Change, Life
from streams.stages.alerting.quality import QualityWatch, invalid_share
from streams.stages.alerting.sentences import sentence
from streams.stages.alerting.supply import BalanceWatch, StallWatch
from streams.stages.pacing.billing import is_optimised, watched_inputs
from streams.stages.pacing.facts import Added
from streams.terms import AlertKind

QUALITY_EVERY_MS: Final = 2 * MINUTE_MS
"""Ratios are looked at so often: what they see changes no faster."""
HOURS_KEPT_MS: Final = 27 * HOUR_MS
UNKNOWN_BEFORE_MS: Final = 2 * MINUTE_MS
"""A silence is noticed late: it is taken to have begun so much earlier."""
MAX_LIVES: Final = 32
OPERATIONS: Final = frozenset({AlertKind.INVALID_TRAFFIC})
"""Told to operations first: they judge whether an advertiser must know."""
UNPUSHED_ENDS: Final = frozenset({AlertKind.EXHAUSTED, AlertKind.EXHAUSTED_EARLY, AlertKind.BUDGET_LADDER})
"""Whose end is no news: a new day has begun, or the receiver has raised the budget."""
ABOUT_BUDGET: Final = UNPUSHED_ENDS | {
    AlertKind.OVER_DELIVERY,
    AlertKind.UNDER_DELIVERY,
    AlertKind.EXPECTED_UNDER_DELIVERY,
}
"""Of no meaning for a campaign that nothing paces."""
_TAINTS: Final = {
    Input.IMPRESSIONS: TAINT_IMPRESSIONS,
    Input.CLICKS: TAINT_CLICKS,
    Input.CONVERSIONS: TAINT_CONVERSIONS,
}
_STOPPED: Final = frozenset({AlertKind.EXHAUSTED, AlertKind.EXHAUSTED_EARLY})
_SILENCED_BY: Final[dict[AlertKind, frozenset[AlertKind]]] = {
    AlertKind.STALLED: _STOPPED,
    AlertKind.UNDER_DELIVERY: _STOPPED | {AlertKind.STALLED},
    AlertKind.EXPECTED_UNDER_DELIVERY: _STOPPED | {AlertKind.STALLED, AlertKind.UNDER_DELIVERY},
    AlertKind.CVR_ANOMALY: frozenset({AlertKind.CONVERSIONS_COLLAPSED}),
    AlertKind.CPA_ANOMALY: frozenset(
        {AlertKind.CONVERSIONS_COLLAPSED, AlertKind.CVR_ANOMALY, AlertKind.CTR_ANOMALY, AlertKind.COST_OVERRUN}
    ),
}
"""A kind does not begin while one of these fires or is met: what tells the same thing better, or is its cause. Of kinds
that stop delivery, what fires is closed, too."""
_NEEDS_CLICKS: Final = frozenset({Input.IMPRESSIONS, Input.CLICKS})
_NEEDS_ALL: Final = frozenset({Input.IMPRESSIONS, Input.CLICKS, Input.CONVERSIONS})
_QUALITY_NEEDS: Final = {
    AlertKind.CTR_ANOMALY: _NEEDS_CLICKS,
    AlertKind.CVR_ANOMALY: _NEEDS_ALL,
    AlertKind.CPA_ANOMALY: _NEEDS_ALL,
    AlertKind.CONVERSIONS_COLLAPSED: _NEEDS_ALL,
    AlertKind.COST_OVERRUN: _NEEDS_ALL,
}
_MEASURES: Final = {
    AlertKind.CTR_ANOMALY: ("ctr",),
    AlertKind.CVR_ANOMALY: ("cvr", "cpa", "return"),
    AlertKind.CPA_ANOMALY: ("cpa", "return"),
    AlertKind.CONVERSIONS_COLLAPSED: ("cvr", "cpa", "return"),
    AlertKind.COST_OVERRUN: ("cpa", "return"),
}
"""What an alert's hours teach nothing about."""


class CampaignAlerts:
    """The alerts of one campaign. Bounded: 40 recent hours, 168 hours of the week, 32 lives."""

    def __init__(self, campaign_id: str) -> None:
        self.campaign_id = campaign_id
        self.hours = Hours()
        self.quality = QualityWatch()
        self._stall = StallWatch()
        self._balance = BalanceWatch()
        self._lives: dict[tuple[AlertKind, str], Life] = {}
        self._total = f"total:{campaign_id}"
        """Subject of the life that the total's ladder has, beside that of its days."""
        self._ladder = ToldStep()
        self._total_ladder = ToldStep()
        self._pools: dict[str, ToldStep] = {}
        """Of each shared budget that it draws on, by id."""
        self._hour_ms = -1
        self._looked_ms = -1
        self._conversions = 0
        self._usual: tuple[int, float | None] = (-1, None)
        """Impressions that the running hour usually has: a function of the hours, so not kept."""

    # In

    def add(self, added: Added) -> None:
        """One tick's amounts of one origin pane, in any order."""
        self._stall.add(added.origin_ms, added.impressions)
        self._conversions += added.conversions
        hour = self.hours.hour(added.origin_ms)
        if hour is not None:
            hour[IMPRESSIONS] += added.impressions
            hour[CLICKS] += added.clicks
            hour[CONVERSIONS] += added.conversions
            hour[SPEND] += added.spend_millimicros - added.credited_millimicros

    def add_cohort(self, click_hour_ms: int, age_bucket_ms: int, conversions: int) -> None:
        """Conversions by the hour of their click and their age (lower bound of `streams.stages.count.AGE_BUCKETS_MS`).

        Only those of the click's first hour are compared: an older age is complete too late to alert on.
        """
        if age_bucket_ms >= HOUR_MS:
            return
        hour = self.hours.hour(click_hour_ms)
        if hour is not None:
            hour[EARLY] += conversions

    # The look

    def evaluate(self, settings: CampaignSettings, facts: AlertFacts) -> list[Alert]:
        """Looks at everything; gives what fired and what resolved since the last look."""
        now = facts.now_ms
        self._taint(facts)
        if now - now % HOUR_MS != self._hour_ms:
            self._turn(settings, facts)
        if facts.is_catching_up:
            self._stall.look(now, 0.0, False, None, settings.alerts.stalled_ms)
            return []
        if not _is_in_flight(settings, facts):
            self._stall.look(now, 0.0, False, None, settings.alerts.stalled_ms)
            return self._close(settings, facts, "ended", frozenset())
        changes = self._close(settings, facts, "off", frozenset(settings.alerts.off)) if settings.alerts.off else []
        changes += self._leave(settings, facts)
        if facts.decision is None:
            changes += self._close(
                settings, facts, "unpaced", ABOUT_BUDGET, (f"campaign:{self.campaign_id}", self._total)
            )
        for finding in self._findings(settings, facts):
            changes += self._live(settings, facts, finding)
        return changes

    def _taint(self, facts: AlertFacts) -> None:
        if not facts.unknown:
            return
        bits = 0
        for source, bit in _TAINTS.items():
            if source in facts.unknown:
                bits |= bit
        since = facts.now_ms - UNKNOWN_BEFORE_MS
        times = [since, facts.now_ms]
        if bits & TAINT_CONVERSIONS:
            times += [since - HOUR_MS]  # clicks of the hour before are still waiting for theirs
        for at_ms in times:
            hour = self.hours.hour(at_ms) if bits else None
            if hour is not None:
                hour[TAINT] |= bits

    def _turn(self, settings: CampaignSettings, facts: AlertFacts) -> None:
        """Another hour has begun: complete hours are learned."""
        hours, zone, now = self.hours, settings.time_zone, facts.now_ms
        self._hour_ms = now - now % HOUR_MS
        excused = frozenset(
            name for (kind, _), life in self._lives.items() if life.is_firing for name in _MEASURES.get(kind, ())
        )
        for start in hours.due(now, facts.is_catching_up):
            self.quality.learn(hours, start, zone, excused)
            hours.learn(start, zone)
        before = now - HOURS_KEPT_MS
        hours.forget(before)
        self.quality.forget(before)
        self.quality.fix(hours, self._hour_ms, zone)

    def _findings(self, settings: CampaignSettings, facts: AlertFacts) -> list[Finding]:
        """What each rule says, causes before what follows from them."""
        off = settings.alerts.off
        own = f"campaign:{self.campaign_id}"
        is_spend_known = facts.unknown.isdisjoint(watched_inputs(settings.billing))
        found = self._about_pools(settings, facts, is_spend_known)
        decision = facts.decision
        if decision is not None:
            if is_spend_known:
                kind, signal = exhausted(settings, decision)
                is_total_told = signal.form == "flight" and kind not in off
                other = self._lives.get((_other(kind), own))
                if other is not None and other.fired is not None and other.fired.step == signal.step:
                    kind = other.kind  # one of the two, also where the threshold between them changes
                found.append(Finding(kind, own, signal))
                found.append(Finding(_other(kind), own, CLEAR))
            found.append(Finding(AlertKind.STALLED, own, self._stalled(settings, facts)))
            if is_spend_known:
                self._ladder, signal = ladder(settings, decision, self._ladder)
                found.append(Finding(AlertKind.BUDGET_LADDER, own, signal))
                self._total_ladder, signal = total_ladder(settings, decision, self._total_ladder, is_total_told)
                found.append(Finding(AlertKind.BUDGET_LADDER, self._total, signal))
                over, under = delivery(settings, decision)
                found.append(Finding(AlertKind.OVER_DELIVERY, own, over))
                found.append(Finding(AlertKind.UNDER_DELIVERY, own, under))
                expected = expected_under(settings, decision, facts.now_ms)
                found.append(Finding(AlertKind.EXPECTED_UNDER_DELIVERY, own, expected))
        else:
            found.append(Finding(AlertKind.STALLED, own, self._stalled(settings, facts)))
        found += self._about_quality(settings, facts, own)
        if facts.invalid is not None and facts.unknown.isdisjoint(_NEEDS_CLICKS):
            told = self._invalid_told(own)
            found.append(Finding(AlertKind.INVALID_TRAFFIC, own, invalid_share(settings, facts.invalid, told)))
        return [finding for finding in found if finding.kind not in off] if off else found

    def _about_pools(self, settings: CampaignSettings, facts: AlertFacts, is_spend_known: bool) -> list[Finding]:
        if not is_spend_known or not facts.allowances:
            return []
        found = []
        for allowance in facts.allowances:
            if allowance.pool is PoolKind.BALANCE:
                signal = self._balance.look(allowance, facts.now_ms, settings.alerts, unit_micros(settings))
                found.append(Finding(AlertKind.BALANCE_LOW, _account(allowance.pool_id), signal))
        self._pools, signals = pool_exhausted(settings, facts, self._pools)
        for pool, signal in signals:
            found.append(Finding(AlertKind.EXHAUSTED, _shared(pool), signal))
        return found

    def _stalled(self, settings: CampaignSettings, facts: AlertFacts) -> Signal:
        decision = facts.decision
        can_judge = facts.partition_is_alive and Input.IMPRESSIONS not in facts.unknown
        rate = 1.0
        if decision is not None:
            rate = decision.rate
            can_judge = can_judge and rate > 0 and not decision.is_exhausted
        if self._usual[0] != self._hour_ms:
            usual = self.hours.usual(self._hour_ms, settings.time_zone)
            self._usual = (self._hour_ms, usual.impressions / usual.visits if usual is not None else None)
        return self._stall.look(facts.now_ms, rate, can_judge, self._usual[1], settings.alerts.stalled_ms)

    def _about_quality(self, settings: CampaignSettings, facts: AlertFacts, own: str) -> list[Finding]:
        now = facts.now_ms
        if 0 <= now - self._looked_ms < QUALITY_EVERY_MS or self._is_learning(settings, facts):
            return []
        self._looked_ms = now
        told = {kind: self._told_until(kind, own) for kind in _QUALITY_NEEDS}
        return [
            Finding(kind, own, signal)
            for kind, signal in self.quality.look(settings, self.hours, now, told).items()
            if facts.unknown.isdisjoint(_QUALITY_NEEDS[kind])
        ]

    def _invalid_told(self, own: str) -> str:
        """What an alert about invalid traffic that fires tells of: clicks or impressions."""
        life = self._lives.get((AlertKind.INVALID_TRAFFIC, own))
        return str(dict(life.fired.figures).get("inputs", "")) if life is not None and life.fired is not None else ""

    def _told_until(self, kind: AlertKind, own: str) -> int:
        """When what a kind tells of was last over: hours before it have been told, by it or by what explains it."""
        lives = (self._lives.get((told, own)) for told in (kind, *_SILENCED_BY.get(kind, ())))
        return max((life.ended_ms for life in lives if life is not None), default=NEVER)

    def _is_learning(self, settings: CampaignSettings, facts: AlertFacts) -> bool:
        if facts.decision is not None:
            return facts.decision.is_learning
        return is_optimised(settings.billing) and self._conversions < settings.billing.learning_conversions

    # Lives

    def _live(self, settings: CampaignSettings, facts: AlertFacts, finding: Finding) -> list[Alert]:
        kind, subject, signal = finding.kind, finding.cause, finding.signal
        life = self._lives.get((kind, subject))
        if life is None:
            if signal.condition != Condition.MET:
                return []
            life = self._lives[kind, subject] = Life(kind, subject, self._named_by(subject))
            self._bound_lives()
        if signal.condition == Condition.MET and self._is_silenced(kind):
            if life.is_firing and self._is_stopped(kind):
                return [self._alert(settings, facts, life, c, "moot") for c in life.end(CLEAR, facts.now_ms)]
            signal = UNKNOWN if life.is_firing else BETWEEN
        changes = life.look(signal, facts.now_ms)
        return [self._alert(settings, facts, life, change, "") for change in changes] if changes else []

    def _named_by(self, subject: str) -> str:
        """What an alert's id is made of beside its subject: a pool's name is the same for all of its campaigns."""
        return "" if subject == f"campaign:{self.campaign_id}" else self.campaign_id

    def _is_silenced(self, kind: AlertKind) -> bool:
        by = _SILENCED_BY.get(kind)
        if by is None:
            return False
        return any(life.is_firing or life.since_ms >= 0 for (other, _), life in self._lives.items() if other in by)

    def _is_stopped(self, kind: AlertKind) -> bool:
        by = _SILENCED_BY.get(kind, frozenset()) & _STOPPED
        return any(life.is_firing for (other, _), life in self._lives.items() if other in by)

    def _bound_lives(self) -> None:
        """Pools come and go: of too many lives, the one whose latest occurrence is oldest and over is forgotten."""
        if len(self._lives) <= MAX_LIVES:
            return
        over = [(life.began_ms, key) for key, life in self._lives.items() if not life.is_firing and life.since_ms < 0]
        if over:
            del self._lives[min(over)[1]]

    def _close(
        self,
        settings: CampaignSettings,
        facts: AlertFacts,
        reason: str,
        kinds: frozenset[AlertKind],
        subjects: tuple[str, ...] = (),
    ) -> list[Alert]:
        """Ends what fires, of these kinds and about these subjects, or of all."""
        closed = []
        for (kind, subject), life in self._lives.items():
            if (not kinds or kind in kinds) and (not subjects or subject in subjects):
                changes = life.end(CLEAR, facts.now_ms)
                closed += [self._alert(settings, facts, life, change, reason) for change in changes]
        return closed

    def _leave(self, settings: CampaignSettings, facts: AlertFacts) -> list[Alert]:
        """Ends what fires about pools that the campaign draws on no more. One that it comes back to is told anew."""
        drawn = {
            f"campaign:{self.campaign_id}",
            self._total,
            _account(settings.account_id),
            _shared(settings.budget.shared_budget_id),
        }
        drawn |= {(_account if a.pool is PoolKind.BALANCE else _shared)(a.pool_id) for a in facts.allowances}
        closed = []
        for (_, subject), life in self._lives.items():
            if subject not in drawn:
                changes = life.end(CLEAR, facts.now_ms)
                closed += [self._alert(settings, facts, life, change, "left") for change in changes]
                life.last_step = ""
        self._pools = {pool: told for pool, told in self._pools.items() if _shared(pool) in drawn}
        return closed

    def _alert(self, settings: CampaignSettings, facts: AlertFacts, life: Life, change: Change, closed: str) -> Alert:
        alerting, quiet = settings.alerts, settings.alerts.quiet_hours
        is_end = change.state is AlertState.RESOLVED
        told = change.fired if is_end else change.signal
        is_pushed = life.kind in alerting.push and not (is_end and (closed != "" or life.kind in UNPUSHED_ENDS))
        place = Place(settings.currency, settings.time_zone, facts.now_ms)
        return Alert(
            alert_id=change.alert_id,
            kind=life.kind,
            state=change.state,
            audience=Audience.OPERATIONS if life.kind in OPERATIONS else Audience.ADVERTISER,
            is_pushed=is_pushed,
            campaign_id=self.campaign_id,
            campaign_name=settings.name,
            advertiser_id=settings.advertiser_id or "",
            agency_id=settings.agency_id or "",
            account_id=settings.account_id or "",
            routes=alerting.routes,
            language=alerting.language,
            quiet_begins=quiet.begins if quiet else "",
            quiet_ends=quiet.ends if quiet else "",
            time_zone=settings.time_zone,
            cause=f"campaign:{self.campaign_id}" if life.subject == self._total else life.subject,
            seen=change.signal.seen if is_end and change.signal.seen is not None else told.seen,
            expected=told.expected,
            unit=told.unit,
            began_ms=change.began_ms,
            changed_ms=facts.now_ms,
            decided_ms=facts.wall_ms,
            text=sentence(life.kind, change.state, told, settings.name or self.campaign_id, place, closed),
        )

    # Kept

    def snapshot(self) -> dict[str, Any]:
        """Builtin values."""
        return {
            "hours": self.hours.snapshot(),
            "quality": self.quality.snapshot(),
            "stall": self._stall.snapshot(),
            "balance": self._balance.snapshot(),
            "lives": [life.snapshot() for life in self._lives.values()],
            "ladders": [list(self._ladder), list(self._total_ladder)],
            "pools": [(pool, *told) for pool, told in self._pools.items()],
            "times": [self._hour_ms, self._looked_ms, self._conversions],
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Takes back what `snapshot` gave."""
        self.hours.restore(snapshot["hours"])
        self.quality.restore(snapshot["quality"])
        self._stall.restore(snapshot["stall"])
        self._balance.restore(snapshot["balance"])
        lives = [Life.restored(held, self._named_by(held[1])) for held in snapshot["lives"]]
        self._lives = {(life.kind, life.subject): life for life in lives}
        self._ladder, self._total_ladder = (ToldStep(*told) for told in snapshot["ladders"])
        self._pools = {pool: ToldStep(*told) for pool, *told in snapshot["pools"]}
        self._hour_ms, self._looked_ms, self._conversions = snapshot["times"]


def _other(kind: AlertKind) -> AlertKind:
    return AlertKind.EXHAUSTED if kind is AlertKind.EXHAUSTED_EARLY else AlertKind.EXHAUSTED_EARLY


def _account(account: str | None) -> str:
    return f"account:{account}"


def _shared(pool: str | None) -> str:
    return f"shared:{pool}"


def _is_in_flight(settings: CampaignSettings, facts: AlertFacts) -> bool:
    start, end = settings.flight_start_ms, settings.flight_end_ms
    if (start is not None and facts.now_ms < start) or (end is not None and facts.now_ms >= end):
        return False
    decision = facts.decision
    return decision is None or decision.reason not in (RateReason.NOT_STARTED, RateReason.ENDED)
