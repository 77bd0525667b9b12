"""A live session that passes midnight: each of its days has a daily budget of its own."""

from typing import Any

import pytest

from streams.signals import RateReason
from streams.stages.pacing.campaign import CampaignPacer
from streams.stages.pacing.shape import TrafficShape
from streams.terms import Pacing, PacingMode, PacingPeriod
from tests.unit.pacing_world import DAY, HOUR, MINUTE, MONDAY, UNIT, Loop, campaign, facts, live, spent

MIDNIGHT = MONDAY + DAY
EVENING = MIDNIGHT - HOUR
SESSION = live(EVENING, MIDNIGHT + 3 * HOUR)


def at_night(**changes: Any) -> Loop:
    """From 23:00 to 03:00."""
    pacing = Pacing(period=PacingPeriod.LIVE_SESSION, mode=changes.pop("mode", None))
    loop = Loop(campaign(pacing=pacing, **changes), EVENING, supply=400)
    loop.more = {"session": SESSION}
    return loop


def test_a_session_that_has_spent_its_first_day_goes_on_after_midnight() -> None:
    loop = at_night(daily=60, session=100)
    before = loop.run(59 * MINUTE)
    assert (before.rate, before.reason, before.budget_micros) == (0.0, RateReason.EXHAUSTED, 60 * UNIT)
    assert before.exhausted_at_ms is not None
    after = loop.run(2 * MINUTE)
    assert (after.budget_micros, after.exhausted_at_ms) == (100 * UNIT, None)
    assert after.rate > 0.0
    end = loop.run(HOUR)
    assert end.reason is RateReason.EXHAUSTED
    assert 99 <= end.spend.valid / (1_000 * UNIT) <= 100


def test_each_of_its_days_caps_it() -> None:
    loop = at_night(daily=30, session=100)
    loop.run(59 * MINUTE)
    loop.run(2 * HOUR)
    days = [loop.pacer.ledger.money_of_day(day).valid / (1_000 * UNIT) for day in (MONDAY, MIDNIGHT)]
    assert all(29.5 <= day <= 30 for day in days)


def test_the_rest_of_the_night_is_planned_anew() -> None:
    loop = at_night(daily=60, session=100, mode=PacingMode.EVEN)
    loop.run(59 * MINUTE)
    spent_by_then = loop.decisions[-1].spend.valid // 1_000
    after = loop.run(2 * MINUTE)
    assert 0 <= after.plan_micros - spent_by_then - 60 * UNIT < UNIT // 2  # but for what came in the last minute
    assert abs(after.target_micros - spent_by_then) < UNIT


def test_a_restart_at_midnight_changes_nothing() -> None:
    loop = at_night(daily=60, session=100)
    loop.run(59 * MINUTE + 50_000)
    twin = loop.twin()
    for each in (loop, twin):
        each.run(5 * MINUTE)
    assert twin.decisions == loop.decisions[-len(twin.decisions) :]


@pytest.mark.parametrize(
    ("spends", "cap"),
    [
        ([(EVENING, 60)], 100),  # of the session, before midnight
        ([(EVENING, 60), (EVENING - HOUR, 20)], 100),  # yesterday, outside of it
        ([(EVENING, 10), (MIDNIGHT, 5)], 70),
        ([(EVENING, 10), (MIDNIGHT + 10_000, 60)], 70),
    ],
)
def test_what_today_may_spend_comes_on_top_of_what_the_session_spent_before(
    spends: list[tuple[int, float]], cap: float
) -> None:
    loop = at_night(daily=60, session=100)
    for origin, amount in spends:
        loop.pacer.add(loop.settings, spent(origin, int(amount * UNIT)))
    loop.now = MIDNIGHT + MINUTE
    assert loop.look().budget_micros == cap * UNIT


def test_spend_of_yesterday_that_is_told_late_takes_nothing_from_today() -> None:
    pacer, shape, loop = CampaignPacer("c-1"), TrafficShape(), at_night(daily=60, session=200)
    told = {"session": SESSION}
    pacer.evaluate(loop.settings, facts(EVENING + MINUTE, **told), shape)
    pacer.add(loop.settings, spent(EVENING, 50 * UNIT))
    first = pacer.evaluate(loop.settings, facts(MIDNIGHT + MINUTE, **told), shape)
    assert first.budget_micros == 110 * UNIT
    pacer.add(loop.settings, spent(MIDNIGHT - 10_000, 5 * UNIT))
    later = pacer.evaluate(loop.settings, facts(MIDNIGHT + 2 * MINUTE, **told), shape)
    assert (later.budget_micros, later.spend.valid) == (115 * UNIT, 55_000 * UNIT)


def test_a_session_without_a_daily_budget_is_planned_once() -> None:
    loop = at_night(daily=None, session=100, mode=PacingMode.EVEN)
    loop.run(59 * MINUTE)
    before = loop.pacer.snapshot()["plan"]
    loop.run(2 * MINUTE)
    assert loop.pacer.snapshot()["plan"] == before
