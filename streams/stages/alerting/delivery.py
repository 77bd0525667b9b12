"""Rules about a budget: how much of it is spent, against its plan, and how its period will end.

A campaign that lives on a shared budget alone has no budget to judge: what the pool allots is what it may draw for now,
is moved every few seconds, and running through it ends nothing. `pool_exhausted` tells when the pool itself is spent.
"""

from collections.abc import Mapping
from math import sqrt
from typing import Final, NamedTuple

from streams.campaigns import CampaignSettings
from streams.rules import HOUR_MS
from streams.signals import Allowance, PoolKind, RateReason
from streams.stages.alerting.facts import BETWEEN, CLEAR, UNKNOWN, AlertFacts, Condition, Signal
from streams.stages.pacing.amounts import is_shared_only
from streams.stages.pacing.facts import Decision, Total
from streams.state.windows import day_bounds
from streams.terms import PPM, AlertKind, BillingModel

NEAR_END_PPM: Final = 980_000
"""Exhausted in the last fiftieth of its period (half an hour of a day) is what pacing aims at: the ladder tells."""
OPEN_PERIOD_MS: Final = 400 * 24 * HOUR_MS
"""A longer period has no end that exhaustion could be early for."""
NOISE_SIGMAS: Final = 4.0
"""Distance from plan that the number of billable events alone explains, standard deviations."""
POOL_SPENT_PPM: Final = 20_000
"""What is left of a shared budget below this share is crumbs: its campaigns have less each than one more event costs,
or less than can be steered, and stand still."""
POOL_OPEN_PPM: Final = 2 * POOL_SPENT_PPM
"""Above this share there is something to spend again."""
WHOLE: Final = 100
"""The last step of a ladder, percent."""
LEAST_RAISE_PPM: Final = 50_000
"""A budget that is raised by less than this share goes up the ladder that it is on, and is spent once."""
SETTLED_SHARE: Final = 0.1
"""Of the period: before it, a forecast rests on yesterday."""
UNSTEERED: Final = frozenset(
    {RateReason.SLOW_START, RateReason.ALLOWANCE, RateReason.EXHAUSTED, RateReason.UNKNOWN_INPUT}
)
"""Why a rate may be off its plan for a reason that is told otherwise, or is none of the market's."""
_PER_MILLE: Final = frozenset({BillingModel.CPM, BillingModel.OCPM})


