"""A day on which everybody has spent ends in silence: it is known why, and the next one begins all the same."""

from itertools import pairwise
from typing import Any

from streams.signals import RateReason
from streams.state.checkpoint import capture, restore
from streams.state.partition import PartitionState
from tests.unit.evening import STEP, Evening, rate_of
from tests.unit.given import DAY, HOUR, MINUTE, T0, quick_rules


def spent_by_evening(**settings: Any) -> Evening:
    """Its only campaign has spent the day's budget, and the ad server has stopped."""
    evening = Evening(billing={"model": "cpm", "price_micros": 100_000_000}, budget={"daily_micros": 50_000_000})
    if settings:
        evening.settle("c2", **settings)
    evening.at_ms = T0 // DAY * DAY + 10 * HOUR
    for _ in range(1_000):
        evening.step(impressions=20 if evening.state.desk.held == {} or rate_of(evening) > 0.0 else 0, clicks=0)
        if evening.controls and rate_of(evening) == 0.0:
            break
    assert evening.controls[-1].reason is RateReason.EXHAUSTED
    return evening


def sleep_until(evening: Evening, hour: int, **step: Any) -> list[float]:
    """Silent ticks, a minute apart; the rates of c1."""
    rates = []
    while evening.at_ms < T0 // DAY * DAY + hour * HOUR:
        evening.at_ms += 5 * MINUTE - STEP
        evening.step(**{"impressions": 0, "clicks": 0, **step})
        rates.append(rate_of(evening))
    return rates


def test_a_campaign_that_has_spent_its_day_begins_the_next_though_nobody_else_tells_the_time() -> None:
    evening = spent_by_evening()
    assert set(sleep_until(evening, 23)) == {0.0}
    rates = sleep_until(evening, 24)
    assert rates[-1] == 0.1  # no faster than any of which nothing is known
    assert set(rates[:-1]) == {0.0}
    for _ in range(60):
        evening.step(impressions=1, clicks=0)
    assert evening.controls[-1].reason is RateReason.AHEAD  # an impression costs as much as three minutes may
    assert evening.controls[-1].spend_micros == 6_000_000


def test_a_lull_alarms_nobody() -> None:
    evening = spent_by_evening()
    told = len(evening.alerts)
    sleep_until(evening, 23)
    assert [alert.kind for alert in evening.alerts[told:]] == []


def test_whoever_begins_again_after_a_lull_waits_for_impressions() -> None:
    evening = spent_by_evening()
    sleep_until(evening, 24)
    assert set(sleep_until(evening, 60)) == {0.1}


def test_a_lull_survives_a_restart() -> None:
    evening = spent_by_evening()
    sleep_until(evening, 20)
    again = PartitionState(0, 1, 0, quick_rules())
    restore(again, capture(evening.state, [], {}).changed)
    told = [sleep_until(evening, 25 + 24)]
    evening.fed.state, evening.at_ms = again, T0 // DAY * DAY + 20 * HOUR
    told.append(sleep_until(evening, 25 + 24))
    assert told[0][-1] == told[1][-1] == 0.1


def test_silence_is_no_lull_while_somebody_is_let_through_or_was_when_it_began() -> None:
    evening = Evening(billing={"model": "cpm", "price_micros": 100_000_000}, budget={"daily_micros": 50_000_000})
    evening.at_ms = T0 // DAY * DAY + 10 * HOUR
    for _ in range(20):
        evening.step(clicks=0)
    before = rate_of(evening)
    assert before > 0.0
    rates = sleep_until(evening, 50, clicks=1)  # clicks tell the time; what may have been spent unseen fills the budget
    assert all(after <= earlier for earlier, after in pairwise([before, *rates]))


def test_a_campaign_that_nobody_paces_makes_a_silence_unknown() -> None:
    evening = spent_by_evening()
    evening.step(campaign="free", clicks=0)
    assert set(sleep_until(evening, 50, clicks=1)) == {0.0}
