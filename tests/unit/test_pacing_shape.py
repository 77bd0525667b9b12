"""The shape of traffic: even until enough is known, then by weekday and hour, decayed."""

import msgspec
import pytest

from streams.rules import HOUR_MS
from streams.stages.pacing.sessions import MAX_HOSTS, SessionBaselines
from streams.stages.pacing.shape import MAX_HOURS, TrafficShape
from streams.terms import Pacing, PacingMode
from tests.unit.pacing_world import DAY, HOUR, MONDAY, Loop, campaign


def fed(days: int, by_hour=lambda hour: 1_000.0) -> TrafficShape:
    shape = TrafficShape()
    for hour in range(days * 24 + 1):
        shape.add(MONDAY + hour * HOUR_MS, by_hour(hour))
    return shape


def evening(hour: int) -> float:
    return 5_000.0 if hour % 24 == 20 else 1_000.0


def hour_of(day: int, hour: int) -> int:
    return MONDAY // HOUR_MS + 24 * day + hour


def test_a_shape_is_even_until_a_whole_day_is_known() -> None:
    shape = fed(1, evening)
    assert shape.version == -1
    assert shape.weight(hour_of(1, 20)) == 1.0


def test_unthrottled_traffic_is_all_of_it_before_a_first_control_and_nothing_where_little_was_let_through() -> None:
    loop = Loop(campaign(daily=1), supply=50)
    assert loop.pacer.unthrottled(30) == 30
    loop.look()
    assert loop.pacer.unthrottled(30) == pytest.approx(300)
    loop.run(DAY - HOUR)
    assert loop.rates[-1] < 0.02
    assert loop.pacer.unthrottled(30) == 0


def test_a_shape_of_little_traffic_stays_even() -> None:
    assert fed(3, lambda hour: evening(hour) / 5_000).version == -1


def test_an_evening_is_learned_from_two_days() -> None:
    shape = fed(2, evening)
    assert shape.weight(hour_of(2, 20)) / shape.weight(hour_of(2, 12)) == pytest.approx(5, rel=0.01)
    mean = sum(shape.weight(hour_of(2, hour)) for hour in range(168)) / 168
    assert mean == pytest.approx(1)


def test_a_weekday_of_its_own_is_learned_from_weeks() -> None:
    shape = fed(21, lambda hour: 3_000.0 if hour // 24 % 7 == 6 else 1_000.0)
    assert shape.weight(hour_of(27, 12)) > 1.7 * shape.weight(hour_of(26, 12))


def test_what_is_long_ago_counts_less() -> None:
    shape = fed(28, lambda hour: 5_000.0 if hour % 24 == (8 if hour < 14 * 24 else 20) else 1_000.0)
    assert shape.weight(hour_of(28, 20)) > 1.5 * shape.weight(hour_of(28, 8))


def test_the_order_of_additions_does_not_matter() -> None:
    amounts = [(MONDAY + hour * HOUR_MS, 1_000.1 * (1 + hour % 5)) for hour in range(60)]
    one, other = TrafficShape(), TrafficShape()
    for amount in amounts:
        one.add(*amount)
    for amount in reversed(amounts):
        other.add(*amount)
    assert one.version == other.version != -1
    assert one.snapshot() == other.snapshot()


def test_memory_is_bounded_to_five_weeks() -> None:
    shape = fed(60)
    shape.add(MONDAY, 10**9)
    assert len(shape.snapshot()["hours"]) == MAX_HOURS
    assert shape.weight(hour_of(60, 0)) == pytest.approx(1, rel=0.01)


def test_a_restored_shape_is_as_old_as_it_was() -> None:
    shape = fed(2, evening)
    assert shape.version >= 0
    shape.add(MONDAY + 5 * HOUR_MS, 10**6)
    twin = TrafficShape()
    twin.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(shape.snapshot())))
    assert [twin.weight(hour) for hour in range(168)] == [shape.weight(hour) for hour in range(168)]


def test_a_plan_follows_the_shape_once_it_is_known() -> None:
    shaped = Pacing(mode=PacingMode.TRAFFIC_SHAPED)
    even, wise = Loop(campaign(pacing=shaped), MONDAY + 2 * DAY), Loop(campaign(pacing=shaped), MONDAY + 2 * DAY)
    wise.shape = fed(2, evening)
    for loop in (even, wise):
        loop.run(HOUR)
    share = 24 / 28
    assert wise.decisions[-1].target_micros == pytest.approx(share * even.decisions[-1].target_micros, rel=0.01)


def test_a_host_is_unknown_until_a_session_is_over() -> None:
    sessions = SessionBaselines()
    assert sessions.weight("h", 3) == 1.0
    sessions.learn("h", [10.0] * 20 + [1.0] * 20)
    assert sessions.is_known("h")
    assert sessions.weight("h", 5) > 5 * sessions.weight("h", 35)
    assert sessions.weight("h", 500) == sessions.weight("h", 39)


def test_hosts_are_bounded_and_the_one_longest_unheard_of_gives_way() -> None:
    sessions = SessionBaselines()
    sessions.learn("first", [1.0] * 20)
    sessions.learn("second", [1.0] * 20)
    sessions.learn("first", [1.0] * 20)
    for number in range(MAX_HOSTS - 1):
        sessions.learn(f"h-{number}", [1.0] * 20)
    assert sessions.is_known("first")
    assert not sessions.is_known("second")


def test_a_session_of_a_few_minutes_teaches_nothing() -> None:
    sessions = SessionBaselines()
    sessions.learn("h", [1.0] * 9)
    sessions.learn("", [1.0] * 20)
    assert not sessions.is_known("h")
    assert not sessions.is_known("")
