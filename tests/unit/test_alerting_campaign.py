"""A campaign's alerts: each kind fires when it should and not just below, and one cause is told once."""

import msgspec
import pytest

from streams.events import Input
from streams.signals import AlertState, PoolKind, RateReason
from streams.stages.alerting.campaign import CampaignAlerts
from streams.stages.pacing.facts import Added, Forecast
from streams.terms import Alerting, AlertKind, Billing, BillingModel
from tests.unit.given import DAY, HOUR, MINUTE
from tests.unit.watched import BUDGET, MONDAY, UNIT, K, Watched, allowance, decision_of, kinds, learned, settings_of

# Budget


def test_a_budget_that_runs_out_after_early_share_is_exhausted_not_early() -> None:
    watched = Watched()
    at = MONDAY + 20 * HOUR
    watched.now_ms = at
    (alert,) = watched.look(decision_of(spend=0.4, now_ms=at, exhausted_at_ms=at))[:1]
    assert (alert.kind, alert.began_ms, alert.is_pushed, alert.cause) == (K.EXHAUSTED, at, True, "campaign:c1")
    assert K.EXHAUSTED_EARLY not in kinds(watched.told)


def test_a_budget_that_runs_out_before_early_share_is_early_and_only_that() -> None:
    watched = Watched()
    watched.now_ms = at = MONDAY + 19 * HOUR
    watched.run(30, decision_of(spend=1.0, now_ms=at, exhausted_at_ms=at))
    assert kinds(watched.told) == [K.EXHAUSTED_EARLY, K.BUDGET_LADDER]


def test_a_budget_that_runs_out_in_the_last_half_hour_is_as_planned() -> None:
    watched = Watched()
    watched.now_ms = at = MONDAY + DAY - 20 * MINUTE
    watched.run(10, decision_of(spend=1.0, now_ms=at, exhausted_at_ms=at))
    assert kinds(watched.told) == [K.BUDGET_LADDER]


def test_exhaustion_resolves_unpushed_when_the_budget_is_raised_and_may_come_again() -> None:
    watched = Watched()
    watched.now_ms = at = MONDAY + 12 * HOUR
    watched.run(5, decision_of(spend=0.4, now_ms=at, exhausted_at_ms=at))
    (resolved,) = watched.run(1, decision_of(spend=0.4, now_ms=at))
    assert (resolved.state, resolved.is_pushed) == (AlertState.RESOLVED, False)
    later = watched.now_ms
    watched.run(5, decision_of(spend=0.4, now_ms=at, exhausted_at_ms=later))
    fired = [alert for alert in watched.told if alert.state is AlertState.FIRING]
    assert [alert.began_ms for alert in fired] == [at, later]
    assert len({alert.alert_id for alert in fired}) == 2


def test_a_shared_budget_that_is_empty_is_told_with_its_own_cause() -> None:
    watched = Watched()
    empty = allowance(left=0, pool=PoolKind.SHARED_BUDGET, pool_id="b-1")
    (alert,) = watched.run(5, decision_of(spend=0.4, reason=RateReason.ALLOWANCE), allowances=(empty,))
    assert (alert.kind, alert.cause) == (K.EXHAUSTED, "shared:b-1")


@pytest.mark.parametrize(("spend", "steps"), [(0.49, []), (0.5, [50]), (0.76, [75]), (0.9, [90]), (1.0, [100])])
def test_the_ladder_tells_the_highest_step_that_is_reached(spend: float, steps: list[int]) -> None:
    watched = Watched()
    watched.run(5, decision_of(spend=spend, target=spend))
    assert [alert.expected for alert in watched.told] == steps


def test_each_step_of_the_ladder_is_told_once_in_a_period_and_again_in_the_next() -> None:
    watched = Watched()
    for spend in (0.4, 0.55, 0.48, 0.56, 0.8, 0.7, 0.95):
        watched.run(2, decision_of(spend=spend, target=spend))
    assert [a.expected for a in watched.told if a.state is AlertState.FIRING] == [50, 75, 90]
    watched.now_ms = MONDAY + DAY
    watched.run(1, decision_of(spend=0.0, target=0.0, now_ms=watched.now_ms))
    watched.run(1, decision_of(spend=0.6, target=0.6, now_ms=watched.now_ms))
    assert [a.expected for a in watched.told if a.state is AlertState.FIRING] == [50, 75, 90, 50]


@pytest.mark.parametrize(
    ("spend", "target", "kind"),
    [(0.3, 0.41, K.UNDER_DELIVERY), (0.41, 0.3, K.OVER_DELIVERY), (0.3, 0.39, None), (0.39, 0.3, None)],
)
def test_spend_off_its_plan_by_more_than_a_tenth_is_told(spend: float, target: float, kind: AlertKind | None) -> None:
    watched = Watched()
    watched.run(60, decision_of(spend=spend, target=target))
    assert kinds(watched.told) == ([kind] if kind else [])


def test_off_plan_must_persist_before_it_is_told() -> None:
    watched = Watched()
    off, on = decision_of(spend=0.3, target=0.45), decision_of(spend=0.4, target=0.45)
    for _ in range(5):
        watched.run(25, off)
        watched.run(1, on)
    assert watched.told == []


