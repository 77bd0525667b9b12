"""When quiet hours end and digests are due: clock times of a time zone, days of 23 and 25 hours included."""

from datetime import datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Final, Literal
from zoneinfo import ZoneInfo

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 3_600_000
Every = Literal["daily", "hourly", "off"]


@lru_cache(maxsize=1024)
def zone_of(name: str) -> tzinfo:
    """The zone; UTC for a name that this machine does not know."""
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        return ZoneInfo("UTC")


def quiet_until_ms(begins: str, ends: str, time_zone: str, now_ms: int) -> int:
    """When the quiet hours (HH:MM, may span midnight) that hold at `now_ms` end; 0 where none hold."""
    first, last = _minutes(begins), _minutes(ends)
    if first < 0 or last < 0 or first == last:
        return 0
    local = datetime.fromtimestamp(now_ms / 1000, zone_of(time_zone))
    minute = local.hour * 60 + local.minute
    is_quiet = first <= minute < last if first < last else minute >= first or minute < last
    if not is_quiet:
        return 0
    day = local if minute < last else local + timedelta(days=1)
    return _at(day, last, now_ms)


def next_slot_ms(after_ms: int, every: Every, hour: int, time_zone: str) -> int:
    """The first digest strictly after a time: on the hour (UTC), or at `hour` o'clock of the zone."""
    if every == "hourly":
        return (after_ms // HOUR_MS + 1) * HOUR_MS
    local = datetime.fromtimestamp(after_ms / 1000, zone_of(time_zone))
    slot_ms = _at(local, hour * 60)
    return slot_ms if slot_ms > after_ms else _at(local + timedelta(days=1), hour * 60)


def _minutes(clock: str) -> int:
    """Minutes since midnight; -1 for none."""
    hours, colon, minutes = clock.partition(":")
    if not (colon and hours.isdecimal() and minutes.isdecimal()):
        return -1
    return int(hours) * 60 + int(minutes)


def _at(day: datetime, minute: int, after_ms: int = -1) -> int:
    """Epoch ms of a clock time on a local day; where it comes twice, the first that is after `after_ms`."""
    local = day.replace(hour=minute // 60, minute=minute % 60, second=0, microsecond=0, fold=0)
    for fold in (0, 1):
        at_ms = round(local.replace(fold=fold).timestamp() * 1000)
        if at_ms > after_ms:
            return at_ms
    return after_ms + MINUTE_MS
