"""Alerts about budgets that are shared, raised or exceeded: what is told is true, and told once."""

from typing import Any

import msgspec
import pytest

from streams.signals import AlertState, Allowance, PoolKind
from streams.stages.alerting.campaign import CampaignAlerts
from streams.stages.pacing.facts import Forecast
from streams.terms import AlertKind, Budget
from tests.unit.given import HOUR, MINUTE
from tests.unit.watched import (
    BUDGET,
    MONDAY,
    UNIT,
    K,
    Watched,
    allowance,
    decision_of,
    kinds,
    settings_of,
)

# Shared budgets

SHARED = Budget(shared_budget_id="b-1")


@pytest.mark.parametrize(
    "changes",
    [
        {"spend": 1.0, "target": 1.0, "exhausted_at_ms": MONDAY + 12 * HOUR},
        {"spend": 0.95, "target": 0.95},
        {"spend": 0.6, "target": 0.3},
        {"spend": 0.1, "target": 0.5},
        {"spend": 0.5, "target": 0.5, "forecast": Forecast(int(0.6 * BUDGET), 0, int(0.7 * BUDGET), None)},
    ],
    ids=["exhausted", "ladder", "over", "under", "forecast"],
)
@pytest.mark.parametrize("budget", [SHARED, Budget(daily_micros=BUDGET, shared_budget_id="b-1")])
def test_what_a_shared_budget_allots_is_no_budget_of_the_campaign(budget: Budget, changes: dict[str, Any]) -> None:
    watched = Watched(settings_of(budget=budget))
    watched.now_ms = now = MONDAY + 13 * HOUR
    some = allowance(left=5_000, pool=PoolKind.SHARED_BUDGET, pool_id="b-1")
    watched.run(90, decision_of(now_ms=now, **changes), allowances=(some,))
    assert (watched.told == []) == (budget == SHARED)


def test_alerts_about_an_own_budget_end_where_only_a_shared_one_is_left() -> None:
    watched = Watched()
    same = decision_of(spend=0.6, target=0.3)
    watched.run(30, same)
    assert kinds(watched.told) == [K.BUDGET_LADDER, K.OVER_DELIVERY]
    watched.settings = settings_of(budget=SHARED)
    watched.run(30, same)
    assert kinds(watched.told, AlertState.RESOLVED) == [K.BUDGET_LADDER, K.OVER_DELIVERY]


@pytest.mark.parametrize(
    ("left", "rate", "is_told"),
    [(0, 0.5, True), (15, 0.0, True), (15, 0.5, False), (25, 0.0, False), (500, 0.0, False)],
)
def test_a_shared_budget_is_spent_where_crumbs_are_left_and_the_campaign_stands_still(
    left: int, rate: float, is_told: bool
) -> None:
    watched = Watched(settings_of(budget=SHARED))
    pool = crumbs(left)
    watched.run(5, decision_of(spend=1.0, rate=rate, exhausted_at_ms=MONDAY), allowances=(pool,))
    assert [(a.kind, a.cause) for a in watched.told] == ([(K.EXHAUSTED, "shared:b-1")] if is_told else [])


def test_a_campaign_that_has_spent_its_own_budget_does_not_stand_still_for_crumbs() -> None:
    watched = Watched(settings_of(budget=Budget(daily_micros=BUDGET, shared_budget_id="b-1")))
    watched.run(5, decision_of(spend=1.0, rate=0.0, exhausted_at_ms=MONDAY), allowances=(crumbs(15),))
    assert "shared:b-1" not in {alert.cause for alert in watched.told}


def test_crumbs_that_come_and_go_are_told_once_and_resolve_when_there_is_something_to_spend() -> None:
    watched = Watched(settings_of(budget=SHARED))
    for left, rate in ((15, 0.0), (30, 0.2), (15, 0.0), (30, 0.2)):
        watched.run(5, decision_of(spend=1.0, rate=rate), allowances=(crumbs(left),))
    assert [alert.state for alert in watched.told] == [AlertState.FIRING]
    watched.run(5, decision_of(spend=1.0, rate=0.2), allowances=(crumbs(500),))
    assert [alert.state for alert in watched.told] == [AlertState.FIRING, AlertState.RESOLVED]


def crumbs(left: int) -> Allowance:
    """Of a shared budget of a thousand."""
    plain = allowance(left=left, pool=PoolKind.SHARED_BUDGET, pool_id="b-1")
    return msgspec.structs.replace(plain, pool_micros=1_000 * UNIT)


# The ladder of a budget that is changed


def climbed(*looks: tuple[float, float]) -> list[tuple[AlertState, float | None]]:
    """What the ladder tells, looked at with these shares of `BUDGET` as spend and as budget."""
    watched, told = Watched(), []
    for spend, budget in looks:
        micros = int(budget * BUDGET)
        watched.now_ms += MINUTE
        told += watched.look(decision_of(spend, spend, plan_micros=micros, budget_micros=micros))
    return [(alert.state, alert.expected) for alert in told if alert.kind is K.BUDGET_LADDER]


F, R = AlertState.FIRING, AlertState.RESOLVED


