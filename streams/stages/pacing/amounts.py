"""What a period may spend: its budget, what over-delivery adds, and what the flight's total and allowances leave.

A flight's total caps each of them. Over-delivery: the days of a block of `period_days` local calendar days share a cap,
the sum of their daily budgets. Blocks follow one another from the flight's first local day, or, without one, from
Monday, 5 January 1970, so that a block of 7 days is a calendar week. A day may reach the multiple of its budget as far
as the block's cap allows; it sets out to spend its budget and what earlier days of the block left unspent.
"""

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from math import inf
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from streams.campaigns import CampaignSettings
from streams.rules import HOUR_MS
from streams.signals import PoolKind
from streams.stages.pacing.facts import Facts, Money
from streams.stages.pacing.ledger import BUDGET, Ledger
from streams.stages.pacing.periods import Period
from streams.stages.pacing.shape import WEEK_HOURS, TrafficShape
from streams.state.windows import day_bounds
from streams.terms import PPM, PacingPeriod

NO_LIMIT: Final = 10**18
_FIRST_MONDAY: Final = date(1970, 1, 5)


class Amounts(NamedTuple):
    """Millimicros."""

    plan: int
    """Without over-delivery."""
    aim: int
    """What the control steers for: the plan, and what may be made up for."""
    budget: int
    """What may be spent at most."""


def amounts_of(
    settings: CampaignSettings,
    period: Period,
    ledger: Ledger,
    made_ms: int,
    spent: int,
    money: Money,
    shape: TrafficShape,
    limit: int,
) -> Amounts:
    """What a period may spend, as planned at `made_ms` with `spent` (millimicros) gone by then.

    `limit` is that of a campaign without a budget of its own (`limit_without_own`).
    """
    budget = settings.budget
    left = inf if budget.total_micros is None else budget.total_micros * 1_000 - valid_of(ledger.flight) + money.valid
    if period.kind == "live_session":
        whole = session_budget(settings, period, ledger, money)
        amounts = Amounts(whole, whole, whole)
    elif period.kind == "flight":
        amounts = Amounts(*[(budget.total_micros or 0) * 1_000] * 3)
    elif budget.daily_micros is not None:
        amounts = capped_day(settings, *_block(settings, period, ledger))
    elif budget.total_micros is not None and settings.flight_end_ms is not None:
        rest = (left - spent) * share_of_day(made_ms, period.end_ms, settings.flight_end_ms, shape)
        plan = spent + round(max(0.0, rest))
        most = plan * settings.pacing.over_delivery.daily_multiplier_ppm // PPM
        amounts = Amounts(plan, plan, most)
    else:
        amounts = Amounts(limit, limit, limit)
    if left == inf:
        return amounts
    most = max(0, int(left))
    return Amounts(min(amounts.plan, most), min(amounts.aim, most), min(amounts.budget, most))


def session_budget(settings: CampaignSettings, period: Period, ledger: Ledger, money: Money) -> int:
    """What a live session may reach today, millimicros: its budget, as far as the day's lets it. `money`: its spend.

    What it spent before midnight, if it has passed it, takes nothing from today; what today spent outside of it does.
    """
    whole, daily = (settings.budget.session_micros or 0) * 1_000, settings.budget.daily_micros
    if daily is None:
        return whole
    return min(whole, max(0, daily * 1_000 + money.valid - ledger.money_of_day(period.day_ms).valid))


def _block(settings: CampaignSettings, period: Period, ledger: Ledger) -> tuple[int, int, int]:
    """Spend and budgets of the earlier days of the over-delivery block, and its days that are left."""
    policy = settings.pacing.over_delivery
    if policy.daily_multiplier_ppm == PPM:
        return 0, 0, 1
    earlier, left = block_of(period.day_ms, settings.time_zone, policy.period_days, settings.flight_start_ms)
    entries = [ledger.days[start] for start in earlier if start in ledger.days]
    return sum(valid_of(entry) for entry in entries), 1_000 * sum(entry[BUDGET] for entry in entries), left


def capped_day(settings: CampaignSettings, spent_of_block: int, budgets_of_block: int, days_left: int) -> Amounts:
    """A day's amounts by the over-delivery policy, before the flight's cap.

    `spent_of_block` and `budgets_of_block` are sums over the earlier days of the block (millimicros), `days_left` the
    days of the block that remain, today included.
    """
    daily = (settings.budget.daily_micros or 0) * 1_000
    policy = settings.pacing.over_delivery
    highest = daily * policy.daily_multiplier_ppm // PPM
    if policy.daily_multiplier_ppm == PPM:
        return Amounts(daily, daily, daily)
    cap_left = max(0, budgets_of_block + days_left * daily - spent_of_block)
    budget = min(highest, cap_left)
    unspent = max(0, budgets_of_block - spent_of_block)
    return Amounts(min(daily, budget), min(budget, daily + unspent), budget)


