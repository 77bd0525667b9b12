"""A day on which everybody has spent ends in silence: it is known why, and the next one begins all the same."""

from itertools import pairwise
from typing import Any

import msgspec
import pytest

from streams.accounts import SharedBudget
from streams.records import Table
from streams.signals import RateReason
from streams.stages.pools import Pools
from streams.state.checkpoint import capture, restore
from streams.state.journal import Tick
from streams.state.partition import PartitionState
from streams.terms import AlertKind
from streams.topics import ALLOWANCES, INPUT_TOPICS
from tests.unit.evening import STEP, Evening, rate_of
from tests.unit.given import DAY, HOUR, MINUTE, T0, Document, quick_rules


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


# Versions for a later time

BILLED: Document = {"billing": {"model": "cpm", "price_micros": 100_000_000}}
TOMORROW = T0 // DAY * DAY + DAY


def daily_of(evening: Evening, campaign: str = "c1") -> int | None:
    return evening.state.campaigns.current[campaign].settings.budget.daily_micros


def test_a_version_that_prolongs_the_flight_from_midnight_on_opens_the_campaign_in_a_lull() -> None:
    evening = spent_by_evening()
    evening.settle("c1", **BILLED, budget={"daily_micros": 50_000_000}, flight_end_ms=TOMORROW)
    prolonged = {"flight_end_ms": TOMORROW + 7 * DAY, "valid_from_ms": TOMORROW}
    evening.settle("c1", **BILLED, budget={"daily_micros": 90_000_000}, **prolonged)
    rates = sleep_until(evening, 24)
    assert set(rates[:-1]) == {0.0}
    assert (rates[-1], daily_of(evening)) == (0.1, 90_000_000)


def test_a_raise_for_midnight_holds_when_the_day_begins_in_a_lull_and_not_before() -> None:
    evening = spent_by_evening()
    evening.settle("c1", **BILLED, budget={"daily_micros": 500_000_000}, valid_from_ms=TOMORROW)
    while evening.at_ms < TOMORROW - STEP:
        evening.at_ms = min(evening.at_ms + 5 * MINUTE, TOMORROW - STEP) - STEP
        evening.step(impressions=0, clicks=0)
        assert (rate_of(evening), daily_of(evening)) == (0.0, 50_000_000)
    rows = evening.step(impressions=0, clicks=0).rows[Table.PACING]
    assert [(row[6] * 1000, row[8]) for row in rows] == [(TOMORROW, 500_000_000)]  # the day, and its budget


def test_a_new_campaign_for_midnight_begins_in_a_lull() -> None:
    evening = spent_by_evening()
    evening.settle("c2", **BILLED, budget={"daily_micros": 90_000_000}, valid_from_ms=TOMORROW)
    sleep_until(evening, 23)
    assert "c2" not in evening.state.campaigns.current
    sleep_until(evening, 25)
    assert rate_of(evening, "c2") == 0.1


def test_a_version_that_waits_in_a_lull_comes_at_the_same_tick_after_a_restart() -> None:
    evening = spent_by_evening()
    evening.settle("c1", **BILLED, budget={"daily_micros": 500_000_000}, valid_from_ms=TOMORROW)
    sleep_until(evening, 20)
    again, told, at_ms = PartitionState(0, 1, 0, quick_rules()), [], evening.at_ms
    restore(again, capture(evening.state, [], {}).changed)
    for state in (evening.state, again):
        evening.fed.state, evening.at_ms = state, at_ms
        seen = len(evening.controls)
        sleep_until(evening, 26)
        told.append((evening.controls[seen:], daily_of(evening), state.campaigns.snapshot()))
    assert told[0] == told[1]
    assert told[0][1] == 500_000_000