def test_a_raised_budget_begins_its_ladder_anew_and_ends_what_fires() -> None:
    told = climbed((0.92, 1), (0.92, 2), (1.1, 2), (1.6, 2), (2.0, 2))
    assert told == [(F, 90), (R, 90), (F, 50), (R, 50), (F, 75), (R, 75), (F, 100)]


def test_a_step_that_the_raised_budget_has_reached_is_told_in_place_of_the_former() -> None:
    assert climbed((0.92, 1), (0.92, 1.5), (0.92, 1.5)) == [(F, 90), (R, 90), (F, 50)]


def test_the_same_step_of_a_larger_budget_is_another_occurrence() -> None:
    assert climbed((0.55, 1), (0.55, 1.5), (0.8, 1.5)) == [(F, 50), (R, 50), (F, 50)]


def test_a_raise_that_leaves_the_told_step_reached_tells_nothing() -> None:
    assert climbed((0.7, 1), (0.7, 1.2), (0.7, 1.39)) == [(F, 50)]


def test_a_budget_that_is_raised_little_by_little_tells_no_step_twice() -> None:
    budgets = [1 + 0.006 * step for step in range(1, 8)]
    looks = [(budget / 2 + off, budget) for budget in budgets for off in (-0.001, 0.001)]
    assert [told for told in climbed((0.5, 1), *looks) if told[0] is F] == [(F, 50)]


def test_a_credit_or_a_lowered_budget_begins_no_ladder_anew() -> None:
    assert climbed((0.92, 1), (0.6, 1), (0.92, 1)) == [(F, 90)]
    assert climbed((0.55, 1), (0.55, 0.6), (0.58, 0.6), (0.59, 0.59)) == [(F, 50), (R, 50), (F, 90), (R, 90), (F, 100)]


def test_what_is_remembered_of_the_ladder_survives_a_restart() -> None:
    watched = Watched()
    told = watched.look(decision_of(0.92, 0.92))
    kept = msgspec.msgpack.decode(msgspec.msgpack.encode(watched.alerts.snapshot()))
    watched.alerts = CampaignAlerts("c1")
    watched.alerts.restore(kept)
    told += watched.look(decision_of(0.93, 0.93))
    told += watched.look(decision_of(0.93, 0.93, plan_micros=int(1.5 * BUDGET)))
    assert [alert.expected for alert in told if alert.state is F] == [90, 50]


# What is said of an exhausted budget


@pytest.mark.parametrize(("hours", "kind"), [(12, K.EXHAUSTED_EARLY), (21, K.EXHAUSTED)])
def test_a_day_that_goes_beyond_its_budget_names_the_budget_and_what_was_spent(hours: int, kind: AlertKind) -> None:
    watched = Watched()
    watched.now_ms = at = MONDAY + hours * HOUR
    twice = decision_of(2.0, 2.0, now_ms=at, budget_micros=2 * BUDGET, exhausted_at_ms=at)
    told = [alert for alert in watched.look(twice) if alert.kind is kind]
    assert [(alert.seen, alert.expected) for alert in told] == [(2.0 * BUDGET, BUDGET)]
    assert "its budget for today, $1,000, and as much beyond it as a day may: $2,000 by" in told[0].text.en
    assert "预算$1,000" in told[0].text.zh
    assert "共消耗$2,000" in told[0].text.zh


@pytest.mark.parametrize("period", ["day", "flight", "live_session"])
def test_a_budget_that_nothing_goes_beyond_is_named_alone(period: str) -> None:
    watched = Watched()
    watched.now_ms = at = MONDAY + 12 * HOUR
    alert = watched.look(decision_of(1.0, now_ms=at, period_kind=period, exhausted_at_ms=at))[0]
    assert alert.expected == BUDGET
    assert alert.text.en.count("$") == alert.text.zh.count("$") == 1


@pytest.mark.parametrize(("hours", "kind"), [(12, K.EXHAUSTED_EARLY), (21, K.EXHAUSTED)])
def test_a_live_session_that_the_days_budget_stops_is_told_the_days_budget(hours: int, kind: AlertKind) -> None:
    """Past midnight, too, where the session may reach what it spent before and today's budget."""
    watched = Watched(settings_of(budget=Budget(daily_micros=BUDGET // 2, session_micros=5 * BUDGET)))
    watched.now_ms = at = MONDAY + hours * HOUR
    told = watched.look(decision_of(1.0, 1.0, now_ms=at, period_kind="live_session", exhausted_at_ms=at))
    (alert,) = [alert for alert in told if alert.kind is kind]
    assert "its budget for today, $500.00, at" in alert.text.en
    assert "live session" in alert.text.en
    assert "今天的预算$500.00" in alert.text.zh
    assert "直播" in alert.text.zh


def test_the_end_of_an_exhaustion_names_whatever_may_have_brought_it() -> None:
    watched = Watched()
    watched.now_ms = at = MONDAY + 12 * HOUR
    watched.look(decision_of(0.4, 0.4, now_ms=at, exhausted_at_ms=at))
    (ended,) = watched.look(decision_of(0.4, 0.4, now_ms=at))
    assert "a new period has begun, the budget was raised, or spend was credited" in ended.text.en
    assert "新的预算周期已开始，预算已提高，或有消耗被退回" in ended.text.zh
