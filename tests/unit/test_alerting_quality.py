"""What a campaign's money brings: against its own hours, with enough volume, at equal age; and invalid traffic."""

import msgspec
import pytest

from streams.events import Input
from streams.signals import AlertState, Audience
from streams.stages.alerting.facts import InvalidCounts
from streams.stages.pacing.facts import Added
from streams.terms import Alerting, Billing, BillingModel
from tests.unit.given import HOUR, MINUTE
from tests.unit.watched import UNIT, K, Watched, decision_of, kinds, learned, settings_of


def test_a_click_through_rate_that_halves_is_told_once_and_resolves() -> None:
    watched = learned()
    told = [alert for _ in range(5) for alert in watched.hour(120, 24)]
    assert kinds(told) == [K.CTR_ANOMALY]
    assert told[0].seen == pytest.approx(0.012, rel=0.1)
    assert told[0].expected == pytest.approx(0.03, rel=0.1)
    told = [alert for _ in range(5) for alert in watched.hour(300, 60)]
    assert [(a.kind, a.state) for a in told] == [(K.CTR_ANOMALY, AlertState.RESOLVED)]


def test_what_has_been_told_is_no_evidence_of_another_occurrence() -> None:
    watched = learned()
    told = [alert for _ in range(12) for alert in watched.hour(30, 6)]
    told += [alert for _ in range(15) for alert in watched.hour(300, 60)]
    told += [alert for _ in range(2) for alert in watched.hour(240, 48)]  # not calm, and no news
    assert [(a.kind, a.state) for a in told] == [
        (K.CTR_ANOMALY, AlertState.FIRING),
        (K.CTR_ANOMALY, AlertState.RESOLVED),
    ]
    assert kinds([alert for _ in range(8) for alert in watched.hour(30, 6)]) == [K.CTR_ANOMALY]


def test_a_click_through_rate_off_by_a_fifth_is_not_told() -> None:
    watched = learned()
    assert [alert for _ in range(24) for alert in watched.hour(246, 60)] == []


def test_too_few_clicks_are_no_basis() -> None:
    watched = Watched()
    for _ in range(21 * 24):
        watched.hour(6, 0, impressions=600)
    assert [alert for _ in range(8) for alert in watched.hour(0, 0, impressions=600)] == []


def test_a_conversion_rate_is_compared_at_equal_age() -> None:
    """Conversions as they come fall to nothing at once here, of this hour's clicks as many convert as ever."""
    watched = learned(settings_of(alerts=Alerting(off=(K.CONVERSIONS_COLLAPSED,))))
    assert [alert for _ in range(10) for alert in watched.hour(300, 0, early=60)] == []


def test_clicks_that_convert_less_are_told_when_their_hour_is_an_hour_old() -> None:
    watched = learned()
    began = watched.now_ms
    told = [alert for _ in range(8) for alert in watched.hour(300, 60, early=18)]
    assert kinds(told) == [K.CVR_ANOMALY]
    assert told[0].changed_ms >= began + 2 * HOUR
    assert told[0].unit == "ratio"


def test_conversions_that_collapse_at_flat_spend_are_one_alert() -> None:
    watched = learned()
    told = [alert for _ in range(10) for alert in watched.hour(300, 0)]
    assert kinds(told) == [K.CONVERSIONS_COLLAPSED]


def test_an_hour_of_few_conversions_is_no_collapse_yet() -> None:
    """A quarter of the usual in one hour: chance may have made it of a half."""
    watched = learned()
    told = watched.hour(300, 14, early=60)
    told += [alert for _ in range(6) for alert in watched.hour(300, 60)]
    assert kinds(told) == []


def test_conversions_that_vanish_with_the_spend_are_no_collapse() -> None:
    watched = learned()
    told = [alert for _ in range(10) for alert in watched.hour(30, 0, impressions=1_000)]
    assert K.CONVERSIONS_COLLAPSED not in kinds(told)


COSTLY = Billing(model=BillingModel.CPC, price_micros=UNIT, target_cost_micros=5 * UNIT)


