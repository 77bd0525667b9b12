"""Plans, and what a period may spend."""

from itertools import pairwise

import pytest

from streams.stages.pacing.amounts import block_of
from streams.stages.pacing.plan import make_plan, split, unpack_plan
from streams.terms import PPM, OverDelivery, Pacing, PacingMode
from tests.unit.pacing_world import DAY, HOUR, MINUTE, MONDAY, UNIT, Loop, at, campaign, spent

EVEN = Pacing(mode=PacingMode.EVEN)


def over(multiplier: float, days: int = 7, **more) -> Pacing:
    return Pacing(
        mode=PacingMode.EVEN,
        over_delivery=OverDelivery(daily_multiplier_ppm=int(multiplier * PPM), period_days=days, **more),
    )


def test_a_split_sums_to_its_total_and_follows_the_weights() -> None:
    assert split(100, [1, 1, 1]) == [33, 34, 33]
    assert split(7, [0, 0]) == [4, 3]
    assert split(10, [3, 0, 1]) == [8, 0, 2]


def test_an_even_plan_is_linear_in_time_between_any_bounds() -> None:
    bounds = [0, 10 * MINUTE, HOUR]
    plan = make_plan(PacingMode.EVEN, 0, HOUR, 0, 3_600, (bounds, [99.0, 1.0]))
    assert [plan.target_at(at_ms) for at_ms in (-5, 0, HOUR // 2, HOUR, 2 * HOUR)] == [0, 0, 1_800, 3_600, 3_600]
    assert sum(plan.parts) == 3_600


def test_a_shaped_plan_follows_the_expected_traffic() -> None:
    plan = make_plan(PacingMode.TRAFFIC_SHAPED, 0, 2 * HOUR, 100, 1_100, ([0, HOUR, 2 * HOUR], [1.0, 3.0]))
    assert plan.parts == (250, 750)
    assert plan.target_at(HOUR) == 350
    assert unpack_plan(plan.pack()) == plan


def test_as_soon_as_possible_wants_everything_at_once() -> None:
    plan = make_plan(PacingMode.AS_SOON_AS_POSSIBLE, 50, HOUR, 10, 1_000, ([50, HOUR], [1.0]))
    assert plan.target_at(50) == 1_000


def test_a_change_in_midday_plans_the_rest_from_what_was_spent_and_keeps_the_past() -> None:
    loop = Loop(campaign(pacing=EVEN), supply=100)
    loop.run(12 * HOUR)
    before = loop.decisions[-1]
    loop.change(campaign(daily=200, pacing=EVEN))
    after = loop.step()
    assert before.plan_micros == 100 * UNIT
    assert after.plan_micros == 200 * UNIT
    assert abs(after.target_micros - after.spend.valid // 1_000) < 0.01 * UNIT
    assert after.period_start_ms == before.period_start_ms
    end = loop.run(12 * HOUR - 2 * 10_000)
    assert 0.98 <= end.spend.valid / (200_000 * UNIT) <= 1.0
    quarter = loop.decisions[18 * 360]
    rest = 200 - before.spend.valid / (1_000 * UNIT)
    assert quarter.target_micros / UNIT == pytest.approx(200 - rest / 2, rel=0.01)


def test_a_budget_lowered_below_what_was_spent_stops_and_credits_nothing() -> None:
    loop = Loop(campaign(pacing=EVEN), supply=100)
    loop.run(12 * HOUR)
    loop.change(campaign(daily=30, pacing=EVEN))
    decision = loop.step()
    assert decision.rate == 0.0
    assert decision.excess_credit_millimicros == 0
    assert decision.spend.valid > 40_000 * UNIT


def test_a_flights_total_caps_its_last_day() -> None:
    settings = campaign(daily=100, total=150, pacing=EVEN)
    loop = Loop(settings, supply=100)
    loop.run(DAY + HOUR)
    decision = loop.decisions[-1]
    left = 150 * UNIT - loop.pacer.ledger.money_of_day(MONDAY).valid // 1_000
    assert decision.plan_micros == decision.budget_micros == left
    loop.run(22 * HOUR + 50 * MINUTE)
    assert loop.pacer.ledger.flight[0] <= 150_000 * UNIT


def test_a_total_alone_is_spread_over_the_days_that_are_left() -> None:
    settings = campaign(daily=None, total=300, flight_start_ms=MONDAY, flight_end_ms=MONDAY + 3 * DAY, pacing=EVEN)
    loop = Loop(settings, supply=100)
    decision = loop.step()
    assert (decision.period_kind, decision.plan_micros) == ("day", 100 * UNIT)
    loop.run(DAY)
    left = 300 * UNIT - loop.pacer.ledger.money_of_day(MONDAY).valid // 1_000
    assert loop.decisions[-1].plan_micros == pytest.approx(left / 2, rel=0.001)


def test_a_total_without_an_end_only_caps() -> None:
    loop = Loop(campaign(daily=None, total=10), supply=100)
    decision = loop.run(3 * HOUR)
    assert decision.period_kind == "flight"
    assert decision.reason == "exhausted"
    assert 9.9 <= decision.spend.valid / (1_000 * UNIT) <= 10
    assert any(d.forecast is not None and d.forecast.exhausts_at_ms for d in loop.decisions)
    loop.run(DAY)
    assert loop.rates[-1] == 0.0


def test_an_over_delivering_day_makes_up_for_an_earlier_one_as_far_as_the_block_allows() -> None:
    settings = campaign(daily=50, pacing=over(1.5))
    loop = Loop(settings, supply=lambda at_ms: 1.0 if at_ms < MONDAY + DAY else 60)
    loop.run(DAY)
    monday = loop.pacer.ledger.money_of_day(MONDAY).valid
    assert monday < 25_000 * UNIT
    decision = loop.run(DAY - MINUTE)
    assert decision.plan_micros == 50 * UNIT
    assert decision.budget_micros == 75 * UNIT
    assert 73 <= decision.spend.valid / (1_000 * UNIT) <= 75


def test_a_day_cannot_exceed_what_is_left_of_the_blocks_cap() -> None:
    settings = campaign(daily=50, pacing=over(2, days=2))
    loop = Loop(settings, start_ms=at("2026-03-02T00:00:00+00:00"), supply=100)
    loop.step()
    loop.pacer.add(settings, spent(MONDAY + HOUR, 80 * UNIT))
    loop.now = MONDAY + DAY
    decision = loop.step()
    earlier, left = block_of(MONDAY + DAY, "UTC", 2, None)
    expected = (20 if left == 1 else 100) * UNIT
    assert (len(earlier), decision.budget_micros) == (2 - left, expected)


@pytest.mark.parametrize(("credits", "expected"), [(True, 30), (False, 0)])
def test_what_exceeds_the_policy_is_credited_where_it_says_so(credits: bool, expected: int) -> None:
    settings = campaign(daily=50, pacing=over(1.2, credits_excess=credits))
    loop = Loop(settings, supply=0)
    loop.step()
    loop.pacer.add(settings, spent(MONDAY, 90 * UNIT))
    assert loop.step().excess_credit_millimicros == expected * 1_000 * UNIT
    loop.now = MONDAY + DAY
    assert loop.step().excess_credit_millimicros == expected * 1_000 * UNIT
    assert loop.decisions[-2].spend.gross == 90_000 * UNIT


def test_blocks_are_weeks_from_monday_or_begin_with_the_flight() -> None:
    wednesday = MONDAY + 2 * DAY
    assert block_of(wednesday, "UTC", 7, None) == ((MONDAY + DAY, MONDAY), 5)
    assert block_of(wednesday, "UTC", 7, MONDAY + DAY + 5 * HOUR) == ((MONDAY + DAY,), 6)
    berlin = block_of(at("2026-03-30T00:00:00+02:00"), "Europe/Berlin", 30, at("2026-03-27T12:00:00+01:00"))[0]
    assert [one - other for one, other in pairwise(berlin)] == [24 * HOUR, 24 * HOUR]
    assert at("2026-03-30T00:00:00+02:00") - berlin[0] == 23 * HOUR
