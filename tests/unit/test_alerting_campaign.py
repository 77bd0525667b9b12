"""A campaign's alerts: each kind fires when it should and not just below, and one cause is told once."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from streams.campaigns import CampaignSettings
from streams.events import Input
from streams.signals import Alert, AlertState, Allowance, Audience, PoolKind, RateReason
from streams.stages.alerting.campaign import CampaignAlerts
from streams.stages.alerting.facts import AlertFacts, InvalidCounts
from streams.stages.pacing.facts import Added, Decision, Forecast, Money
from streams.terms import Alerting, AlertKind, Billing, BillingModel, Budget
from tests.unit.given import DAY, HOUR, MINUTE

UNIT = 1_000_000
BUDGET = 1_000 * UNIT
MONDAY = 1_700_438_400_000
"""2023-11-20 00:00:00 UTC."""
K = AlertKind


def settings_of(**changes: Any) -> CampaignSettings:
    billing = Billing(model=BillingModel.CPC, price_micros=UNIT)
    plain = CampaignSettings(
        campaign_id="c1", advertiser_id="a1", currency="USD", billing=billing, budget=Budget(daily_micros=BUDGET)
    )
    return msgspec.structs.replace(plain, **changes)


def decision_of(spend: float = 0.5, target: float = 0.5, now_ms: int = MONDAY, **changes: Any) -> Decision:
    """Shares of the budget."""
    day = now_ms - now_ms % DAY
    plain = Decision(
        rate=0.5,
        rate_when_stale=0.5,
        reason=RateReason.ON_PLAN,
        period_kind="day",
        period_start_ms=day,
        period_end_ms=day + DAY,
        budget_micros=BUDGET,
        plan_micros=BUDGET,
        target_micros=int(target * BUDGET),
        spend=Money(int(spend * BUDGET) * 1_000, 0),
        in_flight_millimicros=0,
        forecast=Forecast(BUDGET, BUDGET, BUDGET, None),
        demand_micros_per_h=BUDGET,
        exhausted_at_ms=None,
        is_learning=False,
        closed_credit_millimicros=0,
    )
    if "exhausted_at_ms" in changes:
        plain = plain._replace(reason=RateReason.EXHAUSTED)
    return plain._replace(**changes)


class Watched:
    """One campaign that is looked at every minute; keeps what it told."""

    def __init__(self, settings: CampaignSettings | None = None) -> None:
        self.settings = settings or settings_of()
        self.alerts = CampaignAlerts("c1")
        self.now_ms = MONDAY
        self.told: list[Alert] = []

    def look(self, decision: Decision | None = None, **facts: Any) -> list[Alert]:
        plain = {"wall_ms": self.now_ms + 1_000, "decision": decision}
        told = self.alerts.evaluate(self.settings, AlertFacts(self.now_ms, **{**plain, **facts}))
        self.told += told
        return told

    def run(self, minutes: int, decision: Decision | None = None, impressions: int = 100, **facts: Any) -> list[Alert]:
        """So many minutes of the same facts, with impressions in each."""
        told: list[Alert] = []
        for _ in range(minutes):
            if impressions:
                self.alerts.add(Added(self.now_ms, impressions, 0, 0, 0, 0))
            self.now_ms += MINUTE
            told += self.look(decision, **facts)
        return told

    def hour(self, clicks: int, conversions: int, impressions: int = 10_000, early: int | None = None) -> list[Alert]:
        """An hour of six equal parts; a click costs one unit."""
        told: list[Alert] = []
        for _ in range(6):
            self.add(impressions // 6, clicks // 6, conversions // 6, early)
            self.now_ms += 10 * MINUTE
            told += self.look()
        return told

    def add(self, impressions: int, clicks: int, conversions: int, early: int | None = None) -> None:
        spend = clicks * UNIT * 1_000
        self.alerts.add(Added(self.now_ms, impressions, 0, clicks, conversions, spend))
        self.alerts.add_cohort(self.now_ms - self.now_ms % HOUR, 0, conversions if early is None else early // 6)


def kinds(alerts: Sequence[Alert], state: AlertState = AlertState.FIRING) -> list[AlertKind]:
    return [alert.kind for alert in alerts if alert.state is state]


def learned(settings: CampaignSettings | None = None, days: int = 21) -> Watched:
    """Three weeks of 300 clicks and 60 conversions an hour."""
    watched = Watched(settings)
    for _ in range(days * 24):
        assert watched.hour(300, 60) == []
    return watched


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


# Supply


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


def allowance(left: float, burn: float = 10.0, pool: PoolKind = PoolKind.BALANCE, pool_id: str = "acc-1") -> Allowance:
    return Allowance(
        campaign_id="c1",
        pool=pool,
        pool_id=pool_id,
        currency="USD",
        limit_micros=10**12,
        left_micros=int(left * UNIT),
        burn_micros_per_h=int(burn * UNIT),
        sequence=1,
    )


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


# Quality


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
