"""Alerts about budgets that are shared, raised or exceeded: what is told is true, and told once."""

from typing import Any

import pytest

from streams.signals import AlertState, PoolKind
from streams.stages.pacing.facts import Forecast
from streams.terms import Budget
from tests.unit.given import HOUR
from tests.unit.test_alerting_campaign import BUDGET, MONDAY, K, Watched, allowance, decision_of, kinds, settings_of

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
