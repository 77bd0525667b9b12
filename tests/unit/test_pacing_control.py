"""Control: on plan, calm, never beyond the budget, and safe when nobody listens any more."""

from itertools import pairwise

import pytest

from streams.signals import RateReason
from streams.stages.pacing import control
from streams.terms import Billing, BillingModel, Pacing, PacingMode, PacingPeriod
from tests.unit.pacing_world import DAY, HOUR, MINUTE, MONDAY, UNIT, Loop, allowance, campaign, live, spent

EVEN = Pacing(mode=PacingMode.EVEN)
ASAP = Pacing(mode=PacingMode.AS_SOON_AS_POSSIBLE)
LIVE = Pacing(period=PacingPeriod.LIVE_SESSION)


def test_a_day_of_plenty_ends_on_its_plan_without_a_micro_too_much() -> None:
    loop = Loop(campaign(pacing=EVEN), supply=50)
    decision = loop.run(DAY - 10_000)
    assert 99 * UNIT <= decision.spend.valid // 1_000 <= 100 * UNIT
    worst = max(abs(d.target_micros - d.spend.valid / 1_000) for d in loop.decisions)
    assert worst < 0.03 * 100 * UNIT


def test_an_unknown_campaign_starts_near_a_tenth() -> None:
    loop = Loop(campaign(pacing=EVEN), supply=0.5)
    first = loop.step()
    assert (first.rate, first.reason) == (0.1, RateReason.SLOW_START)
    assert first.forecast is None
    minutes = loop.rates[::6][:9]
    assert all(after <= before * 1.3 + 0.03 for before, after in pairwise(minutes))


