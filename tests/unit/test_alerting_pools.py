"""Alerts about what several campaigns share: each campaign has its own, and their cause is one."""

from typing import Any

import msgspec
import pytest

from streams.accounts import SharedBudget
from streams.records import Table
from streams.signals import Alert, AlertState, Audience
from streams.stages.alerting.campaign import CampaignAlerts
from streams.stages.pools import Pools
from streams.state.partition import Output
from streams.terms import AlertKind
from streams.topics import ALLOWANCES
from tests.unit.evening import BUDGET, Evening
from tests.unit.given import DAY, Document

LEFT, EMPTY = 10**12, 0
OWN: Any = BUDGET["budget"]
CLICKS: Any = BUDGET["billing"]


class Sharing:
    """Two campaigns of one pool, looked at in the same ticks."""

    def __init__(self, pool: str) -> None:
        self.pool = pool
        own: Any = {"account_id": "p1"} if pool == "balance" else {"budget": {**OWN, "shared_budget_id": "p1"}}
        self.evening = Evening(**own)
        self.evening.settle("c2", **{**BUDGET, **own})
        self._serial = 0
        self.run(2)  # the settings hold from the first tick on

    def allow(self, campaign: str, left: int, whole: int = LEFT) -> None:
        """What the pool has left, as the campaign is told it."""
        self._serial += 1
        document: Document = {
            "campaign_id": campaign,
            "pool": self.pool,
            "pool_id": "p1",
            "currency": "USD",
            "limit_micros": 10**12,
            "left_micros": left,
            "burn_micros_per_h": 1_000_000,
            "sequence": self._serial,
        }
        if self.pool == "shared_budget":
            document |= {"day_start_ms": self.evening.at_ms - self.evening.at_ms % DAY, "pool_micros": whole}
        self.evening.notice(ALLOWANCES, document)

    def allow_both(self, left: int, whole: int = LEFT) -> None:
        for campaign in ("c1", "c2"):
            self.allow(campaign, left, whole)

    def states(self, campaign: str, left: int, whole: int, steps: int = 3) -> list[AlertState]:
        """What one campaign is told of the pool from now on."""
        self.allow_both(left, whole)
        return [a.state for _, told in self.run(steps) for a in told if a.campaign_id == campaign]

    def run(self, steps: int) -> list[tuple[Output, list[Alert]]]:
        """So many ticks: of each that told of the pool its output, and those alerts."""
        found = []
        for _ in range(steps):
            output = self.evening.step()
            told = [s for s in output.signals if isinstance(s, Alert) and s.cause.endswith(":p1")]
            if told:
                found.append((output, told))
        return found


@pytest.mark.parametrize("pool", ["balance", "shared_budget"])
def test_two_campaigns_of_one_pool_have_an_alert_each_with_one_cause(pool: str) -> None:
    sharing = Sharing(pool)
    sharing.allow_both(EMPTY)
    ((output, alerts),) = sharing.run(80)  # both in one tick: they begin at the same event time
    assert {alert.campaign_id for alert in alerts} == {"c1", "c2"}
    assert len({alert.cause for alert in alerts}) == 1
    assert len({alert.alert_id for alert in alerts}) == 2
    rows = [row for row in output.rows[Table.ALERTS] if row[11] == alerts[0].cause]
    assert len({row[:3] for row in rows}) == len(rows) == 2  # one content under each key
    assert {alert.alert_id for alert in alerts} <= sharing.evening.state.desk.firing.keys()


def test_the_end_of_one_campaigns_alert_leaves_the_others() -> None:
    sharing = Sharing("balance")
    sharing.allow_both(EMPTY)
    sharing.run(80)
    sharing.allow("c1", LEFT)
    ended = [alert for _, alerts in sharing.run(80) for alert in alerts]
    assert [(alert.campaign_id, alert.state) for alert in ended] == [("c1", AlertState.RESOLVED)]
    assert [a.campaign_id for a in sharing.evening.state.desk.firing.values() if a.cause == "account:p1"] == ["c2"]


def test_an_alert_about_a_pool_keeps_its_campaign_over_a_restart() -> None:
    """Also in its next occurrence: the life is known from before."""
    sharing = Sharing("shared_budget")
    sharing.allow_both(EMPTY)
    sharing.run(2)
    restart(sharing)
    sharing.allow_both(LEFT)
    sharing.run(2)
    sharing.evening.at_ms += DAY
    sharing.evening.step()
    sharing.allow_both(EMPTY)
    alerts = [alert for _, told in sharing.run(3) for alert in told]
    assert [(alert.kind, alert.state) for alert in alerts] == [(AlertKind.EXHAUSTED, AlertState.FIRING)] * 2
    assert len({alert.alert_id for alert in alerts}) == 2


F, R = AlertState.FIRING, AlertState.RESOLVED


