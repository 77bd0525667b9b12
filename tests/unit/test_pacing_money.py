"""Spend by period: exact, conserved, and closed when its period is."""

import pytest

from streams.signals import RateReason
from streams.stages.pacing.campaign import CampaignPacer
from streams.stages.pacing.facts import Money
from streams.stages.pacing.shape import TrafficShape
from streams.terms import Billing, BillingModel, Pacing, PacingPeriod
from tests.unit.pacing_world import (
    CENT,
    DAY,
    HOUR,
    MINUTE,
    MONDAY,
    UNIT,
    Loop,
    allowance,
    at,
    campaign,
    facts,
    live,
    spent,
)

SETTINGS = campaign()
LIVE = campaign(daily=None, session=50, pacing=Pacing(period=PacingPeriod.LIVE_SESSION))


def looked(pacer: CampaignPacer, now_ms: int, settings=SETTINGS, **more):
    return pacer.evaluate(settings, facts(now_ms, **more), TrafficShape())


def test_credit_of_the_open_day_lowers_what_is_owed() -> None:
    pacer = CampaignPacer("c-1")
    pacer.add(SETTINGS, spent(MONDAY + HOUR, 5 * UNIT))
    looked(pacer, MONDAY + 2 * HOUR)
    pacer.add(SETTINGS, spent(MONDAY + HOUR, 0, credited=UNIT))
    decision = looked(pacer, MONDAY + 2 * HOUR + MINUTE)
    assert decision.spend == Money(5_000 * UNIT, 1_000 * UNIT)
    assert decision.spend.valid == 4_000 * UNIT
    assert decision.closed_credit_millimicros == 0


def test_credit_after_its_day_has_closed_goes_to_billing_and_never_into_pacing() -> None:
    pacer = CampaignPacer("c-1")
    pacer.add(SETTINGS, spent(MONDAY + HOUR, 5 * UNIT))
    looked(pacer, MONDAY + 2 * HOUR)
    looked(pacer, MONDAY + DAY + HOUR)
    pacer.add(SETTINGS, spent(MONDAY + HOUR, 0, credited=UNIT))
    decision = looked(pacer, MONDAY + DAY + HOUR + MINUTE)
    assert decision.closed_credit_millimicros == 1_000 * UNIT
    assert decision.spend == Money(0, 0)
    assert pacer.ledger.money_of_day(MONDAY) == Money(5_000 * UNIT, 0)
    assert pacer.ledger.flight[:2] == [5_000 * UNIT, 0]
    assert pacer.ledger.ever == [5_000 * UNIT, 1_000 * UNIT]


def test_credit_of_a_closed_day_leaves_no_more_of_a_balance() -> None:
    pacer = CampaignPacer("c-1")
    settings = campaign(daily=None, account_id="p")
    pacer.add(settings, spent(MONDAY + HOUR, 50 * UNIT, impressions=25_000))
    looked(pacer, MONDAY + 2 * HOUR, settings, allowances=(allowance(60),))
    looked(pacer, MONDAY + DAY + HOUR, settings, allowances=(allowance(60),))
    pacer.add(settings, spent(MONDAY + HOUR, 0, credited=40 * UNIT))
    pacer.add(settings, spent(MONDAY + DAY + HOUR, 10 * UNIT, impressions=5_000))
    decision = looked(pacer, MONDAY + DAY + HOUR + MINUTE, settings, allowances=(allowance(60),))
    assert (decision.rate, decision.reason) == (0.0, RateReason.ALLOWANCE)
    assert decision.closed_credit_millimicros == 40_000 * UNIT
    assert pacer.ledger.paced == 60_000 * UNIT


def test_credit_of_a_closed_day_makes_no_traffic_look_cheaper() -> None:
    """Click-billed: what an impression is worth is an estimate from what was spent."""
    demands = []
    for credited in (0, 40 * UNIT):
        pacer = CampaignPacer("c-1")
        settings = campaign(billing=Billing(model=BillingModel.CPC, price_micros=UNIT))
        for minute in range(25 * 60):
            pacer.add(settings, spent(MONDAY + minute * MINUTE, UNIT, impressions=100, clicks=1))
            looked(pacer, MONDAY + minute * MINUTE + 10_000, settings)
        pacer.add(settings, spent(MONDAY + HOUR, 0, credited=credited))
        demands.append(looked(pacer, MONDAY + DAY + HOUR + MINUTE, settings).demand_micros_per_h)
    assert demands[0] == demands[1] > 0


