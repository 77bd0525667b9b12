"""What is owed back for spend beyond the policy of over-delivery: by period, exactly, and whenever it is told."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.stages.pacing.campaign import CampaignPacer
from streams.stages.pacing.facts import Decision
from streams.stages.pacing.shape import TrafficShape
from streams.state.pacing_rows import pacing_row
from streams.terms import OverDelivery, Pacing, PacingMode, PacingPeriod
from tests.unit.pacing_world import DAY, HOUR, MINUTE, MONDAY, UNIT, Loop, campaign, facts, live, spent


class Owed:
    """A campaign of 100 a day that is told of spend; units of money."""

    def __init__(self, **changes: Any) -> None:
        self.settings = campaign(**changes)
        self.pacer, self.shape = CampaignPacer("c-1"), TrafficShape()
        self.now = MONDAY

    def look(self, at_ms: int, **more: Any) -> Decision:
        self.now = at_ms
        return self.pacer.evaluate(self.settings, facts(at_ms, **more), self.shape)

    def add(self, at_ms: int, amount: float, credited: float = 0) -> None:
        self.pacer.add(self.settings, spent(at_ms, int(amount * UNIT), int(credited * UNIT)))

    def change(self, **changes: Any) -> None:
        before, self.settings = self.settings, campaign(**changes)
        self.pacer.settings_changed(before, self.settings, self.now)

    @property
    def owed(self) -> float:
        return self.pacer.ledger.excess / UNIT / 1_000


def over_by(amount: float, **changes: Any) -> Owed:
    """Monday spends so much beyond its budget."""
    owed = Owed(**changes)
    owed.look(MONDAY + HOUR)
    owed.add(MONDAY + HOUR, 100 + amount)
    owed.look(MONDAY + 2 * HOUR)
    return owed


def test_spend_that_is_told_after_midnight_is_of_the_day_that_it_is_of() -> None:
    owed = over_by(5)
    assert owed.owed == 5
    owed.add(MONDAY + DAY - 10_000, 10)
    decision = owed.look(MONDAY + DAY + 1_000)
    assert decision.excess_credit_millimicros == 15_000 * UNIT
    owed.look(MONDAY + 2 * DAY)
    owed.add(MONDAY + DAY - 10_000, 1)  # two days late
    assert owed.owed == 16


def test_a_day_that_comes_to_its_budget_after_midnight_owes_what_is_beyond() -> None:
    owed = Owed()
    owed.look(MONDAY + HOUR)
    owed.add(MONDAY + HOUR, 95)
    owed.look(MONDAY + DAY)
    assert owed.owed == 0
    owed.add(MONDAY + DAY - 10_000, 8)
    assert owed.owed == 3


def test_a_credit_of_a_closed_day_is_owed_once() -> None:
    owed = over_by(15)
    owed.look(MONDAY + DAY)
    owed.add(MONDAY + HOUR, 0, credited=10)
    decision = owed.look(MONDAY + DAY + MINUTE)
    assert decision.closed_credit_millimicros == 10_000 * UNIT
    assert owed.owed == 5
    owed.add(MONDAY + HOUR, 0, credited=10)
    assert (owed.owed, owed.pacer.ledger.closed_credit) == (0, 20_000 * UNIT)


def test_a_credit_of_the_running_day_lessens_it() -> None:
    owed = over_by(15)
    owed.add(MONDAY + HOUR, 0, credited=10)
    assert owed.owed == 5


def test_a_change_of_something_else_forgives_nothing_and_a_raise_does() -> None:
    owed = over_by(5)
    owed.change(pacing=Pacing(mode=PacingMode.EVEN))
    owed.look(MONDAY + 3 * HOUR)
    owed.look(MONDAY + 4 * HOUR)
    assert owed.owed == 5
    owed.change(daily=103)
    owed.look(MONDAY + 5 * HOUR)
    assert owed.owed == 2
    owed.change(daily=50)
    owed.look(MONDAY + 6 * HOUR)
    assert owed.owed == 2


def test_a_lowered_budget_owes_only_what_is_spent_from_then_on() -> None:
    owed = over_by(-20)
    owed.change(daily=30)
    owed.look(MONDAY + 3 * HOUR)
    assert owed.owed == 0
    owed.add(MONDAY + 3 * HOUR, 4)
    owed.look(MONDAY + 4 * HOUR)
    owed.look(MONDAY + DAY)
    assert owed.owed == 4


def test_what_is_spent_without_a_budget_is_no_excess() -> None:
    owed = over_by(5)
    owed.change(daily=None)
    owed.pacer.release(owed.settings, MONDAY + 3 * HOUR)
    owed.add(MONDAY + 3 * HOUR, 300)
    assert owed.owed == 5
    owed.change(daily=100)
    owed.look(MONDAY + 4 * HOUR)
    owed.add(MONDAY + 4 * HOUR, 7)
    assert owed.owed == 7  # what was spent freely makes the day's new beginning


def test_live_sessions_are_judged_by_their_own_budget() -> None:
    session = live(MONDAY + HOUR, MONDAY + 3 * HOUR)
    owed = over_by(5)
    owed.change(daily=None, session=50, pacing=Pacing(period=PacingPeriod.LIVE_SESSION))
    owed.look(MONDAY + 2 * HOUR, session=session)
    owed.add(MONDAY + 2 * HOUR, 60)
    owed.look(MONDAY + 2 * HOUR + MINUTE, session=session)
    assert owed.owed == 15  # and the day's limit, which holds no more, adds nothing
    over = live(MONDAY + HOUR, MONDAY + 3 * HOUR, is_over=True)
    owed.look(MONDAY + 3 * HOUR + MINUTE, session=over)
    owed.add(MONDAY + 3 * HOUR - 10_000, 2)
    assert owed.owed == 17
    owed.look(MONDAY + 5 * HOUR, session=live(MONDAY + 5 * HOUR, name="live-2"))
    owed.add(MONDAY + 5 * HOUR, 53)
    assert owed.owed == 20


def test_an_open_flight_owes_what_exceeds_its_total() -> None:
    owed = Owed(daily=None, total=10)
    owed.look(MONDAY + HOUR)
    owed.add(MONDAY + HOUR, 12)
    owed.look(MONDAY + 3 * DAY)
    assert owed.owed == 2


def test_neither_a_pool_nor_a_policy_that_forgives_nothing_owes() -> None:
    for changes in (
        {"daily": None, "shared": "p"},
        {"pacing": Pacing(over_delivery=OverDelivery(credits_excess=False))},
    ):
        assert over_by(50, **changes).owed == 0


def test_another_time_zone_takes_the_running_days_excess_along() -> None:
    owed = over_by(5)
    owed.change(time_zone="America/New_York")
    owed.look(MONDAY + 3 * HOUR)
    assert owed.owed == 5
    owed.add(MONDAY + 3 * HOUR, 2)
    assert owed.owed == 7


def test_days_that_are_forgotten_stay_owed() -> None:
    owed = over_by(5)
    for day in range(1, 60):
        owed.look(MONDAY + day * DAY)
    assert len(owed.pacer.ledger.days) == 40
    owed.add(MONDAY + HOUR, 10)  # too late by weeks: nothing is known of that day's limit
    assert owed.owed == 5


def test_it_is_a_column_of_every_row() -> None:
    owed = over_by(5)
    row = pacing_row(0, 0, owed.settings, owed.now, owed.look(MONDAY + 3 * HOUR))
    assert row[-2:] == (0, 5 * UNIT)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(-40, 160), st.integers(0, 60)), min_size=1, max_size=12),
    st.randoms(use_true_random=False),
)
def test_it_follows_from_the_days_whenever_each_part_is_told(parts: list[tuple[int, int, int]], random: Any) -> None:
    """An oracle: of each day, what is owed is gross less all credits, as far as it is beyond the budget."""
    owed = Owed()
    late = random.sample(range(len(parts)), len(parts) // 2)
    for day in range(4):
        owed.look(MONDAY + day * DAY + HOUR)
        for at, (of, gross, credited) in enumerate(parts):
            if at not in late and of == day:
                owed.add(MONDAY + of * DAY + HOUR, max(0, gross), credited)
        owed.look(MONDAY + (day + 1) * DAY - MINUTE)
        kept = msgspec.msgpack.decode(msgspec.msgpack.encode(owed.pacer.snapshot()))
        owed.pacer = CampaignPacer("c-1")
        owed.pacer.restore(kept)
    owed.look(MONDAY + 4 * DAY)
    for at in late:
        of, gross, credited = parts[at]
        owed.add(MONDAY + of * DAY + HOUR, max(0, gross), credited)
    sums = [sum(max(0, gross) - credited for of, gross, credited in parts if of == day) for day in range(4)]
    assert owed.owed == sum(max(0, total - 100) for total in sums)


@pytest.mark.parametrize("late_ms", [0, 2_000])
def test_a_whole_day_in_the_loop_owes_what_is_beyond_to_the_micro(late_ms: int) -> None:
    loop = Loop(campaign(daily=1), supply=3)
    loop.run(HOUR)
    loop.pacer.add(loop.settings, spent(MONDAY + HOUR, UNIT))
    loop.now = MONDAY + DAY + late_ms
    loop.look()
    day = loop.pacer.ledger.money_of_day(MONDAY).valid
    assert loop.decisions[-1].excess_credit_millimicros == day - 1_000 * UNIT > 0
