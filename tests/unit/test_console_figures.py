"""Days of the console's figures."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from streams.console.figures import day_start_s
from streams.state.windows import day_bounds


@pytest.mark.parametrize("zone", ["Atlantic/Azores", "America/Havana", "Asia/Beirut", "America/New_York", "UTC"])
def test_days_begin_where_those_of_the_windows_do_also_where_clocks_repeat_or_skip_midnight(zone: str) -> None:
    begin = datetime(2026, 1, 1, tzinfo=ZoneInfo("UTC"))
    for hours in range(366 * 24):
        at_s = int((begin + timedelta(hours=hours, minutes=30)).timestamp())
        assert day_start_s(at_s, zone) == day_bounds(at_s * 1000, zone)[0] // 1000, (zone, at_s)