def test_late_spend_of_a_closed_day_is_that_days_and_the_flights_but_not_todays() -> None:
    pacer = CampaignPacer("c-1")
    looked(pacer, MONDAY + 2 * HOUR)
    looked(pacer, MONDAY + DAY + HOUR)
    pacer.add(SETTINGS, spent(MONDAY + 3 * HOUR, 7 * UNIT))
    assert looked(pacer, MONDAY + DAY + HOUR + MINUTE).spend.gross == 0
    assert pacer.ledger.money_of_day(MONDAY).gross == 7_000 * UNIT
    assert pacer.ledger.flight[0] == 7_000 * UNIT


def test_spend_of_tomorrow_that_comes_before_midnight_is_seen_waits_for_its_day() -> None:
    pacer = CampaignPacer("c-1")
    looked(pacer, MONDAY + DAY - MINUTE)
    pacer.add(SETTINGS, spent(MONDAY + DAY + 10_000, 3 * UNIT))
    assert looked(pacer, MONDAY + DAY - 1).spend.gross == 0
    assert looked(pacer, MONDAY + DAY + MINUTE).spend.gross == 3_000 * UNIT


@pytest.mark.parametrize(
    ("first", "hours"),
    [("2026-03-29T00:00:00+01:00", 23), ("2026-10-25T00:00:00+02:00", 25), ("2026-06-01T00:00:00+02:00", 24)],
)
def test_days_of_23_and_25_hours_are_whole_periods(first: str, hours: int) -> None:
    settings = campaign(time_zone="Europe/Berlin")
    pacer, begin = CampaignPacer("c-1"), at(first)
    pacer.add(settings, spent(begin - 10_000, UNIT))
    pacer.add(settings, spent(begin, 2 * UNIT))
    pacer.add(settings, spent(begin + hours * HOUR - 10_000, 4 * UNIT))
    pacer.add(settings, spent(begin + hours * HOUR, 8 * UNIT))
    decision = looked(pacer, begin + 12 * HOUR, settings)
    assert (decision.period_start_ms, decision.period_end_ms) == (begin, begin + hours * HOUR)
    assert decision.spend.gross == 6_000 * UNIT


@pytest.mark.parametrize("first", ["2026-03-29T00:00:00+01:00", "2026-10-25T00:00:00+02:00"])
def test_a_day_whose_clock_changes_is_paced_to_its_end(first: str) -> None:
    loop = Loop(campaign(time_zone="Europe/Berlin", daily=20), at(first), supply=40)
    end = loop.step().period_end_ms
    loop.run(end - loop.now)
    assert loop.decisions[-1].period_end_ms == end
    assert 0.98 <= loop.decisions[-1].spend.valid / (20_000 * UNIT) <= 1.001


def test_a_live_session_finds_what_was_spent_since_its_start_was_told_late() -> None:
    pacer, start = CampaignPacer("c-1"), MONDAY + 20 * HOUR
    pacer.add(LIVE, spent(start - MINUTE, UNIT))
    pacer.add(LIVE, spent(start + MINUTE, 2 * UNIT))
    looked(pacer, start + 2 * MINUTE, LIVE)
    pacer.add(LIVE, spent(start + 2 * MINUTE, 4 * UNIT))
    decision = looked(pacer, start + 3 * MINUTE, LIVE, session=live(start, start + HOUR))
    assert decision.period_kind == "live_session"
    assert decision.spend.gross == 6_000 * UNIT


def test_what_is_spent_behind_a_sessions_end_is_not_the_sessions() -> None:
    pacer, start = CampaignPacer("c-1"), MONDAY + 20 * HOUR
    looked(pacer, start + MINUTE, LIVE, session=live(start))
    pacer.add(LIVE, spent(start + MINUTE, 2 * UNIT))
    over = live(start, start + HOUR, is_over=True)
    looked(pacer, start + HOUR + MINUTE, LIVE, session=over)
    pacer.add(LIVE, spent(start + HOUR + MINUTE, UNIT))
    pacer.add(LIVE, spent(start + MINUTE, 0, credited=CENT))
    decision = looked(pacer, start + HOUR + 2 * MINUTE, LIVE, session=over)
    assert decision.spend == Money(2_000 * UNIT, 0)
    assert decision.closed_credit_millimicros == 1_000 * CENT


def test_days_are_kept_for_as_long_as_a_policy_can_ask() -> None:
    pacer = CampaignPacer("c-1")
    for day in range(100):
        pacer.add(SETTINGS, spent(MONDAY + day * DAY, UNIT))
    assert len(pacer.ledger.days) == 40
    assert min(pacer.ledger.days) == MONDAY + 60 * DAY
    assert pacer.ledger.flight[0] == 100_000 * UNIT