@pytest.mark.parametrize("is_catching_up", [False, True])
def test_only_a_lulls_clock_reaches_a_version_not_that_of_an_unknown_silence(is_catching_up: bool) -> None:
    evening = spent_by_evening()
    if is_catching_up:
        sleep_until(evening, 20)  # a lull; then the worker stands still, and comes back to what it has missed
    else:
        evening.step(campaign="free", clicks=0)
    evening.settle("c1", **BILLED, budget={"daily_micros": 500_000_000}, valid_from_ms=TOMORROW)
    if not is_catching_up:
        sleep_until(evening, 48)
    for _ in range(3):
        evening.at_ms = max(evening.at_ms, TOMORROW) + MINUTE
        seq, at = evening.state.seq + 1, evening.state.positions()
        silent = tuple(INPUT_TOPICS.values())
        tick = Tick("claim", seq, evening.at_ms, at, silent=silent, is_catching_up=is_catching_up)
        evening.take(evening.state.tick(tick))
    assert daily_of(evening) == 50_000_000


def waits_after_others() -> Evening:
    """The last campaign that was shown had no budget and was switched off; a day later another is put, with one."""
    evening = Evening("free", budget={})
    evening.at_ms = T0 // DAY * DAY + 10 * HOUR
    for _ in range(20):
        evening.step(clicks=0)
    sleep_until(evening, 30)
    evening.settle("c1", **LATER)
    rates = sleep_until(evening, 54)
    assert set(rates[2:]) == {0.0}  # nobody can tell that from a dead producer
    assert evening.controls[-1].reason is RateReason.UNKNOWN_INPUT
    return evening


LATER: Document = {
    "billing": {"model": "cpm", "price_micros": 100_000_000},
    "budget": {"daily_micros": 50_000_000},
}


def test_who_waits_though_nothing_was_due_begins_with_any_impression_of_the_partition() -> None:
    evening = waits_after_others()
    told = [alert for alert in evening.alerts if alert.kind is AlertKind.INPUT_SILENT]
    assert "If nothing was due, see the runbook" in told[-1].text.en
    for _ in range(3):
        evening.step(campaign="free", impressions=1, clicks=0)
    begun = next(control for control in evening.controls if control.campaign_id == "c1" and control.rate > 0.0)
    assert (begun.rate, begun.reason) == (0.1, RateReason.SLOW_START)


def test_who_waits_can_make_that_impression_itself_without_its_budget_for_a_moment() -> None:
    evening = waits_after_others()
    evening.settle("c1", **{**LATER, "budget": {}})
    evening.step(impressions=0, clicks=0)
    evening.step(impressions=0, clicks=0)
    assert (rate_of(evening), evening.controls[-1].reason) == (1.0, RateReason.UNPACED)
    evening.step(campaign="c1", impressions=5, clicks=0)
    evening.settle("c1", **LATER)
    for _ in range(3):
        evening.step(campaign="c1", impressions=5, clicks=0)
    assert 0.0 < rate_of(evening) < 1.0
    assert evening.controls[-1].reason is not RateReason.UNKNOWN_INPUT


# Shared budgets

MIDNIGHT = T0 // DAY * DAY + DAY
SHARED: Document = {
    "advertiser_id": "a1",
    "billing": {"model": "cpm", "price_micros": 100_000_000},
    "budget": {"shared_budget_id": "p1"},
    "pacing": {"mode": "as_soon_as_possible"},
}
"""An impression costs a tenth of a unit."""
WHOLE = 50_000_000
MOST = 50_500_000
"""What is shown before a control is told may go beyond it: a hundredth."""


