"""The campaign's day, in its own time zone: also where it has 23 or 25 hours."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from streams.events import Input
from streams.state.windows import DAY, WINDOW_INDEX, Windows, day_bounds
from tests.unit.given import HOUR, MINUTE, SECOND, Fed, document

SHOWN = WINDOW_INDEX["impressions"]
PANE = 10 * SECOND


def at(text: str, zone: str = "UTC") -> int:
    """A local time, epoch ms; its offset may be written out."""
    found = datetime.fromisoformat(text)
    return int((found if found.tzinfo else found.replace(tzinfo=ZoneInfo(zone))).timestamp() * 1000)


BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"

DAYS = [
    ("UTC", "2024-02-29T12:00", "2024-02-29T00:00+00:00", 24),
    ("Asia/Shanghai", "2024-11-11T00:00", "2024-11-11T00:00+08:00", 24),
    ("Asia/Kathmandu", "2024-01-01T23:59", "2024-01-01T00:00+05:45", 24),
    ("Pacific/Kiritimati", "2024-01-01T06:00", "2024-01-01T00:00+14:00", 24),
    (BERLIN, "2024-03-30T23:00", "2024-03-30T00:00+01:00", 24),
    (BERLIN, "2024-03-31T12:00", "2024-03-31T00:00+01:00", 23),
    (BERLIN, "2024-04-01T12:00", "2024-04-01T00:00+02:00", 24),
    (BERLIN, "2024-10-27T12:00", "2024-10-27T00:00+02:00", 25),
    (NEW_YORK, "2024-03-10T12:00", "2024-03-10T00:00-05:00", 23),
    (NEW_YORK, "2024-11-03T12:00", "2024-11-03T00:00-04:00", 25),
    (NEW_YORK, "2024-11-04T12:00", "2024-11-04T00:00-05:00", 24),
    ("Australia/Lord_Howe", "2024-04-07T12:00", "2024-04-07T00:00+11:00", 24.5),
    # where the clocks change at midnight, a day may begin at one, or twice
    ("Africa/Cairo", "2024-04-26T12:00", "2024-04-26T01:00+03:00", 23),
    ("America/Havana", "2024-11-03T12:00", "2024-11-03T00:00-04:00", 25),
    ("America/Havana", "2024-03-10T12:00", "2024-03-10T01:00-04:00", 23),
]


@pytest.mark.parametrize(("zone", "noon", "start", "hours"), DAYS)
def test_a_day_is_from_local_midnight_to_local_midnight(zone: str, noon: str, start: str, hours: float) -> None:
    begin, end = day_bounds(at(noon, zone), zone)
    assert (begin, end - begin) == (at(start), hours * HOUR)
    assert day_bounds(begin, zone) == day_bounds(end - 1, zone) == (begin, end)


@pytest.mark.parametrize("zone", sorted({day[0] for day in DAYS} | {"Pacific/Apia", "America/Sao_Paulo"}))
@pytest.mark.parametrize("year", [2011, 2018, 2024])
def test_days_follow_one_another_without_gap_or_overlap(zone: str, year: int) -> None:
    moment = at(f"{year}-01-01T12:00", zone)
    begin, end = day_bounds(moment, zone)
    for _ in range(366):
        assert begin <= moment < end
        following = day_bounds(end, zone)
        assert following[0] == end
        moment, (begin, end) = end, following


def windows(zone: str, newest_ms: int) -> Windows:
    found = Windows(PANE)
    found.zones["c1"] = zone
    found.advance(newest_ms)
    return found


def today(found: Windows) -> int:
    return found.totals("c1", DAY)[SHOWN]


@pytest.mark.parametrize(
    ("zone", "date", "hours"),
    [
        (BERLIN, "2024-03-31", 23),
        (BERLIN, "2024-10-27", 25),
        (NEW_YORK, "2024-03-10", 23),
        (NEW_YORK, "2024-11-03", 25),
        ("Asia/Shanghai", "2024-11-11", 24),
    ],
)
def test_the_day_counts_every_hour_of_its_own_and_none_of_its_neighbours(zone: str, date: str, hours: int) -> None:
    begin = at(f"{date}T00:00", zone)
    found = windows(zone, begin - HOUR)
    seen = []
    for hour in range(-1, hours + 1):
        found.advance(begin + hour * HOUR)
        found.add("c1", begin + hour * HOUR, [(SHOWN, 1)])
        seen.append(today(found))
    assert seen == [1, *range(1, hours + 1), 1]


def test_the_last_pane_of_a_day_belongs_to_it() -> None:
    begin = at("2024-05-05T00:00", BERLIN)
    found = windows(BERLIN, begin + 24 * HOUR - PANE)
    found.add("c1", begin + 24 * HOUR - PANE, [(SHOWN, 1)])
    assert today(found) == 1
    found.advance(begin + 24 * HOUR)
    found.add("c1", begin + 24 * HOUR, [(SHOWN, 7)])
    assert today(found) == 7


def test_after_midnight_the_day_is_empty_before_its_first_event() -> None:
    midnight = at("2024-05-06T00:00", BERLIN)
    found = windows(BERLIN, midnight - PANE)
    found.add("c1", midnight - PANE, [(SHOWN, 5)])
    found.advance(midnight + 2 * PANE)
    assert today(found) == 0
    assert found.totals("c1", "1h")[SHOWN] == 5
    assert found.all_totals(DAY)["c1"][SHOWN] == 0


def test_a_late_event_of_today_is_added_to_today() -> None:
    midnight = at("2024-05-06T00:00", BERLIN)
    found = windows(BERLIN, midnight + 20 * HOUR)
    found.add("c1", midnight + 20 * HOUR, [(SHOWN, 1)])
    found.add("c1", midnight + HOUR, [(SHOWN, 10)])  # long out of the ring
    assert today(found) == 11
    assert found.totals("c1", "1h")[SHOWN] == 1


def test_a_late_event_of_yesterday_does_not_change_today() -> None:
    midnight = at("2024-05-06T00:00", BERLIN)
    found = windows(BERLIN, midnight + MINUTE)
    found.add("c1", midnight + MINUTE, [(SHOWN, 1)])
    found.add("c1", midnight - PANE, [(SHOWN, 10)])
    assert today(found) == 1
    assert found.totals("c1", "5m")[SHOWN] == 11


def test_a_late_event_of_yesterday_does_not_make_yesterday_todays_day() -> None:
    midnight = at("2024-05-06T00:00", BERLIN)
    found = windows(BERLIN, midnight + 2 * HOUR)
    found.add("c1", midnight - 5 * HOUR, [(SHOWN, 7)])
    assert today(found) == 0
    found.add("c1", midnight + 2 * HOUR, [(SHOWN, 1)])
    assert today(found) == 1


def test_a_campaign_without_settings_has_the_day_of_utc() -> None:
    fed = Fed()
    for number, text in enumerate(["2024-05-05T23:59:50+00:00", "2024-05-06T00:00:00+00:00"]):
        fed.feed(Input.IMPRESSIONS, document(Input.IMPRESSIONS, f"e{number}", at(text)))
        fed.tick()
        assert today(fed.state.windows) == 1


def test_the_settings_time_zone_decides_from_the_next_day_on() -> None:
    fed = Fed()
    fed.settle(time_zone="Asia/Shanghai", appended_ms=at("2024-05-05T00:00+00:00")).tick()
    for number, text in enumerate(["2024-05-05T15:59:50+00:00", "2024-05-05T16:00:00+00:00"]):  # midnight in Shanghai
        fed.feed(Input.IMPRESSIONS, document(Input.IMPRESSIONS, f"e{number}", at(text)))
        fed.tick()
        assert today(fed.state.windows) == 1
    fed.settle(time_zone="UTC", appended_ms=at("2024-05-05T17:00+00:00")).tick()
    fed.feed(Input.IMPRESSIONS, document(Input.IMPRESSIONS, "later", at("2024-05-06T01:00+00:00")))
    fed.tick()
    assert today(fed.state.windows) == 2  # the day that has begun is the one of Shanghai, to its end
    fed.feed(Input.IMPRESSIONS, document(Input.IMPRESSIONS, "next", at("2024-05-06T16:00+00:00")))
    fed.tick()
    assert today(fed.state.windows) == 1
