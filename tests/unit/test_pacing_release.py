"""A campaign whose budget is taken away: its ad server is told so, once and for good, and its alerts end."""

from typing import Any

import pytest

from streams.events import Input
from streams.records import PACING_COLUMNS, Row, Table
from streams.signals import AlertState, PoolKind, RateReason
from streams.state.checkpoint import capture, restore
from streams.state.journal import Tick
from streams.state.partition import PartitionState
from streams.terms import AlertKind, Budget
from tests.unit.evening import BUDGET, Evening, rate_of
from tests.unit.given import DAY, HOUR, T0, quick_rules
from tests.unit.watched import BUDGET as WHOLE
from tests.unit.watched import K, Watched, allowance, decision_of, kinds, settings_of

TERMS: dict[str, Any] = {"billing": {"model": "cpm", "price_micros": 100_000_000}}
"""An impression costs a tenth of a unit."""


def spent_day() -> Evening:
    """Its budget is spent, and the ad server obeys; another campaign tells the time."""
    evening = Evening(**TERMS, budget={"daily_micros": 5_000_000}, pacing={"mode": "as_soon_as_possible"})
    evening.at_ms = T0 // DAY * DAY + 10 * HOUR
    while not evening.controls or rate_of(evening) > 0.0:
        evening.step(clicks=0)
    assert evening.controls[-1].reason is RateReason.EXHAUSTED
    for _ in range(3):
        evening.step(campaign="free")
    return evening


def run(evening: Evening, steps: int, **step: Any) -> list[Row]:
    """Rows of pacing."""
    given = {"campaign": "free", **step}
    return [row for _ in range(steps) for row in evening.step(**given).rows.get(Table.PACING, [])]