class Sharing:
    """Partitions whose campaigns draw on one shared budget, in the loop with the agent that divides it."""

    def __init__(self, *campaigns: str) -> None:
        self.pools = Pools()
        shared = SharedBudget(shared_budget_id="p1", advertiser_id="a1", currency="USD", daily_micros=WHOLE)
        assert self.pools.take_account("p1", shared)
        self.partitions = [Evening(campaign, **SHARED) for campaign in campaigns]
        self._sequence = 0
        self._owed = dict.fromkeys(campaigns, 0.0)
        for evening in self.partitions:
            evening.at_ms = MIDNIGHT - 14 * HOUR

    def rate(self, evening: Evening) -> float:
        return rate_of(evening, evening.campaign)

    def run(self, until_ms: int, shown: int = 20) -> None:
        """Ad servers obey: where a rate is 0, nothing is shown, and nothing tells the partition of time."""
        while self.partitions[0].at_ms < until_ms:
            for evening in self.partitions:
                before = len(evening.reports)
                self._owed[evening.campaign] += shown * self.rate(evening)
                whole = int(self._owed[evening.campaign])
                self._owed[evening.campaign] -= whole
                evening.step(impressions=whole, clicks=0)
                self._report(evening, before)
            for allowance in self.pools.due(self.partitions[0].at_ms):
                (evening,) = (each for each in self.partitions if each.campaign == allowance.campaign_id)
                evening.notice(ALLOWANCES, msgspec.to_builtins(allowance))

    def _report(self, evening: Evening, before: int) -> None:
        for report in evening.reports[before:]:
            self._sequence += 1
            told = msgspec.structs.replace(report, sequence=self._sequence)
            assert self.pools.take_report(told, evening.at_ms, evening.at_ms) is None

    def sleep(self, until_ms: int) -> None:
        """Ticks minutes apart."""
        for evening in self.partitions:
            while evening.at_ms < until_ms:
                evening.at_ms += 5 * MINUTE - STEP
                evening.step(impressions=0, clicks=0)

    def spend_all(self) -> None:
        while any(self.rate(evening) > 0.0 for evening in self.partitions):
            self.run(self.partitions[0].at_ms + MINUTE)
            assert self.partitions[0].at_ms < MIDNIGHT - 8 * HOUR
        self.run(self.partitions[0].at_ms + 5 * MINUTE)

    def told(self) -> set[tuple[int | None, int]]:
        """The day that allowances are for, and what is left of it."""
        held = (pools for evening in self.partitions for pools in evening.state.desk._allowances.values())
        return {(allowance.day_start_ms, allowance.left_micros) for pools in held for allowance in pools.values()}

    def spent(self) -> int:
        """Of the running day, as the latest controls tell it."""
        return sum(evening.controls[-1].spend_micros for evening in self.partitions)


@pytest.mark.parametrize("campaigns", [("c1",), ("c1", "c2")], ids=["alone", "another partition"])
def test_a_shared_budget_that_is_spent_opens_the_next_day_by_the_wall_clock(campaigns: tuple[str, ...]) -> None:
    sharing = Sharing(*campaigns)
    sharing.spend_all()
    assert 0.9 * WHOLE <= sharing.spent() <= MOST
    sharing.sleep(MIDNIGHT - 5 * MINUTE)
    sharing.run(MIDNIGHT - STEP, shown=0)
    assert {sharing.rate(evening) for evening in sharing.partitions} == {0.0}
    sharing.run(MIDNIGHT + 2 * MINUTE, shown=0)
    assert {sharing.rate(evening) for evening in sharing.partitions} == {0.1}
    assert sharing.told() == {(MIDNIGHT, WHOLE)}  # nothing of it is spent yet
    sharing.run(MIDNIGHT + 30 * MINUTE)
    assert 0.9 * WHOLE <= sharing.spent() <= MOST  # together no more than the new day's, however it is divided


def test_a_partition_in_a_lull_begins_its_day_beside_one_whose_events_tell_the_time() -> None:
    """Its pool hears of the new day from both: neither gets what the other was allotted."""
    sharing = Sharing("c1", "c2")
    sharing.spend_all()
    sharing.sleep(MIDNIGHT - 5 * MINUTE)
    quiet, lively = sharing.partitions
    while quiet.at_ms < MIDNIGHT + MINUTE:
        lively.step(impressions=5, clicks=0, campaign="free")
        lively.at_ms -= STEP
        sharing.run(quiet.at_ms + STEP, shown=0 if quiet.at_ms < MIDNIGHT else 20)
    assert all(sharing.rate(evening) > 0.0 for evening in sharing.partitions)
    sharing.run(MIDNIGHT + HOUR)
    assert 0.9 * WHOLE <= sharing.spent() <= MOST
