"""A campaign whose alerts are watched: plain settings and decisions, minutes and hours of traffic."""

from collections.abc import Sequence
from typing import Any

import msgspec

from streams.campaigns import CampaignSettings
from streams.signals import Alert, AlertState, Allowance, PoolKind, RateReason
from streams.stages.alerting.campaign import CampaignAlerts
from streams.stages.alerting.facts import AlertFacts
from streams.stages.pacing.facts import Added, Decision, Forecast, Money
from streams.terms import AlertKind, Billing, BillingModel, Budget
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
