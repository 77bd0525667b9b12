"""Alerts about what several campaigns share: each campaign has its own, and their cause is one."""

from typing import Any

import msgspec
import pytest

from streams.records import Table
from streams.signals import Alert, AlertState
from streams.stages.alerting.campaign import CampaignAlerts
from streams.state.partition import Output
from streams.terms import AlertKind
from streams.topics import ALLOWANCES
from tests.unit.given import DAY, Document
from tests.unit.test_pacing_desk import BUDGET, Evening

LEFT, EMPTY = 10**12, 0
OWN: Any = BUDGET["budget"]


class Sharing:
    """Two campaigns of one pool, looked at in the same ticks."""

    def __init__(self, pool: str) -> None:
        self.pool = pool
        own: Any = {"account_id": "p1"} if pool == "balance" else {"budget": {**OWN, "shared_budget_id": "p1"}}
        self.evening = Evening(**own)
        self.evening.settle("c2", **{**BUDGET, **own})
        self._serial = 0
        self.run(2)  # the settings hold from the first tick on

    def allow(self, campaign: str, left: int) -> None:
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
            document["day_start_ms"] = self.evening.at_ms - self.evening.at_ms % DAY
        self.evening.notice(ALLOWANCES, document)

    def allow_both(self, left: int) -> None:
        for campaign in ("c1", "c2"):
            self.allow(campaign, left)

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
    for held in sharing.evening.state.desk.held.values():
        kept = msgspec.msgpack.decode(msgspec.msgpack.encode(held.alerts.snapshot()))
        held.alerts = CampaignAlerts(held.alerts.campaign_id)
        held.alerts.restore(kept)
    sharing.allow_both(LEFT)
    sharing.run(2)
    sharing.evening.at_ms += DAY
    sharing.evening.step()
    sharing.allow_both(EMPTY)
    alerts = [alert for _, told in sharing.run(3) for alert in told]
    assert [(alert.kind, alert.state) for alert in alerts] == [(AlertKind.EXHAUSTED, AlertState.FIRING)] * 2
    assert len({alert.alert_id for alert in alerts}) == 2
