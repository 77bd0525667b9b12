"""When a partition's traffic comes: its share by weekday and hour, learned from what was seen and decayed.

Plans follow the share of the traffic that is to be expected, not the clock (LinkedIn, KDD 2014: budget pacing by the
forecast of traffic). Until a whole day is known the shape is even. Hours are UTC: a campaign's own hours differ by its
time zone, its traffic does not.
"""

from typing import Any, Final

from streams.rules import HOUR_MS
from streams.stages.pacing.sessions import SessionBaselines

WEEK_HOURS: Final = 168
MAX_HOURS: Final = 5 * WEEK_HOURS
"""Older hours are forgotten; by then they would count for less than a twentieth."""
WEEKLY_DECAY: Final = 0.5
DAILY_DECAY: Final = 0.8
ENOUGH_HOURS: Final = 24
ENOUGH_IMPRESSIONS: Final = 1_000
_PRIOR_WEEKS: Final = 1.0
"""How many weeks' worth the average of an hour over all weekdays counts against the weekday's own."""
_MILLI: Final = 1_000


class TrafficShape:
    """Traffic by absolute hour of the last five weeks, and the profile of a week made of it, once an hour.

    Sums are integers, so the order of additions does not matter. At most `MAX_HOURS` numbers.
    """

    def __init__(self) -> None:
        self._hours: dict[int, int] = {}
        self._newest = -1
        self._profiled = -1
        self._profile: list[float] = []
        self.sessions = SessionBaselines()
        """What the partition's live sessions were like; fed by the campaigns that promoted them."""

    def add(self, origin_ms: int, impressions: float) -> None:
        """Traffic of one pane. Unthrottled traffic is best (see `CampaignPacer.unthrottled`); may be a correction."""
        hour = origin_ms // HOUR_MS
        if hour <= self._newest - MAX_HOURS or hour < 0:
            return
        self._hours[hour] = self._hours.get(hour, 0) + round(impressions * _MILLI)
        if hour > self._newest:
            self._newest = hour
            oldest = hour - MAX_HOURS
            if len(self._hours) > 1 and min(self._hours) <= oldest:
                self._hours = {at: self._hours[at] for at in sorted(self._hours) if at > oldest}

    @property
    def version(self) -> int:
        """Changes with the profile, at most once an hour; -1 while the shape is even."""
        self._refresh()
        return self._profiled if self._profile else -1

    def weight(self, hour: int) -> float:
        """Expected traffic of an absolute hour (epoch hours), relative to the average hour; 1 while unknown."""
        self._refresh()
        return self._profile[hour % WEEK_HOURS] if self._profile else 1.0

    def _refresh(self) -> None:
        if self._newest > self._profiled:
            self._profiled = self._newest
            self._profile = self._learn()

    def _learn(self) -> list[float]:
        """The week's profile with mean 1 over its hours; empty while too little is known."""
        oldest = min(self._hours)
        whole = range(oldest + 1, self._newest)  # the first and the newest hour are not whole
        if len(whole) < ENOUGH_HOURS or sum(self._hours.get(h, 0) for h in whole) < ENOUGH_IMPRESSIONS * _MILLI:
            return []
        week_sums, week_weights = [0.0] * WEEK_HOURS, [0.0] * WEEK_HOURS
        day_sums, day_weights = [0.0] * 24, [0.0] * 24
        for hour in whole:
            amount, age = max(0, self._hours.get(hour, 0)), self._newest - hour
            by_week, by_day = WEEKLY_DECAY ** (age // WEEK_HOURS), DAILY_DECAY ** (age // 24)
            week_sums[hour % WEEK_HOURS] += by_week * amount
            week_weights[hour % WEEK_HOURS] += by_week
            day_sums[hour % 24] += by_day * amount
            day_weights[hour % 24] += by_day
        typical = [total / weight for total, weight in zip(day_sums, day_weights, strict=True)]
        cells = [
            (week_sums[at] + _PRIOR_WEEKS * typical[at % 24]) / (week_weights[at] + _PRIOR_WEEKS)
            for at in range(WEEK_HOURS)
        ]
        mean = sum(cells) / WEEK_HOURS
        return [max(0.02, cell / mean) for cell in cells] if mean > 0 else []

    def snapshot(self) -> dict[str, Any]:
        """Builtin values; the profile too, for it is as old as its hour."""
        return {
            "hours": [(hour, self._hours[hour]) for hour in sorted(self._hours)],
            "newest": self._newest,
            "profiled": self._profiled,
            "profile": list(self._profile),
            "sessions": self.sessions.snapshot(),
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Takes back what `snapshot` gave."""
        self._hours = dict(snapshot["hours"])
        self._newest, self._profiled = snapshot["newest"], snapshot["profiled"]
        self._profile = list(snapshot["profile"])
        self.sessions.restore(snapshot["sessions"])