def test_the_last_control_opens_the_campaign_for_good_and_a_row_says_so() -> None:
    evening = spent_day()
    before = len(evening.controls)
    evening.settle("c1", **TERMS, budget={})
    rows = run(evening, 30)
    (last,) = evening.controls[before:]
    assert (last.rate, last.rate_when_stale, last.reason) == (1.0, 1.0, RateReason.UNPACED)
    assert (last.spend_micros, last.period_start_ms) == (evening.controls[before - 1].spend_micros, T0 // DAY * DAY)
    told = [dict(zip(PACING_COLUMNS, row, strict=False)) for row in rows]
    assert [(row["reason"], row["rate_ppm"], row["budget_micros"]) for row in told] == [("unpaced", 1_000_000, 0)]


def test_what_fires_about_the_budget_is_closed_and_nothing_is_pushed() -> None:
    evening = spent_day()
    assert {alert.kind for alert in evening.state.desk.firing.values()} == {K.EXHAUSTED_EARLY, K.BUDGET_LADDER}
    evening.settle("c1", **TERMS, budget={})
    run(evening, 2)
    assert evening.state.desk.firing == {}
    ended = [alert for alert in evening.alerts if alert.state is AlertState.RESOLVED and "no budget" in alert.text.en]
    assert {(alert.kind, alert.is_pushed) for alert in ended} == {(K.EXHAUSTED_EARLY, False), (K.BUDGET_LADDER, False)}
    assert all("不再设置预算" in alert.text.zh for alert in ended)


@pytest.mark.parametrize("steps", [0, 5])
def test_a_restart_neither_forgets_nor_repeats_it(steps: int) -> None:
    evening = spent_day()
    evening.settle("c1", **TERMS, budget={})
    run(evening, steps)
    again = PartitionState(0, 1, 0, quick_rules())
    restore(again, capture(evening.state, [], {}).changed)
    evening.fed.state = again
    run(evening, 10)
    assert [control.reason for control in evening.controls].count(RateReason.UNPACED) == 1


def test_behind_a_restart_it_is_told_as_without_one_also_where_spend_is_in_flight() -> None:
    """The first look of a new owner may be the one that lets go: it needs the terms by which clicks are waited for."""
    told = []
    for restarts in (False, True):
        evening = Evening(billing={"model": "cpc", "price_micros": 1_000_000}, budget={"daily_micros": 900_000_000})
        evening.at_ms = T0 // DAY * DAY + 10 * HOUR
        for _ in range(40):
            evening.step(clicks=2)
        assert evening.state.desk.held["c1"].decision.in_flight_millimicros > 0  # type: ignore[union-attr]
        evening.settle("c1", billing={"model": "cpc", "price_micros": 1_000_000}, budget={})
        if restarts:
            again = PartitionState(0, 1, 0, quick_rules())
            restore(again, capture(evening.state, [], {}).changed)
            evening.fed.state = again
        before = len(evening.controls)
        rows = run(evening, 5, clicks=0)
        told.append((evening.controls[before:], rows))
    assert told[0] == told[1]
    assert [control.reason for control in told[0][0]] == [RateReason.UNPACED]


def test_an_account_or_a_pool_still_limits_it() -> None:
    for left in ({"account_id": "acc-1", "budget": {}}, {"budget": {"shared_budget_id": "p1"}, "advertiser_id": "a1"}):
        evening = spent_day()
        evening.settle("c1", **TERMS, **left)
        run(evening, 5)
        assert RateReason.UNPACED not in {control.reason for control in evening.controls}


def test_who_never_had_a_budget_hears_nothing() -> None:
    evening = Evening(**TERMS, budget={})
    run(evening, 20, campaign="c1")
    assert evening.controls == []


def test_a_budget_that_comes_back_finds_what_was_spent_meanwhile() -> None:
    evening = spent_day()
    evening.settle("c1", **TERMS, budget={})
    run(evening, 10, campaign="c1", impressions=10)
    evening.settle("c1", **TERMS, budget={"daily_micros": 50_000_000}, pacing={"mode": "as_soon_as_possible"})
    run(evening, 2, campaign="c1", impressions=10)
    last = evening.controls[-1]
    assert last.reason is not RateReason.UNPACED
    assert last.spend_micros >= 15_000_000
    for _ in range(40):
        evening.step(clicks=0)
    assert evening.controls[-1].reason is RateReason.EXHAUSTED
    evening.settle("c1", **TERMS, budget={})
    run(evening, 3)
    assert [control.reason for control in evening.controls].count(RateReason.UNPACED) == 2


def test_it_is_told_though_nothing_is_heard_for_nothing_limits_it() -> None:
    evening = spent_day()
    run(evening, 30, impressions=0, clicks=1)
    evening.settle("c1", **TERMS, budget={})
    run(evening, 2, impressions=0, clicks=1)
    assert evening.controls[-1].reason is RateReason.UNPACED


def test_history_opens_nothing() -> None:
    """The version that holds then may be followed by another: it is told when the present is reached."""
    evening = spent_day()
    evening.settle("c1", **TERMS, budget={})
    state, before = evening.state, len(evening.controls)
    for _ in range(3):
        evening.at_ms += HOUR
        evening.take(state.tick(Tick("claim", state.seq + 1, evening.at_ms, state.positions(), is_catching_up=True)))
    assert evening.controls[before:] == []
    run(evening, 2)
    assert [control.reason for control in evening.controls[before:]] == [RateReason.UNPACED]


def test_a_silence_after_it_is_none_of_our_making() -> None:
    """Whoever is released is let through like any campaign without a budget, so its silence is unknown."""
    evening = Evening(**TERMS, budget={"daily_micros": 5_000_000}, pacing={"mode": "as_soon_as_possible"})
    evening.settle("c2", **{**BUDGET, **TERMS}, pacing={"mode": "as_soon_as_possible"})
    evening.at_ms = T0 // DAY * DAY + 10 * HOUR
    for campaign in ("c1", "c2") * 40:
        evening.step(campaign=campaign, clicks=0)
    evening.settle("c1", **TERMS, budget={})
    run(evening, 2, campaign="c2", impressions=1)
    run(evening, 200, impressions=0, clicks=1)
    assert not evening.state.desk._lull.is_on


# The alerts alone


@pytest.mark.parametrize("kind", [K.UNDER_DELIVERY, K.OVER_DELIVERY, K.EXHAUSTED_EARLY, K.BUDGET_LADDER])
def test_each_alert_about_a_budget_ends_with_it(kind: AlertKind) -> None:
    off = {
        K.UNDER_DELIVERY: decision_of(0.3, 0.45),
        K.OVER_DELIVERY: decision_of(0.45, 0.3),
        K.EXHAUSTED_EARLY: decision_of(0.4, 0.4, exhausted_at_ms=Watched().now_ms),
        K.BUDGET_LADDER: decision_of(0.6, 0.6),
    }[kind]
    watched = Watched()
    watched.run(40, off)
    assert kinds(watched.told) == [kind]
    watched.settings = settings_of(budget=Budget())
    assert [(a.kind, a.state) for a in watched.look(None)] == [(kind, AlertState.RESOLVED)]


def test_alerts_about_a_pool_or_about_traffic_are_left_alone() -> None:
    watched = Watched(settings_of(budget=Budget(), account_id="acc-1"))
    watched.run(20, None, allowances=(allowance(left=1.0),))
    empty = allowance(left=0, pool=PoolKind.SHARED_BUDGET, pool_id="b-1")
    watched.run(20, None, allowances=(allowance(left=1.0), empty))
    assert kinds(watched.told) == [K.BALANCE_LOW, K.EXHAUSTED]
    assert kinds(watched.told, AlertState.RESOLVED) == []
    watched.run(20, None, allowances=(allowance(left=1.0), empty), unknown=frozenset({Input.IMPRESSIONS}))
    assert kinds(watched.told, AlertState.RESOLVED) == []


@pytest.mark.parametrize("kind", [K.UNDER_DELIVERY, K.EXPECTED_UNDER_DELIVERY, K.BUDGET_LADDER])
def test_an_account_alone_has_no_budget_to_judge(kind: AlertKind) -> None:
    off = {
        K.UNDER_DELIVERY: decision_of(0.3, 0.45),
        K.EXPECTED_UNDER_DELIVERY: decision_of(0.4, 0.4, Watched().now_ms + 6 * HOUR),
        K.BUDGET_LADDER: decision_of(0.6, 0.6),
    }[kind]
    watched = Watched()
    watched.now_ms += 6 * HOUR
    if kind is K.EXPECTED_UNDER_DELIVERY:
        assert off.forecast is not None
        off = off._replace(forecast=off.forecast._replace(spend_micros=WHOLE // 2, high_micros=WHOLE // 2))
    watched.run(90, off)
    assert kinds(watched.told) == [kind]
    nothing = {"budget_micros": 0, "plan_micros": 0, "target_micros": 0, "reason": RateReason.ALLOWANCE}
    watched.run(90, off._replace(**nothing))
    assert kinds(watched.told, AlertState.RESOLVED) == [kind]