@pytest.mark.parametrize(("in_flight", "is_told"), [(0.0, True), (0.04, True), (0.06, False)])
def test_a_campaign_whose_spend_is_under_way_does_not_under_deliver(in_flight: float, is_told: bool) -> None:
    watched = Watched()
    watched.run(60, decision_of(spend=0.3, target=0.45, in_flight_millimicros=int(in_flight * BUDGET) * 1_000))
    assert kinds(watched.told) == ([K.UNDER_DELIVERY] if is_told else [])


def test_under_delivery_resolves_only_below_half_of_its_threshold() -> None:
    watched = Watched()
    watched.run(40, decision_of(spend=0.3, target=0.45))
    watched.run(120, decision_of(spend=0.38, target=0.45))  # between both thresholds
    assert [alert.state for alert in watched.told] == [AlertState.FIRING]
    watched.run(40, decision_of(spend=0.42, target=0.45))
    assert [alert.state for alert in watched.told] == [AlertState.FIRING, AlertState.RESOLVED]
    assert watched.told[0].alert_id == watched.told[1].alert_id


def test_a_resolved_alert_cools_down_before_it_fires_again() -> None:
    watched = Watched()
    off, on = decision_of(spend=0.3, target=0.45), decision_of(spend=0.45, target=0.45)
    watched.run(40, off)
    watched.run(40, on)
    resolved = watched.now_ms
    watched.run(5 * 60, off)
    assert len(kinds(watched.told)) == 1
    watched.run(2 * 60, off)
    fired = [alert for alert in watched.told if alert.state is AlertState.FIRING]
    assert len(fired) == 2
    assert fired[1].changed_ms >= resolved + 5 * HOUR
    assert fired[0].alert_id != fired[1].alert_id


@pytest.mark.parametrize("reason", [RateReason.SLOW_START, RateReason.ALLOWANCE, RateReason.AS_SOON_AS_POSSIBLE])
def test_off_plan_is_no_news_where_there_is_no_plan_to_follow(reason: RateReason) -> None:
    watched = Watched()
    watched.run(90, decision_of(spend=0.2, target=0.45, reason=reason, forecast=None))
    assert watched.told == []


def test_a_few_expensive_conversions_are_no_distance_from_a_plan() -> None:
    dear = settings_of(billing=Billing(model=BillingModel.CPA, price_micros=100 * UNIT), goal="order")
    watched = Watched(dear)
    watched.run(90, decision_of(spend=0.3, target=0.45))
    assert watched.told == []


@pytest.mark.parametrize(("high", "is_told"), [(0.88, True), (0.92, False)])
def test_a_forecast_whose_upper_end_misses_the_budget_is_told(high: float, is_told: bool) -> None:
    watched = Watched()
    watched.now_ms = MONDAY + 6 * HOUR
    forecast = Forecast(int(0.8 * BUDGET), int(0.7 * BUDGET), int(high * BUDGET), None)
    watched.run(90, decision_of(spend=0.3, target=0.33, forecast=forecast))
    assert kinds(watched.told) == ([K.EXPECTED_UNDER_DELIVERY] if is_told else [])


def test_a_forecast_of_a_period_that_has_just_begun_is_not_told() -> None:
    watched = Watched()
    forecast = Forecast(int(0.5 * BUDGET), 0, int(0.6 * BUDGET), None)
    watched.run(110, decision_of(spend=0.0, target=0.0, forecast=forecast))
    assert watched.told == []


# One cause, one alert


def test_exhaustion_silences_what_follows_from_it() -> None:
    watched = Watched()
    watched.run(60, decision_of(spend=0.4, target=0.4))
    at = watched.now_ms
    forecast = Forecast(int(0.5 * BUDGET), 0, int(0.6 * BUDGET), None)
    watched.run(200, decision_of(spend=0.3, target=0.5, exhausted_at_ms=at, forecast=forecast), impressions=0)
    assert kinds(watched.told) == [K.EXHAUSTED_EARLY]


def test_a_stalled_campaign_is_not_told_to_under_deliver_as_well() -> None:
    watched = Watched()
    watched.run(60, decision_of(spend=0.4, target=0.4))
    watched.run(240, decision_of(spend=0.4, target=0.52), impressions=0)
    assert kinds(watched.told) == [K.STALLED]


def test_under_delivery_ends_a_forecast_of_it() -> None:
    watched = Watched()
    watched.now_ms = MONDAY + 6 * HOUR
    forecast = Forecast(int(0.5 * BUDGET), 0, int(0.6 * BUDGET), None)
    watched.run(90, decision_of(spend=0.4, target=0.6, forecast=forecast))
    assert kinds(watched.told) == [K.UNDER_DELIVERY]


# Unknown, history, flight, switches