def test_rates_are_calm_where_traffic_is() -> None:
    loop = Loop(campaign(pacing=EVEN), supply=lambda at_ms: 30 if at_ms // 10_000 % 2 else 20)
    loop.run(6 * HOUR)
    changes = sum(one != other for one, other in pairwise(loop.rates[360:]))
    assert changes < 60


def test_dead_band_and_clamp() -> None:
    assert control.followed(0.5, 0.52, MINUTE) == 0.5
    assert control.followed(0.5, 0.48, MINUTE) == 0.5
    assert 0.5 < control.followed(0.5, 1.0, 5_000) < 0.52
    assert 0.28 < control.followed(0.5, 0.0, MINUTE) < 0.31
    assert control.followed(0.5, 0.6, MINUTE) == 0.6


@pytest.mark.parametrize(("rate", "expected"), [(-1, 0), (2, 1), (0.1234567, 0.123456), (1e-7, 0), (0.3, 0.3)])
def test_rates_are_whole_millionths_within_bounds(rate: float, expected: float) -> None:
    assert control.quantized(rate) == expected


@pytest.mark.parametrize("supply", [20, 500, 20_000])
def test_as_soon_as_possible_closes_without_overspending(supply: int) -> None:
    loop = Loop(campaign(pacing=ASAP), supply=supply)
    decision = loop.run(12 * HOUR)
    assert decision.rate == 0.0
    assert decision.reason is RateReason.EXHAUSTED
    assert 0.99 <= decision.spend.valid / (100_000 * UNIT) <= 1.0
    assert decision.exhausted_at_ms is not None
    assert decision.exhausted_at_ms < MONDAY + DAY
    assert supply == 20 or any(d.reason is RateReason.CLOSING for d in loop.decisions)


def test_the_time_of_exhaustion_is_foretold() -> None:
    loop = Loop(campaign(pacing=ASAP), supply=20)
    loop.run(2 * HOUR)
    foretold = loop.decisions[-1].forecast
    loop.run(10 * HOUR)
    exhausted = loop.decisions[-1].exhausted_at_ms
    assert foretold is not None
    assert foretold.exhausts_at_ms is not None
    assert exhausted is not None
    assert abs(foretold.exhausts_at_ms - exhausted) < 15 * MINUTE


def test_scarce_traffic_is_foretold_and_let_through() -> None:
    loop = Loop(campaign(pacing=EVEN), supply=4)
    loop.run(12 * HOUR)
    middle = loop.decisions[-1]
    assert middle.rate == 1.0
    assert middle.reason is RateReason.BEHIND
    decision = loop.run(12 * HOUR - 10_000)
    assert middle.forecast is not None
    assert middle.forecast.low_micros <= decision.spend.valid // 1_000 <= middle.forecast.high_micros
    assert middle.forecast.high_micros < 90 * UNIT


def test_a_credit_on_the_same_day_opens_an_exhausted_campaign_again() -> None:
    loop = Loop(campaign(daily=10, pacing=ASAP), supply=100)
    loop.run(4 * HOUR)
    assert loop.rates[-1] == 0.0
    loop.pacer.add(loop.settings, spent(MONDAY + HOUR, 0, credited=5 * UNIT))
    decision = loop.run(4 * HOUR)
    assert max(loop.rates[-4 * 360 :]) > 0.0
    assert decision.spend.valid // 1_000 <= 10 * UNIT
    assert decision.spend.gross // 1_000 > 14 * UNIT


def test_what_is_in_flight_counts_before_it_is_billed() -> None:
    """Clicks that come a minute after their impressions: full speed would overspend by a minute's worth."""
    settings = campaign(daily=50, pacing=ASAP, billing=Billing(model=BillingModel.CPC, price_micros=100_000))
    loop = Loop(settings, supply=0)
    waiting: list[int] = []
    come = 0
    for _ in range(6 * 360):
        loop.now += 10_000
        waiting.append(round(200 * (loop.rates[-1] if loop.rates else 0)))
        clicks = sum(waiting[:-5]) // 40 - come
        come += clicks
        shown = {"impressions": waiting[-1], "clicks": clicks}
        loop.pacer.add(settings, spent(loop.now - 10_000, clicks * 100_000, **shown))
        loop.look()
    last = loop.decisions[-1]
    assert max(d.in_flight_millimicros for d in loop.decisions) > 1_000 * UNIT
    assert 0.97 <= last.spend.valid / (50_000 * UNIT) <= 1.005
    assert last.in_flight_millimicros == 0


def test_impressions_that_are_paid_at_once_leave_nothing_in_flight() -> None:
    loop = Loop(campaign(pacing=EVEN))
    loop.run(HOUR)
    assert all(d.in_flight_millimicros == 0 for d in loop.decisions)


def test_a_balance_caps_whatever_the_plan_says() -> None:
    loop = Loop(campaign(pacing=EVEN), supply=50)
    loop.more = {"allowances": (allowance(20),)}
    decision = loop.run(12 * HOUR)
    assert decision.rate == 0.0
    assert decision.reason is RateReason.ALLOWANCE
    assert 19 * UNIT <= decision.spend.valid // 1_000 <= 20 * UNIT
    assert decision.exhausted_at_ms is None


def test_a_campaign_without_a_budget_spends_as_soon_as_possible_while_its_balance_lasts() -> None:
    loop = Loop(campaign(daily=None, account_id="p"), supply=50)
    loop.more = {"allowances": (allowance(1_000_000),)}
    decision = loop.run(6 * HOUR)
    assert (decision.rate, decision.reason) == (1.0, RateReason.AS_SOON_AS_POSSIBLE)
    assert (decision.budget_micros, decision.plan_micros, decision.target_micros) == (0, 0, 0)
    assert decision.forecast is not None
    assert decision.forecast.spend_micros == pytest.approx(24 * 360 * 50 * 2_000, rel=0.02)
    assert decision.forecast.exhausts_at_ms is None


def test_a_campaign_without_a_budget_stops_when_its_balance_is_spent() -> None:
    loop = Loop(campaign(daily=None, account_id="p"), supply=50)
    loop.more = {"allowances": (allowance(200),)}
    decision = loop.run(5 * HOUR)
    assert decision.forecast is not None
    assert decision.forecast.spend_micros == 200 * UNIT
    assert decision.forecast.exhausts_at_ms is not None
    assert abs(decision.forecast.exhausts_at_ms - (MONDAY + 5.6 * HOUR)) < 0.5 * HOUR
    decision = loop.run(3 * HOUR)
    assert (decision.rate, decision.reason) == (0.0, RateReason.ALLOWANCE)
    assert 199 * UNIT <= decision.spend.valid // 1_000 <= 200 * UNIT
    loop.more = {"allowances": (allowance(1_000),)}
    assert loop.run(HOUR).rate == 1.0


@pytest.mark.parametrize("pool", [{"account_id": "p"}, {"shared": "p"}])
def test_until_a_pool_has_told_its_allowance_the_rate_is_that_of_a_slow_start(pool: dict[str, str]) -> None:
    loop = Loop(campaign(pacing=Pacing(mode=PacingMode.AS_SOON_AS_POSSIBLE), **pool), supply=50)
    loop.run(HOUR)
    assert set(loop.rates) == {0.1}
    assert {decision.reason for decision in loop.decisions} == {RateReason.NO_ALLOWANCE}
    day = MONDAY if "shared" in pool else None
    loop.more = {"allowances": (allowance(1_000, day),)}
    decision = loop.run(30 * MINUTE)
    assert (decision.rate, decision.reason) == (1.0, RateReason.AS_SOON_AS_POSSIBLE)


def test_a_budget_that_is_spent_stops_a_campaign_whose_pool_says_nothing() -> None:
    settings = campaign(daily=1, account_id="p", pacing=Pacing(mode=PacingMode.AS_SOON_AS_POSSIBLE))
    loop = Loop(settings, supply=50)
    decision = loop.run(HOUR)
    assert (decision.rate, decision.reason) == (0.0, RateReason.EXHAUSTED)


def test_a_campaign_that_has_a_shared_budget_alone_waits_for_its_allotment_and_plans_it() -> None:
    loop = Loop(campaign(daily=None, shared="s-1", pacing=EVEN), supply=50)
    waiting = loop.run(10 * MINUTE)
    assert (waiting.rate, waiting.reason, waiting.exhausted_at_ms) == (0.0, RateReason.ALLOWANCE, None)
    loop.more = {"allowances": (allowance(40, MONDAY),)}
    loop.run(12 * HOUR)
    assert loop.decisions[-1].plan_micros == 40 * UNIT
    decision = loop.run(DAY - (loop.now - MONDAY) - 10_000)
    assert 0.98 <= decision.spend.valid / (40_000 * UNIT) <= 1.0


def test_the_rate_without_controls_is_never_more_and_falls_with_what_is_left() -> None:
    loop = Loop(campaign(pacing=EVEN), supply=50)
    loop.run(DAY - 10_000)
    assert all(d.rate_when_stale <= d.rate for d in loop.decisions)
    assert any(d.rate_when_stale < d.rate for d in loop.decisions[-360:])
    assert loop.decisions[12 * 360].rate_when_stale == loop.decisions[12 * 360].rate


def test_before_and_behind_its_flight_a_campaign_rests() -> None:
    loop = Loop(campaign(flight_start_ms=MONDAY + HOUR, flight_end_ms=MONDAY + 3 * HOUR, pacing=EVEN), supply=200)
    assert loop.run(50 * MINUTE).reason is RateReason.NOT_STARTED
    assert set(loop.rates) == {0.0}
    running = loop.run(HOUR)
    assert (running.period_start_ms, running.period_end_ms) == (MONDAY + HOUR, MONDAY + 3 * HOUR)
    over = loop.run(2 * HOUR)
    assert (over.rate, over.reason) == (0.0, RateReason.ENDED)
    assert 0.98 <= over.spend.valid / (100_000 * UNIT) <= 1.0


def test_an_optimised_campaign_learns_until_it_has_its_conversions() -> None:
    billing = Billing(model=BillingModel.OCPM, price_micros=UNIT, target_cost_micros=UNIT, learning_conversions=3)
    loop = Loop(campaign(billing=billing))
    assert loop.step().is_learning
    loop.pacer.add(loop.settings, spent(MONDAY, 0, conversions=3))
    assert not loop.step().is_learning
    assert not Loop(campaign()).step().is_learning


def test_a_live_session_spends_as_soon_as_possible_and_rests_between() -> None:
    loop = Loop(campaign(daily=None, session=50, pacing=LIVE), supply=200)
    assert loop.run(HOUR).reason is RateReason.NOT_STARTED
    loop.more = {"session": live(MONDAY + HOUR, MONDAY + 3 * HOUR)}
    running = loop.run(10 * MINUTE)
    assert running.period_kind == "live_session"
    assert running.rate == 1.0
    assert loop.run(110 * MINUTE - 10_000).reason is RateReason.EXHAUSTED
    loop.more = {"session": live(MONDAY + HOUR, MONDAY + 3 * HOUR, is_over=True)}
    assert loop.run(HOUR).reason is RateReason.ENDED
    again = live(loop.now, loop.now + HOUR, name="live-2")
    loop.more = {"session": again}
    fresh = loop.step()
    assert (fresh.spend.gross, fresh.plan_micros) == (0, 50 * UNIT)


def test_a_session_that_outlasts_its_plan_goes_on() -> None:
    loop = Loop(campaign(daily=None, session=50, pacing=Pacing(mode=PacingMode.EVEN, period=PacingPeriod.LIVE_SESSION)))
    loop.more = {"session": live(MONDAY, MONDAY + HOUR)}
    loop.run(HOUR - 10_000)
    decision = loop.run(MINUTE)
    assert decision.period_end_ms == MONDAY + 90 * MINUTE
    assert decision.rate > 0


def test_a_session_is_shaped_by_the_hosts_earlier_ones() -> None:
    """Ten times the traffic in the first ten minutes of an hour."""
    shaped = Pacing(mode=PacingMode.TRAFFIC_SHAPED, period=PacingPeriod.LIVE_SESSION)
    loop = Loop(campaign(daily=None, session=5, pacing=shaped))
    loop.supply = lambda at_ms: 200 if at_ms % (2 * HOUR) < 10 * MINUTE else 20
    for number in range(3):
        begin = loop.now
        loop.more = {"session": live(begin, begin + HOUR, name=f"live-{number}")}
        loop.run(HOUR)
        loop.more = {"session": live(begin, begin + HOUR, is_over=True, name=f"live-{number}")}
        loop.run(HOUR)
    sessions = [d for d in loop.decisions if d.period_start_ms == MONDAY + 4 * HOUR and d.plan_micros]
    assert sessions[59].target_micros > 1.7 * 5 * UNIT / 6
    assert sessions[-1].spend.valid // 1_000 > 4.8 * UNIT
