"""The alert about invalid traffic: clicks and impressions are judged apart, and it says which of them it is about."""

import pytest

from streams.events import Input
from streams.signals import Alert, AlertState
from streams.stages.alerting.facts import InvalidCounts
from streams.state import pacing
from streams.state.windows import WINDOW_MEASURES
from tests.unit.given import MINUTE
from tests.unit.watched import K, Watched

FEW, MANY = (1_000, 1_500), (0, 100_000)
CALM = InvalidCounts(clicks=(15, 1_500), impressions=(1_000, 100_000))


def told(watched: Watched, minutes: int, clicks: tuple[int, int], impressions: tuple[int, int]) -> list[Alert]:
    return watched.run(minutes, invalid=InvalidCounts(clicks, impressions))


def test_invalid_clicks_do_not_vanish_among_good_impressions() -> None:
    watched = Watched()
    (alert,) = told(watched, 10, clicks=FEW, impressions=MANY)
    assert (alert.kind, alert.seen, alert.expected) == (K.INVALID_TRAFFIC, 1_000 / 1_500, 0.2)
    assert "67% of the clicks of campaign" in alert.text.en
    assert "1,000 of 1,500" in alert.text.en
    assert "的点击中有67%为无效流量（1,500次中有1,000次）" in alert.text.zh
    (ended,) = watched.run(20, invalid=CALM)
    assert (ended.alert_id, ended.state) == (alert.alert_id, AlertState.RESOLVED)
    assert "invalid clicks" in ended.text.en
    assert "无效点击" in ended.text.zh


@pytest.mark.parametrize(
    ("clicks", "impressions", "which"),
    [
        ((500, 1_500), (60_000, 100_000), "impressions"),
        ((1_200, 1_500), (60_000, 100_000), "clicks"),
        ((120, 150), (60_000, 100_000), "impressions"),
    ],
    ids=["impressions are worse", "clicks are worse", "too few clicks"],
)
def test_the_worse_of_both_is_told(clicks: tuple[int, int], impressions: tuple[int, int], which: str) -> None:
    (alert,) = told(Watched(), 10, clicks, impressions)
    assert f"of the {which} of campaign" in alert.text.en


@pytest.mark.parametrize(("clicks", "impressions"), [((149, 150), MANY), (MANY, (149, 150)), ((290, 1_500), MANY)])
def test_too_few_and_too_little_are_not_told(clicks: tuple[int, int], impressions: tuple[int, int]) -> None:
    assert told(Watched(), 30, clicks, impressions) == []


@pytest.mark.parametrize("clicks", [(270, 1_500), (100, 150)], ids=["between both limits", "too few to judge"])
def test_good_impressions_end_no_alert_about_clicks(clicks: tuple[int, int]) -> None:
    watched = Watched()
    told(watched, 10, FEW, MANY)
    assert told(watched, 120, clicks, MANY) == []


def test_doubtful_impressions_hold_no_alert_about_clicks() -> None:
    watched = Watched()
    told(watched, 10, FEW, MANY)
    (ended,) = told(watched, 20, (0, 1_500), (18_000, 100_000))
    assert ended.state is AlertState.RESOLVED


def test_an_alert_stays_while_the_other_is_over_the_limit() -> None:
    watched = Watched()
    told(watched, 10, FEW, MANY)
    assert told(watched, 120, (0, 1_500), (60_000, 100_000)) == []


def test_clicks_that_are_unknown_judge_nothing() -> None:
    watched = Watched()
    watched.now_ms += MINUTE
    assert watched.run(30, invalid=InvalidCounts(FEW, MANY), unknown=frozenset({Input.CLICKS})) == []


def test_an_hours_counts_are_those_of_each_measure() -> None:
    hour = {"impressions": 90_000, "gross_impressions": 100_000, "clicks": 500, "gross_clicks": 1_500}
    counted = pacing._invalid([hour.get(name, 0) for name in WINDOW_MEASURES])
    assert counted == InvalidCounts(clicks=(1_000, 1_500), impressions=(10_000, 100_000))
