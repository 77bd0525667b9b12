"""A total budget that is spent ends a flight: told once, of the total, and for as long as it is so."""

from typing import Any

import msgspec
import pytest

from streams.signals import Alert, AlertState
from streams.stages.alerting.campaign import CampaignAlerts
from streams.stages.alerting.facts import AlertFacts
from streams.stages.pacing.facts import Decision, Total
from streams.terms import Alerting, AlertKind, Budget, Pacing, PacingMode
from tests.unit import watched
from tests.unit.pacing_world import DAY, HOUR, MINUTE, MONDAY, UNIT, Loop, campaign, spent
from tests.unit.watched import BUDGET, K, Watched, decision_of, kinds, settings_of

ASAP = Pacing(mode=PacingMode.AS_SOON_AS_POSSIBLE)
FLIGHT = {"flight_start_ms": MONDAY, "flight_end_ms": MONDAY + 20 * DAY}
STOPPED = (K.EXHAUSTED, K.EXHAUSTED_EARLY)
F, R = AlertState.FIRING, AlertState.RESOLVED


class Campaign(Loop):
    """A campaign in the loop with its alerts, which spends its day within an hour or two."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(campaign(**{**FLIGHT, "pacing": ASAP, **settings}), supply=400)
        self.alerts = CampaignAlerts("c-1")
        self.told: list[Alert] = []

    def look(self) -> Decision:
        decision = super().look()
        self.told += self.alerts.evaluate(self.settings, AlertFacts(self.now - 1, self.now, decision=decision))
        return decision

    def until(self, hours: int) -> Decision:
        """Runs until so many hours since Monday; leaps to midnight where nothing more is spent."""
        end = MONDAY + hours * HOUR
        while self.now < end:
            while self.step().rate > 0.0:
                pass
            self.now = min(end, MONDAY + ((self.now - MONDAY) // DAY + 1) * DAY)
            decision = self.look()
        return decision

    def stops(self) -> list[tuple[AlertState, str]]:
        """What was told of exhaustion: state, and which budget."""
        told = [alert for alert in self.told if alert.kind in STOPPED]
        return [(alert.state, "total" if "total budget" in alert.text.en else "day") for alert in told]


@pytest.mark.parametrize("total", [200, 230, 199.9])
def test_a_total_that_is_spent_is_told_once_and_no_midnight_ends_it(total: float) -> None:
    world = Campaign(total=total)
    world.until(5 * 24)
    stops = world.stops()
    assert stops[-1] == (F, "total")
    assert stops.count((F, "total")) == 1
    assert world.decisions[-1].rate == 0.0
    firing = [alert for alert in world.told if alert.kind is K.EXHAUSTED_EARLY][-1]
    assert (firing.expected, firing.is_pushed, firing.cause) == (total * UNIT, True, "campaign:c-1")
    assert "Its flight is over, on later days too, unless the total budget is raised" in firing.text.en
    assert "如需继续投放，请提高总预算" in firing.text.zh


@pytest.mark.parametrize("total", [199.9, 200, 200.5])
def test_the_day_on_which_the_total_is_spent_is_not_told_apart(total: float) -> None:
    world = Campaign(total=total)
    world.until(24)
    before, stops = len(world.told), len(world.stops())
    world.until(60)
    assert world.stops()[stops:] == [(R, "day"), (F, "total")]
    fired = [alert for alert in world.told[before:] if alert.state is F and alert.seen and alert.expected]
    assert [alert.kind for alert in fired if alert.kind in STOPPED] == [K.EXHAUSTED_EARLY]
    assert not [alert for alert in fired if alert.kind is K.BUDGET_LADDER and alert.expected == 100]
    assert not [alert for alert in world.told if "spent 100%" in alert.text.en and "total" in alert.text.en]


def test_what_pacing_could_not_steer_is_crumbs_on_the_next_day_and_the_total_is_told_at_midnight() -> None:
    world = Campaign(total=200, pacing=Pacing(mode=PacingMode.EVEN))
    for day in range(2):
        world.pacer.add(world.settings, spent(MONDAY + day * DAY, 99_750_000))
        world.now = MONDAY + (day + 1) * DAY - MINUTE
        world.look()
    assert world.stops() == []
    world.now = MONDAY + 2 * DAY + 1
    midnight = world.look()
    assert (midnight.budget_micros, midnight.total) == (500_000, Total(200 * UNIT, 199_500_000_000, world.now - 1))
    assert world.stops() == [(F, "total")]


def test_a_raised_total_ends_it_and_is_told_again_when_it_is_spent() -> None:
    world = Campaign(total=150)
    world.until(72)
    assert world.stops()[-1] == (F, "total")
    world.change(campaign(**FLIGHT, pacing=ASAP, total=250))
    world.step()
    assert world.stops()[-1][0] is R
    (ended,) = [alert for alert in world.told if alert.kind in STOPPED and alert.state is R][-1:]
    assert "the budget was raised" in ended.text.en
    world.until(5 * 24)
    assert world.stops().count((F, "total")) == 2
    assert len({alert.alert_id for alert in world.told if alert.kind in STOPPED and alert.state is F}) > 2


@pytest.mark.parametrize("total", [150.5, 149])
def test_a_total_that_is_hardly_raised_or_lowered_is_the_same_occurrence(total: float) -> None:
    world = Campaign(total=150)
    world.until(72)
    told = len(world.stops())
    world.change(campaign(**FLIGHT, pacing=ASAP, total=total))
    world.until(96)
    assert len(world.stops()) == told


def test_a_credit_brings_a_total_back() -> None:
    world = Campaign(total=50)
    world.until(6)
    assert world.stops() == [(F, "total")]
    world.pacer.add(world.settings, spent(MONDAY + HOUR, 0, credited=10 * UNIT))
    world.step()
    assert [state for state, _ in world.stops()] == [F, R]


def test_what_is_known_of_a_spent_total_survives_a_restart() -> None:
    world = Campaign(total=150)
    world.until(72)
    told = len(world.told)
    world.pacer = world.twin().pacer
    kept = msgspec.msgpack.decode(msgspec.msgpack.encode(world.alerts.snapshot()))
    world.alerts = CampaignAlerts("c-1")
    world.alerts.restore(kept)
    world.until(96)
    assert len(world.told) == told
    assert world.decisions[-1].total == world.decisions[-2].total


# Against the flight, not against the day

END = watched.MONDAY + 10 * DAY
BOTH = Budget(daily_micros=BUDGET, total_micros=5 * BUDGET)


def spent_at(at_ms: int, settings: dict[str, Any] | None = None, **alerts: Any) -> list[AlertKind]:
    """What is told of a total that is spent then, at the same time as its day."""
    flight = {"flight_start_ms": watched.MONDAY, "flight_end_ms": END} if settings is None else settings
    world = Watched(settings_of(budget=BOTH, alerts=Alerting(**alerts), **flight))
    world.now_ms = at_ms
    world.look(decision_of(1.0, 1.0, at_ms, exhausted_at_ms=at_ms, total=Total(5 * BUDGET, 5 * BUDGET * 1_000, at_ms)))
    return kinds(world.told)


@pytest.mark.parametrize(
    ("at_ms", "told"),
    [
        (watched.MONDAY + 2 * DAY - 10 * MINUTE, [K.EXHAUSTED_EARLY]),  # as a day, it landed where it aimed
        (watched.MONDAY + 9 * DAY - 10 * MINUTE, [K.EXHAUSTED]),
        (END - 10 * HOUR, [K.EXHAUSTED]),
        (END - 10 * MINUTE, [K.BUDGET_LADDER]),  # as planned: the ladder tells
    ],
)
def test_early_is_judged_by_the_flight_and_as_planned_is_only_its_very_end(at_ms: int, told: list[AlertKind]) -> None:
    assert spent_at(at_ms) == told


@pytest.mark.parametrize(
    ("flight", "told"),
    [
        ({}, K.EXHAUSTED),
        ({"flight_start_ms": watched.MONDAY}, K.EXHAUSTED),
        ({"flight_end_ms": END}, K.EXHAUSTED_EARLY),
        ({"flight_end_ms": watched.MONDAY + 2 * DAY}, K.EXHAUSTED),
    ],
)
def test_a_flight_without_a_begin_or_an_end_is_told_all_the_same(flight: dict[str, int], told: AlertKind) -> None:
    assert spent_at(watched.MONDAY + 2 * DAY - HOUR, flight) == [told]


def test_where_exhaustion_is_turned_off_the_ladder_tells_its_last_step() -> None:
    assert spent_at(watched.MONDAY + DAY, off=STOPPED, push=()) == [K.BUDGET_LADDER]


# The total's ladder


def test_a_total_has_its_own_ladder_that_midnight_leaves_alone() -> None:
    world = Watched(settings_of(budget=BOTH, flight_end_ms=END))
    told = []
    for day, total in enumerate((1.0, 2.0, 2.6, 3.8, 3.9, 4.6)):
        world.now_ms = at = watched.MONDAY + day * DAY + HOUR
        told += world.look(decision_of(0.1, 0.1, at, total=Total(5 * BUDGET, int(total * BUDGET * 1_000), None)))
    assert [(alert.state, alert.expected) for alert in told] == [(F, 50), (R, 50), (F, 75), (R, 75), (F, 90)]
    assert {(alert.cause, alert.is_pushed) for alert in told} == {("campaign:c1", False)}
    assert all("total budget" in alert.text.en and "总预算" in alert.text.zh for alert in told if alert.state is F)


def test_the_ladder_of_a_day_ends_where_the_spent_total_leaves_the_next_day_no_budget() -> None:
    world = Watched(settings_of(budget=BOTH, flight_end_ms=END))
    at = world.now_ms
    world.look(decision_of(0.9, 0.9, at, total=Total(5 * BUDGET, 4_900 * BUDGET, None)))
    assert kinds(world.told) == [K.BUDGET_LADDER, K.BUDGET_LADDER]
    world.now_ms += DAY
    spent_total = Total(5 * BUDGET, 5_000 * BUDGET, at)
    nothing = {"plan_micros": 0, "budget_micros": 0, "rate": 0.0, "total": spent_total}
    told = world.look(decision_of(0.0, 0.0, world.now_ms, **nothing))
    assert [(alert.kind, alert.state) for alert in told] == [(K.EXHAUSTED_EARLY, F), (K.BUDGET_LADDER, R)]


def test_a_campaign_whose_total_is_spent_is_not_said_to_stand_still_for_a_pool() -> None:
    shared = msgspec.structs.replace(BOTH, shared_budget_id="b-1")
    world = Watched(settings_of(budget=shared, flight_end_ms=END))
    plain = watched.allowance(left=1.0, pool=watched.PoolKind.SHARED_BUDGET, pool_id="b-1")
    pool = msgspec.structs.replace(plain, pool_micros=1_000 * UNIT)
    of_total = Total(5 * BUDGET, 5_000 * BUDGET, world.now_ms)
    world.look(decision_of(0.0, 0.0, rate=0.0, total=of_total), allowances=(pool,))
    assert [alert.cause for alert in world.told if alert.kind in STOPPED] == ["campaign:c1"]