def exhausted(settings: CampaignSettings, decision: Decision) -> tuple[AlertKind, Signal]:
    """Exhausted, or exhausted early: one of the two; by the time at which the spend reached what it may.

    Told is the budget as the advertiser knows it; how far a day went beyond it is told as spend, in a form of its own.
    """
    at_ms, total = decision.exhausted_at_ms, decision.total
    if total is not None and total.exhausted_at_ms is not None and total.budget_micros > 0:
        return _total_exhausted(settings, decision, total, total.exhausted_at_ms)
    if at_ms is None or decision.budget_micros <= 0 or is_shared_only(settings):
        return AlertKind.EXHAUSTED, CLEAR
    share_ppm, is_open = _share_of_period(decision, at_ms), _is_open(decision)
    if share_ppm >= NEAR_END_PPM and not is_open:
        return AlertKind.EXHAUSTED, CLEAR
    is_early = share_ppm < settings.alerts.early_share_ppm and not is_open
    budget = min(decision.plan_micros, decision.budget_micros)
    form, named = _form(settings, decision, budget)
    signal = Signal(
        Condition.MET,
        seen=decision.spend.valid / 1_000,
        expected=float(budget),
        unit="micros",
        figures=(
            ("spend", decision.spend.valid // 1_000),
            ("budget", named),
            ("at", at_ms),
            ("ends", None if is_open else decision.period_end_ms),
            ("left_ms", None if is_open else decision.period_end_ms - at_ms),
            ("share", share_ppm),
        ),
        began_ms=at_ms,
        step=f"{decision.period_kind}:{decision.period_start_ms}:{at_ms}",
        form=form,
    )
    return (AlertKind.EXHAUSTED_EARLY if is_early else AlertKind.EXHAUSTED), signal


def _form(settings: CampaignSettings, decision: Decision, budget: int) -> tuple[str, int]:
    """Which sentence, and the budget that it names, micros: of a live session that the day's stops, the day's."""
    kind, own = decision.period_kind, settings.budget
    if kind == "live_session" and own.daily_micros is not None and budget < (own.session_micros or 0):
        return "session_day", own.daily_micros
    return ("day_beyond" if kind == "day" and budget < decision.budget_micros else kind), budget


def _total_exhausted(
    settings: CampaignSettings, decision: Decision, total: Total, at_ms: int
) -> tuple[AlertKind, Signal]:
    """The flight is over before its time, whatever days are left: no midnight ends this, only a raise or a credit.

    Early is judged against the flight, which begins, where that is not told, with the day on which it ran out. To run
    out near the end of a period is as planned only where the flight ends with it.
    """
    end_ms = settings.flight_end_ms
    is_last = end_ms is not None and decision.period_end_ms >= end_ms
    if is_last and _share_of_period(decision, at_ms) >= NEAR_END_PPM:
        return AlertKind.EXHAUSTED, CLEAR
    begin_ms = settings.flight_start_ms
    if begin_ms is None:
        begin_ms = day_bounds(at_ms, settings.time_zone)[0]
    share_ppm = None if end_ms is None else (at_ms - begin_ms) * PPM // max(1, end_ms - begin_ms)
    is_early = share_ppm is not None and share_ppm < settings.alerts.early_share_ppm
    signal = Signal(
        Condition.MET,
        seen=total.spend_millimicros / 1_000,
        expected=float(total.budget_micros),
        unit="micros",
        figures=(
            ("spend", total.spend_millimicros // 1_000),
            ("budget", total.budget_micros),
            ("at", at_ms),
            ("ends", end_ms),
            ("left_ms", None if end_ms is None else end_ms - at_ms),
            ("share", share_ppm),
        ),
        began_ms=at_ms,
        step=f"total:{at_ms}",
        form="flight",
    )
    return (AlertKind.EXHAUSTED_EARLY if is_early else AlertKind.EXHAUSTED), signal


def _share_of_period(decision: Decision, at_ms: int) -> int:
    """How much of it had passed, ppm; below 0 where that was before it."""
    length = decision.period_end_ms - decision.period_start_ms
    return (at_ms - decision.period_start_ms) * PPM // max(1, length)


def _is_open(decision: Decision) -> bool:
    return decision.period_end_ms - decision.period_start_ms > OPEN_PERIOD_MS


def delivery(settings: CampaignSettings, decision: Decision) -> tuple[Signal, Signal]:
    """(over, under): spend against plan, as a share of the period's budget.

    What is in flight is no spend yet, but it is delivered: a campaign that is billed by conversions is behind its plan
    for hours each morning without anything to be done about it. So it is behind with both.
    """
    if is_shared_only(settings) or decision.plan_micros <= 0:
        return CLEAR, CLEAR
    if decision.reason in UNSTEERED:
        return UNKNOWN, UNKNOWN
    if decision.reason is RateReason.AS_SOON_AS_POSSIBLE:
        return CLEAR, CLEAR
    spend = decision.spend.valid // 1_000
    off = spend - decision.target_micros
    noise = NOISE_SIGMAS * sqrt(max(0, decision.target_micros) * unit_micros(settings))
    limit = max(settings.alerts.delivery_ppm * decision.plan_micros / PPM, noise)
    behind = -off - max(0, decision.in_flight_millimicros // 1_000)
    return _off_plan(decision, off, limit, spend), _off_plan(decision, behind, limit, spend)


def _off_plan(decision: Decision, off: float, limit: float, spend: int) -> Signal:
    if off <= limit:
        return CLEAR if off <= limit / 2 else BETWEEN
    return Signal(
        Condition.MET,
        seen=float(spend),
        expected=float(decision.target_micros),
        unit="micros",
        figures=(
            ("spend", spend),
            ("target", decision.target_micros),
            ("budget", decision.plan_micros),
            ("off", abs(spend - decision.target_micros)),
            ("share", abs(spend - decision.target_micros) * PPM // decision.plan_micros),
        ),
        form=decision.period_kind,
    )


def expected_under(settings: CampaignSettings, decision: Decision, now_ms: int) -> Signal:
    """The forecast's upper end misses the budget."""
    forecast, budget = decision.forecast, decision.plan_micros
    if is_shared_only(settings) or budget <= 0:
        return CLEAR
    if forecast is None or decision.reason in UNSTEERED:
        return UNKNOWN
    length = decision.period_end_ms - decision.period_start_ms
    if length > OPEN_PERIOD_MS or now_ms - decision.period_start_ms < SETTLED_SHARE * length:
        return UNKNOWN
    miss_ppm = (budget - forecast.high_micros) * PPM / budget
    limit = settings.alerts.expected_under_ppm
    if miss_ppm <= limit:
        return CLEAR if miss_ppm <= limit / 2 else BETWEEN
    return Signal(
        Condition.MET,
        seen=float(forecast.spend_micros),
        expected=float(budget),
        unit="micros",
        figures=(
            ("forecast", forecast.spend_micros),
            ("high", forecast.high_micros),
            ("budget", budget),
            ("share", forecast.spend_micros * PPM // budget),
            ("ends", decision.period_end_ms),
        ),
        form=decision.period_kind,
    )


class ToldStep(NamedTuple):
    """The highest step of the ladder that was told in a period. Of a shared budget: that it is spent, 100 percent."""

    period: str = ""
    percent: int = 0
    """0: none was."""
    budget_micros: int = 0
    """The budget that it was a share of; 0: not known."""


def ladder(settings: CampaignSettings, decision: Decision, told: ToldStep) -> tuple[ToldStep, Signal]:
    """The highest step that is reached and higher than what was told in this period, of this budget.

    Steps that are passed between two looks are told as one. A credit takes no step back; a raised budget does. The day
    on which the total is spent is spent with it: that is told of the total.
    """
    if is_shared_only(settings):
        return told, CLEAR
    kind, total = decision.period_kind, decision.total
    period = f"{kind}:{decision.period_start_ms}"
    told, signal = _climb(settings, told, period, kind, decision.spend.valid // 1_000, decision.plan_micros)
    is_over = total is not None and total.exhausted_at_ms is not None and kind != "flight"
    return told, BETWEEN if is_over and signal.condition == Condition.MET else signal


def total_ladder(
    settings: CampaignSettings, decision: Decision, told: ToldStep, is_told: bool
) -> tuple[ToldStep, Signal]:
    """As `ladder`, of the flight's total beside a budget of its days or sessions.

    `is_told`: that the total is spent is told as such, so its last step is not.
    """
    total = decision.total
    if total is None or decision.period_kind == "flight":
        return told, CLEAR
    period = f"total:{settings.flight_start_ms}"
    spend = total.spend_millimicros // 1_000
    told, signal = _climb(settings, told, period, "flight", spend, total.budget_micros)
    return told, BETWEEN if is_told and signal.expected == WHOLE else signal


def _climb(
    settings: CampaignSettings, told: ToldStep, period: str, form: str, spend: int, budget: int
) -> tuple[ToldStep, Signal]:
    """Micros. Without a budget there is no ladder: a total that is spent leaves the next day none."""
    if told.period != period or _is_raised(told, spend, budget):
        told = ToldStep(period)
    if budget <= 0:
        return told, CLEAR
    reached = max((s for s in settings.alerts.ladder_percent if spend * 100 >= s * budget), default=0)
    if reached == 0:
        return told, CLEAR
    if reached <= told.percent:
        return told, BETWEEN
    signal = Signal(
        Condition.MET,
        seen=spend * 100 / budget,
        expected=float(reached),
        unit="percent",
        figures=(("step", reached), ("spend", spend), ("budget", budget)),
        step=f"{period}:{reached}:{budget}",
        form=form,
    )
    return ToldStep(period, reached, budget), signal


def _is_raised(told: ToldStep, spend: int, budget: int) -> bool:
    """Whether the told step is no longer reached because the budget is a larger one: its ladder begins anew.

    Not by less than `LEAST_RAISE_PPM`: who raises a budget little by little would hear of the same step each time.
    """
    return _is_larger(told, budget) and spend * 100 < told.percent * budget


def _is_larger(told: ToldStep, budget: int) -> bool:
    return told.budget_micros > 0 and budget * PPM >= told.budget_micros * (PPM + LEAST_RAISE_PPM)


def pool_exhausted(
    settings: CampaignSettings, facts: AlertFacts, told: Mapping[str, ToldStep]
) -> tuple[dict[str, ToldStep], list[tuple[str, Signal]]]:
    """Each shared budget by its id: nothing of it is left, or the campaign stands still for the crumbs that are.

    Told once in a day, and again where it was raised meanwhile and had something to spend. `told` and the first of the
    answers: of each budget what was told, with its size then.
    """
    shared = [allowance for allowance in facts.allowances if allowance.pool is PoolKind.SHARED_BUDGET]
    steps, signals = {}, []
    for allowance in shared:
        pool = allowance.pool_id
        steps[pool], signal = _pool_signal(settings, facts.decision, allowance, told.get(pool, ToldStep()))
        signals.append((pool, signal))
    return steps, signals


def _pool_signal(
    settings: CampaignSettings, decision: Decision | None, allowance: Allowance, told: ToldStep
) -> tuple[ToldStep, Signal]:
    left, total, day = allowance.left_micros, allowance.pool_micros, str(allowance.day_start_ms)
    is_spent = left <= 0 or (left * PPM <= POOL_SPENT_PPM * total and _stands_still(settings, decision))
    if told.period != day or (not is_spent and _is_larger(told, total)):
        told = ToldStep(day)
    if not is_spent:
        return told, BETWEEN if left * PPM <= POOL_OPEN_PPM * total else CLEAR
    told = told if told.percent else ToldStep(day, 100, total)
    figures = (("pool", allowance.pool_id),)
    step = f"{allowance.pool_id}:{day}:{told.budget_micros}"
    return told, Signal(Condition.MET, float(max(0, left)), None, "micros", figures, None, step, "shared")


def _stands_still(settings: CampaignSettings, decision: Decision | None) -> bool:
    """For want of what its pools allot, not because its own budget is spent."""
    if decision is None or decision.rate > 0:
        return False
    return not decision.is_exhausted or is_shared_only(settings)


def unit_micros(settings: CampaignSettings) -> float:
    """What one billable event costs; 0 where only the events know."""
    billing = settings.billing
    if billing.price_micros is None:
        return 0.0
    return billing.price_micros / 1_000 if billing.model in _PER_MILLE else float(billing.price_micros)
