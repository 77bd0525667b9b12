"""One campaign's pacing: its spend, its plan, and the rate that follows from both.

State is a function of the sequence of calls: no clock, no chance. The order of additions between two looks does not
matter: exact sums take them at once, estimates only at the look, in the order of origin.
"""

from math import inf
from typing import Any, Final

from streams.campaigns import CampaignSettings
from streams.rules import HOUR_MS, MINUTE_MS
from streams.signals import RateReason
from streams.stages.pacing import control
from streams.stages.pacing.amounts import (
    NO_LIMIT,
    Amounts,
    amounts_of,
    day_limit,
    differs,
    is_shared_only,
    is_told,
    is_without_budget,
    limit_without_own,
    session_budget,
    valid_of,
)
from streams.stages.pacing.billing import is_optimised, kernel_of, watched_inputs
from streams.stages.pacing.curve import SESSION_STEP_MS, Curve, make_curve
from streams.stages.pacing.exhaustion import Exhaustion
from streams.stages.pacing.facts import Added, Decision, Facts, Money
from streams.stages.pacing.forecast import forecast_of
from streams.stages.pacing.ledger import BUDGET, Ledger
from streams.stages.pacing.periods import Period, SessionClock, Stage, period_of
from streams.stages.pacing.plan import Plan, hour_bounds, make_plan, session_bounds, unpack_plan
from streams.stages.pacing.sessions import MINUTES
from streams.stages.pacing.shape import TrafficShape
from streams.stages.pacing.silence import GAP_MS, Silence
from streams.stages.pacing.traffic import Traffic
from streams.state.windows import day_bounds
from streams.terms import PacingMode

CURVE_MS: Final = 5 * MINUTE_MS
"""How often what traffic is expected is thought over."""
CURVE_HOURS: Final = 48
PROMPT_MS: Final = 5 * MINUTE_MS
"""A period that is met so soon after its start is planned from its start."""
STARTER_SHARE: Final = 0.05
"""What of yesterday's allowance may be drawn until today's is told."""
LEAST_THROUGH: Final = 0.02
"""Traffic that was throttled below this says little about what there was."""