@pytest.mark.parametrize("unknown", [Input.IMPRESSIONS, Input.CLICKS])
def test_unknown_inputs_keep_everything_as_it_is(unknown: Input) -> None:
    """Nothing new fires, and what fires is not resolved by absence."""
    watched = Watched()
    watched.run(40, decision_of(spend=0.3, target=0.45))
    assert kinds(watched.told) == [K.UNDER_DELIVERY]
    blind = {"unknown": frozenset({unknown})}
    later = watched.run(120, decision_of(spend=0.95, target=0.95, exhausted_at_ms=watched.now_ms), **blind)
    assert later == []


def test_an_input_that_no_rule_needs_inhibits_nothing() -> None:
    watched = Watched()
    watched.run(40, decision_of(spend=0.3, target=0.45), unknown=frozenset({Input.ENGAGEMENTS}))
    assert kinds(watched.told) == [K.UNDER_DELIVERY]


def test_history_is_learned_and_tells_nothing() -> None:
    watched = Watched()
    for _ in range(23 * 24):
        watched.add(10_000, 300, 60)
        watched.now_ms += HOUR
        assert watched.look(decision_of(spend=1.0, exhausted_at_ms=watched.now_ms), is_catching_up=True) == []
    told = [alert for _ in range(5) for alert in watched.hour(120, 24)]
    assert kinds(told) == [K.CTR_ANOMALY]


def test_what_is_still_so_when_the_present_is_reached_is_told() -> None:
    watched = Watched()
    same = decision_of(spend=0.4, target=0.4, exhausted_at_ms=MONDAY)
    watched.run(10, same, is_catching_up=True)
    watched.run(1, same)
    assert kinds(watched.told) == [K.EXHAUSTED_EARLY]


@pytest.mark.parametrize("bounds", [{"flight_end_ms": MONDAY}, {"flight_start_ms": MONDAY + DAY}])
def test_a_campaign_outside_its_flight_alerts_nothing(bounds: dict[str, int]) -> None:
    watched = Watched(settings_of(**bounds))
    watched.run(120, decision_of(spend=1.0, target=0.45, exhausted_at_ms=MONDAY), impressions=0)
    assert watched.told == []


def test_the_end_of_the_flight_closes_what_fires_without_a_push() -> None:
    watched = Watched(settings_of(flight_end_ms=MONDAY + HOUR))
    watched.run(70, decision_of(spend=0.4, target=0.4, exhausted_at_ms=MONDAY))
    assert [(a.state, a.is_pushed) for a in watched.told] == [(AlertState.FIRING, True), (AlertState.RESOLVED, False)]
    assert "not running" in watched.told[1].text.en


@pytest.mark.parametrize("reason", [RateReason.ENDED, RateReason.NOT_STARTED])
def test_between_live_sessions_nothing_is_told(reason: RateReason) -> None:
    watched = Watched()
    watched.run(60, decision_of(spend=0.4, target=0.4))
    watched.run(120, decision_of(spend=0.4, target=0.6, reason=reason, rate=0.0), impressions=0)
    assert watched.told == []


def test_a_kind_that_is_off_is_not_told_and_closed_where_it_fires() -> None:
    watched = Watched()
    watched.run(40, decision_of(spend=0.3, target=0.45))
    watched.settings = settings_of(alerts=Alerting(off=(K.UNDER_DELIVERY,)))
    told = watched.run(60, decision_of(spend=0.3, target=0.45))
    assert [(a.kind, a.state) for a in told] == [(K.UNDER_DELIVERY, AlertState.RESOLVED)]


def test_push_and_receivers_are_as_the_settings_say() -> None:
    alerting = Alerting(push=(K.UNDER_DELIVERY,), routes=("ops",), language="zh")
    watched = Watched(settings_of(alerts=alerting, name="Spring", agency_id="g1", account_id="acc-1"))
    watched.run(40, decision_of(spend=0.3, target=0.45))
    (alert,) = watched.told
    assert (alert.is_pushed, alert.routes, alert.language) == (True, ("ops",), "zh")
    assert (alert.campaign_id, alert.advertiser_id, alert.agency_id, alert.account_id) == ("c1", "a1", "g1", "acc-1")
    assert alert.decided_ms == alert.changed_ms + 1_000
    assert "Spring" in alert.text.en
    assert "Spring" in alert.text.zh


# What is kept is bounded


def test_recent_hours_are_bounded_whatever_comes() -> None:
    alerts = CampaignAlerts("c1")
    for hour in range(1_000):
        alerts.add(Added(MONDAY + hour * HOUR, 1, 0, 0, 0, 0))
    assert len(alerts.hours.recent) <= 40
    assert max(alerts.hours.recent) == MONDAY + 999 * HOUR


def test_a_snapshot_of_a_full_campaign_is_small() -> None:
    watched = learned(days=8)
    assert len(msgspec.msgpack.encode(watched.alerts.snapshot())) < 12_000


def test_pools_that_come_and_go_do_not_pile_up() -> None:
    watched = Watched()
    for pool in range(60):
        watched.run(12, decision_of(spend=0.4, target=0.4), allowances=(allowance(1.0, pool_id=f"p{pool:02}"),))
        watched.run(12, decision_of(spend=0.4, target=0.4), allowances=(allowance(9e6, pool_id=f"p{pool:02}"),))
    assert len(watched.alerts.snapshot()["lives"]) <= 33