def test_a_shared_budget_that_is_raised_and_spent_again_is_told_again() -> None:
    sharing = Sharing("shared_budget")
    assert sharing.states("c1", EMPTY, 100) == [F]
    assert sharing.states("c1", 90, 200) == [R]
    first = sharing.evening.alerts[-1].alert_id
    assert sharing.states("c1", EMPTY, 200) == [F]
    assert sharing.evening.alerts[-1].alert_id != first
    assert sharing.states("c1", EMPTY, 400) == []  # raised, and spent beyond that already: nothing begins again


@pytest.mark.parametrize("whole", [100, 104], ids=["a credit", "a raise of little"])
def test_a_shared_budget_that_is_not_raised_by_much_is_told_once_a_day(whole: int) -> None:
    sharing = Sharing("shared_budget")
    assert sharing.states("c1", EMPTY, 100) == [F]
    assert sharing.states("c1", 50, whole) == [R]
    assert sharing.states("c1", EMPTY, whole) == []


def test_what_was_told_of_a_shared_budget_survives_a_restart() -> None:
    sharing = Sharing("shared_budget")
    assert sharing.states("c1", EMPTY, 100) == [F]
    assert sharing.states("c1", 50, 100) == [R]
    restart(sharing)
    assert sharing.states("c1", EMPTY, 103) == []  # the one that was told, by its size then
    assert sharing.states("c1", 90, 200) == []
    restart(sharing)
    assert sharing.states("c1", EMPTY, 200) == [F]


@pytest.mark.parametrize("pool", ["balance", "shared_budget"])
@pytest.mark.parametrize("other", [None, "p2"])
def test_what_fires_about_a_pool_ends_when_its_campaign_leaves_it(pool: str, other: str | None) -> None:
    sharing = Sharing(pool)
    sharing.allow_both(EMPTY)
    assert len(sharing.run(80)) == 1
    evening = sharing.evening
    own: Any = {"account_id": other} if pool == "balance" else {"budget": {**OWN, "shared_budget_id": other}}
    evening.settle("c1", **{**BUDGET, **own})
    ended = [alert for _, told in sharing.run(3) for alert in told]
    assert [(alert.campaign_id, alert.state, alert.is_pushed) for alert in ended] == [("c1", R, False)]
    assert "does not draw on" in ended[0].text.en
    assert [a.campaign_id for a in evening.state.desk.firing.values() if a.cause.endswith(":p1")] == ["c2"]
    sharing.run(80)
    assert sharing.run(80) == []


def test_a_spent_shared_budget_that_a_campaign_comes_back_to_is_told_anew() -> None:
    sharing = Sharing("shared_budget")
    assert sharing.states("c1", EMPTY, 100) == [F]
    sharing.evening.settle("c1", **BUDGET)
    sharing.run(3)
    sharing.evening.settle("c1", **{**BUDGET, "budget": {**OWN, "shared_budget_id": "p1"}})
    sharing.run(3)
    assert sharing.states("c1", EMPTY, 100) == [F]


def restart(sharing: Sharing) -> None:
    for held in sharing.evening.state.desk.held.values():
        kept = msgspec.msgpack.decode(msgspec.msgpack.encode(held.alerts.snapshot()))
        held.alerts = CampaignAlerts(held.alerts.campaign_id)
        held.alerts.restore(kept)


@pytest.mark.parametrize("daily_micros", [200_000, 200_500], ids=["spent to the last", "half a click is left"])
def test_a_campaign_of_a_shared_budget_alone_is_told_the_end_of_its_pool_and_nothing_else(daily_micros: int) -> None:
    """In the loop with its pool, whose allotments it runs through again and again while there is money left."""
    evening = Evening(
        advertiser_id="a1", budget={"shared_budget_id": "p1"}, pacing={"mode": "as_soon_as_possible"}, billing=CLICKS
    )
    pools, sequence, owed = Pools(), 0, 0.0
    shared = SharedBudget(shared_budget_id="p1", advertiser_id="a1", currency="USD", daily_micros=daily_micros)
    assert pools.take_account("p1", shared)
    for _ in range(300):
        rate = evening.controls[-1].rate if evening.controls else 0.0
        owed, before = owed + 4 * rate, len(evening.reports)
        evening.step(impressions=max(1, int(20 * rate)), clicks=int(owed))
        owed -= int(owed)
        for report in evening.reports[before:]:
            sequence += 1
            told = msgspec.structs.replace(report, sequence=sequence)
            assert pools.take_report(told, evening.at_ms, evening.at_ms) is None
        evening.notice(ALLOWANCES, *(msgspec.to_builtins(allowance) for allowance in pools.due(evening.at_ms)))
    assert evening.controls[-1].rate == 0.0
    assert 195_000 <= evening.controls[-1].spend_micros <= 200_500
    found = [alert for alert in evening.alerts if alert.audience is Audience.ADVERTISER]
    assert [(a.kind, a.cause, a.state) for a in found] == [(AlertKind.EXHAUSTED, "shared:p1", AlertState.FIRING)]