@pytest.mark.parametrize(("early", "is_told"), [(24, True), (42, False)])
def test_a_cost_far_over_target_is_told_and_pushed(early: int, is_told: bool) -> None:
    watched = learned(settings_of(billing=COSTLY, alerts=Alerting(off=(K.CVR_ANOMALY, K.CPA_ANOMALY))))
    told = [alert for _ in range(12) for alert in watched.hour(300, early, early=early)]
    assert [(a.kind, a.is_pushed) for a in told] == ([(K.COST_OVERRUN, True)] if is_told else [])
    if is_told:
        assert told[0].expected == 5 * UNIT
        assert told[0].seen == pytest.approx(12.5 * UNIT, rel=0.1)


def test_a_campaign_that_pays_by_conversion_has_no_cost_to_be_judged() -> None:
    """Its spend comes with late conversions: here it goes on for hours in which few clicks come, and fewer convert."""
    watched, told = learned(settings_of(billing=Billing(model=BillingModel.CPA, price_micros=5 * UNIT))), []
    for _ in range(10):
        for _ in range(6):
            watched.alerts.add(Added(watched.now_ms, 1_666, 0, 50, 0, 50 * UNIT * 1_000))
            watched.now_ms += 10 * MINUTE
            told += watched.look()
    assert kinds(told) == [K.CVR_ANOMALY]


def test_a_cost_far_over_target_is_told_of_few_conversions() -> None:
    """3 conversions an hour, where 12 would be on target."""
    settings = settings_of(billing=msgspec.structs.replace(COSTLY, target_cost_micros=3 * UNIT))
    watched, told = Watched(settings), []
    for _ in range(21 * 24):
        assert watched.hour(36, 12) == []
    for _ in range(9):
        for part in range(6):
            watched.add(1_666, 6, part % 2, early=6 * (part % 2))
            watched.now_ms += 10 * MINUTE
            told += watched.look()
    assert K.COST_OVERRUN in kinds(told)


def test_a_cost_that_is_told_does_not_hide_why() -> None:
    watched = learned()
    watched.settings = settings_of(billing=msgspec.structs.replace(COSTLY, target_cost_micros=2 * UNIT))
    assert kinds([alert for _ in range(6) for alert in watched.hour(300, 60)]) == [K.COST_OVERRUN]
    assert kinds([alert for _ in range(8) for alert in watched.hour(300, 60, early=18)]) == [K.CVR_ANOMALY]


def test_a_learning_campaign_is_not_judged_by_its_conversions() -> None:
    optimised = settings_of(
        billing=Billing(
            model=BillingModel.OCPC,
            price_micros=UNIT,
            target_cost_micros=5 * UNIT,
            learning_conversions=10_000,
        ),
        goal="order",
    )
    watched = Watched(optimised)
    for _ in range(21 * 24):  # at most 10,000 conversions altogether
        watched.hour(300, 12)
    assert [alert for _ in range(12) for alert in watched.hour(30, 0)] == []


def test_a_young_campaign_has_no_baseline_to_be_judged_by() -> None:
    watched = learned(days=2)
    assert [alert for _ in range(12) for alert in watched.hour(60, 6)] == []


def test_a_campaign_of_one_week_is_compared_with_the_same_hour_of_other_days() -> None:
    watched = learned(days=6)
    told = [alert for _ in range(8) for alert in watched.hour(96, 24)]
    assert kinds(told) == [K.CTR_ANOMALY]
    assert "last days" in told[0].text.en
    assert "最近几天" in told[0].text.zh


def test_hours_with_something_unknown_are_neither_judged_nor_learned() -> None:
    watched = learned()
    for _ in range(5):
        for _ in range(6):
            watched.add(1_666, 0, 0)
            watched.now_ms += 10 * MINUTE
            assert watched.look(unknown=frozenset({Input.CLICKS})) == []
    assert [alert for _ in range(3) for alert in watched.hour(300, 60)] == []


@pytest.mark.parametrize(("invalid", "is_told"), [(300, True), (210, False)])
def test_a_share_of_invalid_traffic_over_its_limit_goes_to_operations(invalid: int, is_told: bool) -> None:
    watched = Watched()
    watched.run(10, decision_of(spend=0.4, target=0.4), invalid=InvalidCounts((invalid, 1_000), (0, 0)))
    assert [(a.kind, a.audience) for a in watched.told] == (
        [(K.INVALID_TRAFFIC, Audience.OPERATIONS)] if is_told else []
    )
