"""Recent hours and what is usual at an hour of the week."""

from datetime import datetime
from zoneinfo import ZoneInfo

import msgspec
import pytest

from streams.rules import DAY_MS, HOUR_MS
from streams.stages.alerting.hours import (
    CLICKS,
    DECAY,
    IMPRESSIONS,
    LEARNED_AFTER_MS,
    MAX_HOURS,
    TAINT,
    TAINT_CLICKS,
    Hours,
    local_date,
    week_hour,
)

MONDAY = 1_700_438_400_000
WEEK = 7 * DAY_MS


def at(text: str, zone: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


@pytest.mark.parametrize(
    ("zone", "local", "bucket"),
    [
        ("UTC", "2023-11-20T00:00", 0),
        ("Asia/Shanghai", "2023-11-20T00:00", 0),
        ("Asia/Kathmandu", "2023-11-26T23:15", 167),
        ("Europe/Berlin", "2024-03-31T03:00", 6 * 24 + 3),  # the hour after the one that does not exist
        ("America/New_York", "2024-07-03T17:00", 2 * 24 + 17),
    ],
)
def test_an_hour_of_the_week_is_local(zone: str, local: str, bucket: int) -> None:
    assert week_hour(at(local, zone), zone) == bucket
    assert local_date(at(local, zone), zone) == local[:10]


def fed(hours: Hours, start_ms: int, impressions: int, clicks: int) -> None:
    hour = hours.hour(start_ms)
    assert hour is not None
    hour[IMPRESSIONS] += impressions
    hour[CLICKS] += clicks


def test_a_bucket_is_a_decayed_sum_and_needs_two_visits() -> None:
    hours = Hours()
    for week in range(3):
        fed(hours, MONDAY + week * WEEK, 1_000, 10 * (week + 1))
        hours.learn(MONDAY + week * WEEK, "UTC")
        usual = hours.usual(MONDAY + 3 * WEEK, "UTC")
        assert (usual is None) == (week == 0)
    assert usual is not None
    assert usual.clicks == pytest.approx(30 + DECAY * (20 + DECAY * 10))
    assert usual.visits == pytest.approx(1 + DECAY * (1 + DECAY))
    assert usual.is_same_weekday


def test_the_same_hour_of_other_days_stands_in_until_the_weekday_is_known() -> None:
    hours = Hours()
    for day in range(4):
        fed(hours, MONDAY + day * DAY_MS, 1_000, 20)
        hours.learn(MONDAY + day * DAY_MS, "UTC")
        assert (hours.usual(MONDAY + 4 * DAY_MS, "UTC") is None) == (day < 3)
    usual = hours.usual(MONDAY + 4 * DAY_MS, "UTC")
    assert usual is not None
    assert (usual.clicks, usual.impressions, usual.is_same_weekday) == (80, 4_000, False)
    assert hours.usual(MONDAY + 4 * DAY_MS + HOUR_MS, "UTC") is None


def test_an_hour_with_something_unknown_or_without_impressions_is_not_learned() -> None:
    hours = Hours()
    for week in range(4):
        fed(hours, MONDAY + week * WEEK, 1_000 * (week % 2), 10)
        hours.recent[MONDAY + week * WEEK][TAINT] = TAINT_CLICKS * (week % 2)
        hours.learn(MONDAY + week * WEEK, "UTC")
    assert hours.usual(MONDAY, "UTC") is None
    assert hours.overall() is None


def test_an_hour_is_due_when_its_last_click_has_had_its_hour_and_later_while_history_is_read() -> None:
    hours = Hours()
    fed(hours, MONDAY, 1, 0)
    assert hours.due(MONDAY + LEARNED_AFTER_MS - 1, is_catching_up=False) == []
    assert hours.due(MONDAY + LEARNED_AFTER_MS, is_catching_up=False) == [MONDAY]
    assert hours.due(MONDAY + LEARNED_AFTER_MS, is_catching_up=True) == []
    assert hours.due(MONDAY + 2 * DAY_MS, is_catching_up=True) == [MONDAY]


def test_what_comes_for_a_learned_hour_changes_nothing() -> None:
    hours = Hours()
    fed(hours, MONDAY, 1_000, 10)
    hours.learn(MONDAY, "UTC")
    hours.forget(MONDAY + DAY_MS)
    assert hours.hour(MONDAY) is None
    assert hours.hour(MONDAY + HOUR_MS) is not None


@pytest.mark.parametrize("backwards", [False, True])
def test_of_too_many_hours_the_newest_stay_whatever_the_order(backwards: bool) -> None:
    hours = Hours()
    order = range(100, -1, -1) if backwards else range(101)
    for hour in order:
        fed(hours, MONDAY + hour * HOUR_MS, 1, 1)
    assert sorted(hours.recent) == [MONDAY + hour * HOUR_MS for hour in range(101 - MAX_HOURS, 101)]


def test_a_snapshot_brings_everything_back() -> None:
    hours, held = Hours(), Hours()
    for hour in range(400):
        fed(hours, MONDAY + hour * HOUR_MS, 1_000 + hour, hour)
        for due in hours.due(MONDAY + hour * HOUR_MS, is_catching_up=False):
            hours.learn(due, "Asia/Tokyo")
    held.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(hours.snapshot())))
    assert (held.recent, held.floor_ms, held.since_ms) == (hours.recent, hours.floor_ms, hours.since_ms)
    assert held.overall() == hours.overall()
    assert [held.usual(MONDAY + h * HOUR_MS, "Asia/Tokyo") for h in range(168)] == [
        hours.usual(MONDAY + h * HOUR_MS, "Asia/Tokyo") for h in range(168)
    ]
