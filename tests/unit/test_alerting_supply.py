"""A campaign that stands still, and a balance that runs low: told in time, and not of small or quiet campaigns."""

from typing import Any

import pytest

from streams.events import Input
from streams.signals import AlertState
from tests.unit.given import MINUTE
from tests.unit.watched import K, Watched, allowance, decision_of, kinds


def test_a_campaign_without_impressions_is_stalled_after_half_an_hour() -> None:
    watched = Watched()
    watched.run(60, decision_of(spend=0.4, target=0.4))
    last = watched.now_ms - MINUTE
    assert watched.run(28, decision_of(spend=0.4, target=0.4), impressions=0) == []
    (alert,) = watched.run(3, decision_of(spend=0.4, target=0.4), impressions=0)
    assert (alert.kind, alert.began_ms, alert.is_pushed) == (K.STALLED, last, True)
    assert (alert.seen, alert.expected, alert.unit) == (30 * MINUTE, 30 * MINUTE, "ms")


def test_impressions_that_come_again_resolve_a_stall() -> None:
    watched = Watched()
    same = decision_of(spend=0.4, target=0.4)
    watched.run(60, same)
    watched.run(40, same, impressions=0)
    (resolved,) = watched.run(5, same)
    assert (resolved.kind, resolved.state, resolved.is_pushed) == (K.STALLED, AlertState.RESOLVED, True)


def test_a_small_campaign_whose_impressions_come_rarely_is_not_stalled() -> None:
    watched = Watched()
    same = decision_of(spend=0.4, target=0.4)
    for _ in range(20):
        watched.run(1, same, impressions=1)
        watched.run(40, same, impressions=0)
    assert watched.told == []


@pytest.mark.parametrize(
    "facts",
    [
        {"partition_is_alive": False},
        {"unknown": frozenset({Input.IMPRESSIONS})},
        {"is_catching_up": True},
        {"decision": decision_of(spend=0.4, target=0.4, rate=0.0)},
    ],
    ids=["its partition is silent", "impressions are unknown", "catching up", "rate 0"],
)
def test_a_campaign_that_cannot_be_judged_is_not_stalled(facts: dict[str, Any]) -> None:
    watched = Watched()
    watched.run(60, decision_of(spend=0.4, target=0.4))
    watched.run(120, **{"decision": decision_of(spend=0.4, target=0.4), "impressions": 0, **facts})
    assert watched.told == []


def test_a_gap_is_not_counted_from_before_impressions_were_unknown() -> None:
    watched = Watched()
    same = decision_of(spend=0.4, target=0.4)
    watched.run(60, same)
    watched.run(29, same, impressions=0, unknown=frozenset({Input.IMPRESSIONS}))
    watched.run(29, same, impressions=0)
    assert watched.told == []
    watched.run(3, same, impressions=0)
    assert kinds(watched.told) == [K.STALLED]


@pytest.mark.parametrize(("left", "is_told"), [(235.0, True), (245.0, False), (0.0, True), (-5.0, True)])
def test_a_balance_is_low_when_it_lasts_less_than_a_day(left: float, is_told: bool) -> None:
    watched = Watched()
    watched.run(30, decision_of(spend=0.4, target=0.4), allowances=(allowance(left),))
    assert [(a.kind, a.cause, a.is_pushed) for a in watched.told] == (
        [(K.BALANCE_LOW, "account:acc-1", True)] if is_told else []
    )


def test_an_evening_of_high_spend_is_no_low_balance() -> None:
    watched = Watched()
    watched.run(600, decision_of(spend=0.4, target=0.4), allowances=(allowance(400.0, 10.0),))
    watched.run(180, decision_of(spend=0.4, target=0.4), allowances=(allowance(400.0, 25.0),))
    assert watched.told == []


def test_a_balance_resolves_when_it_is_topped_up_well_above_the_threshold() -> None:
    watched = Watched()
    same = decision_of(spend=0.4, target=0.4)
    watched.run(30, same, allowances=(allowance(200.0),))
    watched.run(60, same, allowances=(allowance(260.0),))
    assert [a.state for a in watched.told] == [AlertState.FIRING]
    watched.run(30, same, allowances=(allowance(400.0),))
    assert [a.state for a in watched.told] == [AlertState.FIRING, AlertState.RESOLVED]


def test_a_balance_is_not_low_because_rare_clicks_have_just_come() -> None:
    """Five clicks of a unit in 56 hours, two of them at once: 3 units last 34 hours, 1 lasts 11."""
    watched, same = Watched(), decision_of(spend=0.4, target=0.4)
    for hour in range(20 * 24):
        burn = 1.0 if hour % 14 == 0 or hour % 56 == 1 else 0.0
        watched.run(1, same, allowances=(allowance(3.0, burn),))
        watched.now_ms += 59 * MINUTE
    assert watched.told == []
    watched.run(30, same, allowances=(allowance(1.0, 0.0),))
    assert kinds(watched.told) == [K.BALANCE_LOW]