class CampaignPacer:
    """The pacing of one live campaign with a budget. Bounded: some hundreds of numbers."""

    def __init__(self, campaign_id: str) -> None:
        self.campaign_id = campaign_id
        self.ledger = Ledger()
        self.rate = 0.0
        self.conversions = 0
        """Since the learning phase began."""
        self._traffic = Traffic()
        self._silence = Silence()
        self._clock = SessionClock()
        self._now_ms = -1
        self._is_begun = False
        self._day = (0, 0, "")
        self._period: tuple[str, int, int, int] | None = None
        self._amounts = Amounts(0, 0, 0)
        self._plan: Plan | None = None
        self._is_stale = False
        """Whether the rest of the period is to be planned anew."""
        self._exhaustion = Exhaustion()
        self._curve: Curve | None = None
        self._curve_at = -1
        self._spread = 0.3
        self._minutes: list[float] = []

    # In

    def add(self, settings: CampaignSettings, added: Added) -> None:
        """One tick's amounts of one origin pane, in any order."""
        credited = self.ledger.add(settings, added)
        self._traffic.add(settings.billing, added._replace(credited_millimicros=credited))
        self.conversions += added.conversions

    def settings_changed(self, before: CampaignSettings | None, after: CampaignSettings, now_ms: int) -> None:
        """Another version holds from now on: the rest of the period is planned anew, from what was spent until now."""
        if before is None:
            return
        if before.billing != after.billing:
            self._traffic.billing_changed(before.billing, after.billing)
        if before.billing.model is not after.billing.model or before.goal != after.goal:
            self.conversions = 0
        if before.flight_start_ms != after.flight_start_ms:
            self.ledger.begin_flight(after.flight_start_ms)
        if before.time_zone != after.time_zone and self._period is not None:
            old_day, new_day = day_bounds(now_ms, before.time_zone)[0], day_bounds(now_ms, after.time_zone)[0]
            self.ledger.move_day(old_day, new_day)
            self.ledger.open_from_ms = min(self.ledger.open_from_ms, new_day)
        same = ("budget", "pacing", "time_zone", "flight_start_ms", "flight_end_ms")
        if any(getattr(before, name) != getattr(after, name) for name in same):
            self._is_stale, self._curve_at = True, -1

    def unthrottled(self, impressions: float) -> float:
        """What impressions of the last panes would have been at rate 1: what a `TrafficShape` learns from best."""
        if self._now_ms < 0:  # no control yet: nothing is held back
            return impressions
        return impressions / self.rate if self.rate >= LEAST_THROUGH else 0.0

    # The look

    def evaluate(self, settings: CampaignSettings, facts: Facts, shape: TrafficShape) -> Decision:
        """Looks at spend and plan, and decides the rate. A few tens of microseconds."""
        now = max(facts.now_ms, self._now_ms)
        is_unknown = not facts.unknown.isdisjoint(watched_inputs(settings.billing))
        is_blind = is_unknown or facts.is_catching_up or now == self._now_ms
        elapsed = now - self._now_ms if self._now_ms >= 0 else 0
        self._hear(settings, now, elapsed, is_unknown, is_blind, shape)
        self._now_ms = now
        period = self._enter(settings, facts, now, shape)
        if period.stage is not Stage.RUNNING:
            return self._stopped(settings, period)
        look = self._look(settings, facts, period, now, shape)
        if facts.is_lull:
            look = look._replace(supply_now=0.0)
        return self._decide(settings, period, look, elapsed, is_blind, is_unknown)

    def _hear(
        self, settings: CampaignSettings, now: int, elapsed: int, is_unknown: bool, is_blind: bool, shape: TrafficShape
    ) -> None:
        """Feeds the model, and what is missing after a silence."""
        traffic, silence = self._traffic, self._silence
        supply = traffic.density(now // HOUR_MS, shape) * traffic.level_now
        step = traffic.advance(settings.billing, now, self.rate, shape, is_blind, (silence.from_ms, silence.to_ms))
        is_gap = False
        expected = step.ripe
        if is_unknown or elapsed > GAP_MS:
            expected = max(expected, self.rate * supply * elapsed * traffic.value)
            is_gap = is_unknown or (expected > 3 * traffic.unit and step.arrived < expected / 4)
        silence.hear(now, elapsed, is_gap, expected, step.arrived, step.silent)
        if elapsed and not is_blind and traffic.short[1] > 0:
            off = min(2.0, max(-2.0, traffic.level_now - 1.0))
            self._spread += min(1.0, elapsed / (6 * HOUR_MS)) * (abs(off) - self._spread)

    # Periods and amounts

    def _enter(self, settings: CampaignSettings, facts: Facts, now: int, shape: TrafficShape) -> Period:
        """The period of now; plans it where it is new, or where the settings changed."""
        for session in facts.sessions:
            host = self._clock.creator_id
            if self._clock.tell(session):
                self._end_minutes(shape, host)
                self.ledger.begin_session(session.event_time_ms)
        if self._day[2] != settings.time_zone or not self._day[0] <= now < self._day[1]:
            self._day = (*day_bounds(now, settings.time_zone), settings.time_zone)
        period = period_of(settings, now, self._clock, (self._day[0], self._day[1]))
        known = self._period
        if known is None or known[0] != period.kind or known[1] != period.start_ms:
            self._roll(settings, period)
        elif known[2] != period.end_ms:
            self._is_stale, self._curve_at = True, -1
        elif known[3] != period.day_ms and period.kind == "live_session" and settings.budget.daily_micros is not None:
            self._is_stale = True  # the session has passed midnight: today's budget is for it as well
        self._period = (period.kind, period.start_ms, period.end_ms, period.day_ms)
        self._close_before(period)
        if period.stage is Stage.RUNNING:
            self._think_over(settings, period, now, shape)
            limit = limit_without_own(settings, facts, period.day_ms)
            if self._plan is None or self._is_stale or (limit != 0 and differs(limit, self._amounts.budget)):
                self._make_plan(settings, period, now, shape, limit)
        elif period.kind == "live_session" and period.stage is Stage.ENDED:
            self._end_minutes(shape, self._clock.creator_id)
        return period

    def _roll(self, settings: CampaignSettings, period: Period) -> None:
        """Another period begins."""
        self._plan, self._is_stale, self._exhaustion.period_ms = None, False, None
        self._curve_at = -1
        if self._period is not None and self._period[0] != period.kind:
            self.ledger.leave(period.day_ms)
        self.ledger.day(period.day_ms)

    def _close_before(self, period: Period) -> None:
        ledger = self.ledger
        if period.kind == "day":
            ledger.open_from_ms = max(ledger.open_from_ms, period.day_ms)
        elif period.kind == "live_session":
            if period.stage is Stage.RUNNING and ledger.session_from_ms is not None:
                ledger.open_from_ms = max(ledger.open_from_ms, ledger.session_from_ms // 10_000 * 10_000)
            elif period.stage is Stage.ENDED and self._clock.ended_ms is not None:
                ledger.session_to_ms = self._clock.ended_ms
                ledger.open_from_ms = max(ledger.open_from_ms, self._clock.ended_ms)
        elif ledger.open_from_ms < 0:
            ledger.open_from_ms = period.start_ms // 10_000 * 10_000

    def money(self, period_kind: str, day_ms: int) -> Money:
        """Spend of the running period."""
        if period_kind == "day":
            return self.ledger.money_of_day(day_ms)
        sums = self.ledger.session if period_kind == "live_session" else self.ledger.flight
        return Money(sums[0], sums[1])

    def _make_plan(self, settings: CampaignSettings, period: Period, now: int, shape: TrafficShape, limit: int) -> None:
        money = self.money(period.kind, period.day_ms)
        spent, made = money.valid, now
        if self._plan is None and now - period.start_ms <= PROMPT_MS and not self._is_stale:
            spent, made = 0, period.start_ms
        self._is_stale = False
        self._amounts = amounts_of(settings, period, self.ledger, made, spent, money, shape, limit)
        self.ledger.day(period.day_ms)[BUDGET] = settings.budget.daily_micros or 0
        mode, micros = self._mode(settings, period, shape), max(0, spent) // 1_000
        if period.kind == "flight":
            bounds_weights: tuple[list[int], list[float]] = ([made, made + 1], [1.0])
        else:
            bounds = hour_bounds(made, period.end_ms) if period.kind == "day" else session_bounds(made, period.end_ms)
            curve = self._curve
            assert curve is not None
            ends = bounds[1:]
            bounds_weights = (bounds, [curve.between(a, b) for a, b in zip(bounds, ends, strict=False)])
        self._plan = make_plan(mode, made, period.end_ms, micros, self._amounts.plan // 1_000, bounds_weights)

    def _mode(self, settings: CampaignSettings, period: Period, shape: TrafficShape) -> PacingMode:
        is_session = period.kind == "live_session"
        mode = settings.pacing.mode
        if mode is None:
            mode = PacingMode.AS_SOON_AS_POSSIBLE if is_session else PacingMode.TRAFFIC_SHAPED
        if period.kind == "flight" or is_without_budget(settings):
            return PacingMode.AS_SOON_AS_POSSIBLE
        if mode is PacingMode.TRAFFIC_SHAPED:
            is_known = shape.sessions.is_known(self._clock.creator_id) if is_session else self._is_shape_known(shape)
            return mode if is_known else PacingMode.EVEN
        return mode

    def _is_shape_known(self, shape: TrafficShape) -> bool:
        return shape.version >= 0 or all(cell > 0 for cell in self._traffic.cells)

    # What is to be expected

    def _think_over(self, settings: CampaignSettings, period: Period, now: int, shape: TrafficShape) -> None:
        if self._curve is not None and self._curve_at == now // CURVE_MS:
            return
        self._curve_at = now // CURVE_MS
        traffic = self._traffic
        if period.kind == "live_session":
            host, began, sessions = self._clock.creator_id, period.start_ms, shape.sessions
            usual = traffic.density(now // HOUR_MS, shape) or 1e-9
            self._curve = make_curve(
                began,
                period.end_ms,
                SESSION_STEP_MS,
                lambda at: usual * sessions.weight(host, (at - began) // MINUTE_MS),
            )
            return
        end = min(period.end_ms, now + CURVE_HOURS * HOUR_MS)
        is_known = traffic.density(now // HOUR_MS, shape) > 0
        self._curve = make_curve(
            min(now, max(period.start_ms, now - PROMPT_MS)),
            end,
            HOUR_MS,
            (lambda at: traffic.density(at // HOUR_MS, shape))
            if is_known
            else (lambda at: shape.weight(at // HOUR_MS)),
        )

    def _end_minutes(self, shape: TrafficShape, host: str) -> None:
        if self._minutes:
            shape.sessions.learn(host, self._minutes)
            self._minutes = []

    def _note_minute(self, period: Period, now: int, supply: float) -> None:
        minute = (now - period.start_ms) // MINUTE_MS
        if 0 <= minute < MINUTES:
            self._minutes.extend([supply] * (minute + 1 - len(self._minutes)))

    def _look(
        self, settings: CampaignSettings, facts: Facts, period: Period, now: int, shape: TrafficShape
    ) -> control.Look:
        traffic, curve = self._traffic, self._curve
        assert curve is not None
        left = period.end_ms - now
        money = self.money(period.kind, period.day_ms)
        in_flight = traffic.in_flight(left)
        supply = traffic.density(now // HOUR_MS, shape) * traffic.level_now if traffic.is_known else 0.0
        here = curve.density(now)
        level = supply / here if here > 0 else 1.0
        today = level / traffic.level_now * traffic.level_today
        if period.kind == "live_session":
            today = level
            if supply > 0:
                self._note_minute(period, now, supply)
        budget = self._amounts.budget
        if period.kind == "live_session":
            budget = session_budget(settings, period, self.ledger, money)
        if settings.budget.total_micros is not None:
            earlier = valid_of(self.ledger.flight) - money.valid if period.kind != "flight" else 0
            budget = max(0, min(budget, settings.budget.total_micros * 1_000 - earlier))
        kernel = kernel_of(settings.billing)
        lag = sum(w * min(d, HOUR_MS) for w, d in zip(kernel.weights, kernel.delays_ms, strict=True))
        mode = self._mode(settings, period, shape)
        return control.Look(
            now_ms=now,
            start_ms=period.start_ms,
            end_ms=period.end_ms,
            spent=money.valid,
            in_flight=in_flight,
            missing=self._silence.missing,
            budget=budget,
            aim=min(self._amounts.aim, budget, day_limit(facts, period)),
            allowed=self._allowed(facts, period, money, in_flight),
            value=traffic.value * max(0.5, traffic.share_within(left)) if kernel.weights else traffic.value,
            unit=traffic.unit,
            error=kernel.error,
            supply_now=supply,
            level_now=level,
            level_today=today,
            curve=curve,
            lag_ms=lag,
            is_asap=mode is PacingMode.AS_SOON_AS_POSSIBLE,
            is_told=is_told(settings, facts),
        )

    def _allowed(self, facts: Facts, period: Period, money: Money, in_flight: float) -> float:
        """What the tightest allowance leaves, millimicros."""
        allowed = inf
        for allowance in facts.allowances:
            limit = allowance.limit_micros * 1_000
            if allowance.day_start_ms is None:
                spent, flying = self.ledger.paced, self._traffic.in_flight(inf)
            else:
                spent, flying = self.ledger.money_of_day(period.day_ms).valid, in_flight
                if allowance.day_start_ms < period.day_ms:
                    limit = int(limit * STARTER_SHARE)
            allowed = min(allowed, limit - spent - flying - self._silence.missing)
        return allowed

    # The answer

    def _decide(
        self,
        settings: CampaignSettings,
        period: Period,
        look: control.Look,
        elapsed: int,
        is_blind: bool,
        is_unknown: bool,
    ) -> Decision:
        plan = self._plan
        assert plan is not None
        target = self._target(plan, look, look.now_ms)
        want = control.wanted(look, self._target(plan, look, control.hastened(look, plan.made_ms)))
        reason = control.course(look, target)
        before = self.rate
        is_known = look.supply_now > 0 and look.value > 0
        if not self._is_begun or before == 0.0:
            rate = want if is_known else control.START_RATE
            self._is_begun = True
        else:
            rate = control.followed(before, want, elapsed, control.haste(look))
        if not is_known:
            reason = RateReason.SLOW_START
        most = control.highest(look)
        if most < rate:
            rate = most
            reason = RateReason.ALLOWANCE if look.room >= look.allowed else RateReason.CLOSING
        if not look.is_told and rate > 0.0:
            rate, reason = min(rate, control.START_RATE), RateReason.NO_ALLOWANCE
        if look.is_exhausted:
            reason = RateReason.ALLOWANCE if look.budget <= 0 and is_shared_only(settings) else RateReason.EXHAUSTED
        if (is_blind or self._silence.is_held(look.now_ms)) and rate >= before:
            rate = min(rate, before)
            if is_unknown and not look.is_exhausted:
                reason = RateReason.UNKNOWN_INPUT
        self.rate = control.quantized(rate)
        self._exhaustion.note(settings, look, valid_of(self.ledger.flight))
        is_judged = settings.pacing.over_delivery.credits_excess and not is_shared_only(settings)
        limit = look.budget if is_judged else NO_LIMIT
        self.ledger.judge(period.kind, period.day_ms, limit, plan.spent_micros * 1_000)
        share = self._traffic.share_within(max(1, look.end_ms - look.now_ms))
        is_open, has_budget = period.kind == "flight", not is_without_budget(settings)
        foreseen = look if has_budget else control.within_allowance(look)
        return Decision(
            rate=self.rate,
            rate_when_stale=control.stale_rate(look, self.rate),
            reason=reason,
            period_kind=period.kind,
            period_start_ms=period.start_ms,
            period_end_ms=period.end_ms,
            budget_micros=look.budget // 1_000 if has_budget else 0,
            plan_micros=self._amounts.plan // 1_000 if has_budget else 0,
            target_micros=target // 1_000 if has_budget else 0,
            spend=self.money(period.kind, period.day_ms),
            in_flight_millimicros=int(look.in_flight),
            forecast=forecast_of(foreseen, self.rate, share, self._spread, is_open),
            demand_micros_per_h=int(look.value * look.supply_now * HOUR_MS / 1_000),
            exhausted_at_ms=self._exhaustion.period_ms,
            is_learning=self._is_learning(settings),
            closed_credit_millimicros=self.ledger.closed_credit,
            total=self._exhaustion.total(settings, valid_of(self.ledger.flight)),
            excess_credit_millimicros=self.ledger.excess,
        )

    def _target(self, plan: Plan, look: control.Look, at_ms: int) -> int:
        """The plan's target, stretched to what the control aims at, millimicros."""
        planned = plan.target_at(at_ms) * 1_000
        aimed, made = look.aim - plan.spent_micros * 1_000, (plan.budget_micros - plan.spent_micros) * 1_000
        if aimed == made or made <= 0:
            return planned
        base = plan.spent_micros * 1_000
        return base + int((planned - base) * (aimed / made))

    def _is_learning(self, settings: CampaignSettings) -> bool:
        return is_optimised(settings.billing) and self.conversions < settings.billing.learning_conversions

    def release(self, settings: CampaignSettings, now_ms: int) -> Decision:
        """Nothing limits its spend any more: rate 1, until it is paced again and begins anew."""
        start, end = day_bounds(now_ms, settings.time_zone)
        self._traffic.bill(settings.billing)  # behind a recovery this is the first look
        self._period, self._exhaustion = None, Exhaustion()
        self.ledger.leave(start)
        return self._idle(settings, Period("day", start, end, start, Stage.RUNNING), RateReason.UNPACED, 1.0)

    def _stopped(self, settings: CampaignSettings, period: Period) -> Decision:
        """Nothing runs now."""
        is_over = period.stage is Stage.ENDED
        return self._idle(settings, period, RateReason.ENDED if is_over else RateReason.NOT_STARTED, 0.0)

    def _idle(self, settings: CampaignSettings, period: Period, reason: RateReason, rate: float) -> Decision:
        """Nothing is planned now."""
        self.rate, self._is_begun = rate, False
        return Decision(
            rate=rate,
            rate_when_stale=rate,
            reason=reason,
            period_kind=period.kind,
            period_start_ms=period.start_ms,
            period_end_ms=period.end_ms,
            budget_micros=0,
            plan_micros=0,
            target_micros=0,
            spend=self.money(period.kind, period.day_ms),
            in_flight_millimicros=int(self._traffic.in_flight(max(1, period.end_ms - self._now_ms))),
            forecast=None,
            demand_micros_per_h=0,
            exhausted_at_ms=self._exhaustion.period_ms,
            is_learning=self._is_learning(settings),
            closed_credit_millimicros=self.ledger.closed_credit,
            total=self._exhaustion.total(settings, valid_of(self.ledger.flight)),
            excess_credit_millimicros=self.ledger.excess,
        )

    # Kept

    def snapshot(self) -> dict[str, Any]:
        """Builtin values."""
        return {
            "ledger": self.ledger.snapshot(),
            "traffic": self._traffic.snapshot(),
            "silence": self._silence.snapshot(),
            "clock": self._clock.snapshot(),
            "rate": self.rate,
            "conversions": self.conversions,
            "now_ms": self._now_ms,
            "is_begun": self._is_begun,
            "period": self._period,
            "amounts": list(self._amounts),
            "plan": self._plan.pack() if self._plan is not None else None,
            "is_stale": self._is_stale,
            "exhausted": [self._exhaustion.period_ms, self._exhaustion.total_ms],
            "curve": self._curve.pack() if self._curve is not None else None,
            "curve_at": self._curve_at,
            "spread": self._spread,
            "minutes": list(self._minutes),
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Takes back what `snapshot` gave."""
        self.ledger.restore(snapshot["ledger"])
        self._traffic.restore(snapshot["traffic"])
        self._silence.restore(snapshot["silence"])
        self._clock.restore(snapshot["clock"])
        self.rate, self.conversions = snapshot["rate"], snapshot["conversions"]
        self._now_ms, self._is_begun = snapshot["now_ms"], snapshot["is_begun"]
        period, curve, plan = (snapshot[name] for name in ("period", "curve", "plan"))
        self._period = (period[0], period[1], period[2], period[3]) if period is not None else None
        self._amounts = Amounts(*snapshot["amounts"])
        self._plan = unpack_plan(plan) if plan is not None else None
        self._is_stale = snapshot["is_stale"]
        self._exhaustion.period_ms, self._exhaustion.total_ms = snapshot["exhausted"]
        self._curve = Curve(curve[0], curve[1], list(curve[2])) if curve is not None else None
        self._curve_at, self._spread = snapshot["curve_at"], snapshot["spread"]
        self._minutes = list(snapshot["minutes"])
        self._day = (0, 0, "")