@lru_cache(maxsize=4096)
def block_of(day_ms: int, zone: str, period_days: int, flight_start_ms: int | None) -> tuple[tuple[int, ...], int]:
    """Starts of the earlier local days of the block that holds a day, and how many of its days are left."""
    here = datetime.fromtimestamp(day_ms / 1000, UTC).astimezone(ZoneInfo(zone)).date()
    first = _FIRST_MONDAY
    if flight_start_ms is not None:
        first = datetime.fromtimestamp(flight_start_ms / 1000, UTC).astimezone(ZoneInfo(zone)).date()
    passed = (here - first).days % period_days
    noons = [datetime.combine(here - timedelta(days=back), datetime.min.time(), UTC) for back in range(1, passed + 1)]
    starts = [
        day_bounds(int(noon.replace(hour=12, tzinfo=ZoneInfo(zone)).timestamp() * 1000), zone)[0] for noon in noons
    ]
    return tuple(starts), period_days - passed


def share_of_day(now_ms: int, day_end_ms: int, flight_end_ms: int, shape: TrafficShape) -> float:
    """Share of the flight's remaining traffic that falls between now and the end of the day."""
    today = _traffic(now_ms, day_end_ms, shape)
    whole = _traffic(now_ms, flight_end_ms, shape)
    return min(1.0, today / whole) if whole > 0 else 1.0


def _traffic(start_ms: int, end_ms: int, shape: TrafficShape) -> float:
    """Expected traffic of a time, in hours of average traffic; whole weeks are counted as such."""
    if end_ms <= start_ms:
        return 0.0
    weeks, rest = divmod(end_ms - start_ms, WEEK_HOURS * HOUR_MS)
    total, at = float(weeks * WEEK_HOURS), start_ms
    while at < start_ms + rest:
        until = min(start_ms + rest, at // HOUR_MS * HOUR_MS + HOUR_MS)
        total += shape.weight(at // HOUR_MS) * (until - at) / HOUR_MS
        at = until
    return total


def valid_of(sums: list[int]) -> int:
    """Gross less credited."""
    return sums[0] - sums[1]


def _has_own(settings: CampaignSettings) -> bool:
    budget = settings.budget
    is_own = budget.daily_micros is not None or budget.total_micros is not None
    return is_own or settings.pacing.period is not PacingPeriod.DAY


def is_shared_only(settings: CampaignSettings) -> bool:
    """Whether a shared budget is all that the campaign has."""
    return not _has_own(settings) and settings.budget.shared_budget_id is not None


def is_paced(settings: CampaignSettings) -> bool:
    """Whether anything limits what the campaign spends: a budget of its own or a shared one, or an account."""
    budget = settings.budget
    return bool(
        budget.daily_micros
        or budget.total_micros
        or budget.session_micros
        or budget.shared_budget_id
        or settings.account_id
    )


def is_without_budget(settings: CampaignSettings) -> bool:
    """Whether nothing but an account's balance limits what the campaign spends."""
    return not _has_own(settings) and settings.budget.shared_budget_id is None


def limit_without_own(settings: CampaignSettings, facts: Facts, day_ms: int) -> int:
    """What a campaign without a budget of its own may spend on a day, millimicros; 0 for one that has one."""
    if is_without_budget(settings):
        return NO_LIMIT
    return _shared_limit(facts, day_ms) if is_shared_only(settings) else 0


def _shared_limit(facts: Facts, day_ms: int) -> int:
    """What the shared budget allots for the day, millimicros; 0 until it is told."""
    limits = [
        a.limit_micros for a in facts.allowances if a.pool is PoolKind.SHARED_BUDGET and a.day_start_ms is not None
    ]
    return max(0, min(limits)) * 1_000 if limits else 0


def is_told(settings: CampaignSettings, facts: Facts) -> bool:
    """Whether every pool that the campaign draws on has told it an allowance."""
    told = {allowance.pool for allowance in facts.allowances}
    is_balance_told = settings.account_id is None or PoolKind.BALANCE in told
    return is_balance_told and (settings.budget.shared_budget_id is None or PoolKind.SHARED_BUDGET in told)


def day_limit(facts: Facts, period: Period) -> int:
    """The day's allotment from a shared budget is a budget to plan by, millimicros."""
    limits = [
        a.limit_micros * 1_000
        for a in facts.allowances
        if a.pool is PoolKind.SHARED_BUDGET and a.day_start_ms == period.day_ms and period.kind == "day"
    ]
    return max(0, min(limits)) if limits else NO_LIMIT


def differs(one: int, other: int) -> bool:
    """By more than half a percent."""
    return abs(one - other) * 200 > other
