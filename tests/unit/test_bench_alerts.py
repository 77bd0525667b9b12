"""The benchmark of alerts judges a stall by the market's supply, not by what was seen of it."""

import msgspec
import numpy as np

from bench.alerts import closed_loop
from bench.alerts_judge import RESOLUTION_MS, Judge
from bench.alerts_loop import Loop
from bench.market import Incident
from bench.market_demand import PANE_MS
from streams.rules import MINUTE_MS
from streams.signals import Alert, AlertState
from streams.terms import AlertKind
from tests.unit.watched import Watched, decision_of


def stall() -> Alert:
    """Of the first campaign, as the stage tells it."""
    watched, same = Watched(), decision_of(spend=0.4, target=0.4)
    watched.run(60, same)
    (alert,) = watched.run(40, same, impressions=0)
    assert (alert.kind, alert.state) == (AlertKind.STALLED, AlertState.FIRING)
    return msgspec.structs.replace(alert, campaign_id="c-0")


def test_a_stall_is_true_where_the_market_brought_nothing_for_as_long() -> None:
    loop = Loop(seed=5, count=2, days=2)
    market, stalled_ms = loop.market, loop.settings[0].alerts.stalled_ms
    begins = market.start_ms + 3 * PANE_MS
    market.incidents.append(Incident("demand", 0, begins, begins + stalled_ms + MINUTE_MS, 0.0))
    judge, rates = Judge(loop), np.full(2, 0.0)  # what is served of it is not asked
    judged, alert = [], stall()
    while market.now_ms < begins + stalled_ms + 2 * MINUTE_MS:
        market.step(rates)
        judged.append((market.now_ms, judge.is_true(msgspec.structs.replace(alert, changed_ms=market.now_ms))))
    true = [at for at, is_true in judged if is_true]
    assert min(true) == begins + stalled_ms - RESOLUTION_MS
    assert max(true) == begins + stalled_ms + MINUTE_MS


def test_a_day_of_the_loop_is_judged() -> None:
    result = closed_loop(seed=5, count=2, days=1)
    assert result["campaign_weeks"] >= 0
    assert set(result["found"]) <= set(result["injected"])
