"""What a campaign spent, exactly: by local day, over its flight, in its live session, and since ever.

gross = valid + credited in each. A credit whose period has closed is kept apart, for billing; late spend of a closed
day enters that day (and the flight), never today's.
"""

from typing import Any, Final

from streams.campaigns import CampaignSettings
from streams.stages.pacing.facts import Added, Money
from streams.state.windows import day_bounds
from streams.terms import PacingPeriod

PANE_MS: Final = 10_000
"""The widest usual pane: a pane that reaches into a period belongs to it."""
MAX_DAYS: Final = 40
"""Days that are kept: more than the longest cap of an over-delivery policy."""
MAX_RECENT: Final = 512
"""Panes that are kept so that a session's start, told late, finds what was spent since."""


class Ledger:
    """Sums of integers only: the order of additions within a tick does not matter. Bounded by `MAX_DAYS` days."""

    def __init__(self) -> None:
        self.zone = ""
        self.open_from_ms = -1
        """What happened before is closed: its credits go to billing."""
        self.closed_credit = 0
        self.ever = [0, 0]
        self.flight = [0, 0]
        self.session = [0, 0]
        self.session_from_ms: int | None = None
        self.session_to_ms: int | None = None
        self.days: dict[int, list[int]] = {}
        """Start of the local day: gross, credited, and the daily budget then in force (micros)."""
        self._day = (0, 0)
        self._recent: dict[int, list[int]] = {}

    @property
    def paced(self) -> int:
        """Spend since ever as pacing sees it, millimicros: without the credits that came too late for it."""
        return self.ever[0] - self.ever[1] + self.closed_credit

    def add(self, settings: CampaignSettings, added: Added) -> int:
        """One pane's amounts. Cheap: a few additions, and a look at the calendar once a day.

        Returns what of its credits pacing may see, millimicros: none where their period has closed.
        """
        gross, credited, origin = added.spend_millimicros, added.credited_millimicros, added.origin_ms
        if not gross and not credited:
            return 0
        self.ever[0] += gross
        self.ever[1] += credited
        if origin < self.open_from_ms:
            self.closed_credit += credited
            credited = 0
        start, end = settings.flight_start_ms, settings.flight_end_ms
        if (start is None or origin > start - PANE_MS) and (end is None or origin < end):
            self.flight[0] += gross
            self.flight[1] += credited
        day = self.day(self._day_start(origin, settings.time_zone))
        day[0] += gross
        day[1] += credited
        if settings.pacing.period is PacingPeriod.LIVE_SESSION:
            self._add_to_session(origin, gross, credited)
        return credited

    def day(self, start_ms: int) -> list[int]:
        """The entry of a local day; the oldest gives way."""
        entry = self.days.get(start_ms)
        if entry is None:
            entry = self.days[start_ms] = [0, 0, 0]
            if len(self.days) > MAX_DAYS:
                del self.days[min(self.days)]
        return entry

    def _day_start(self, at_ms: int, zone: str) -> int:
        if zone != self.zone or not self._day[0] <= at_ms < self._day[1]:
            self._day = day_bounds(at_ms, zone)
            self.zone = zone
        return self._day[0]

    def _add_to_session(self, origin: int, gross: int, credited: int) -> None:
        begins, ends = self.session_from_ms, self.session_to_ms
        if begins is not None and origin > begins - PANE_MS and (ends is None or origin < ends):
            self.session[0] += gross
            self.session[1] += credited
        pane = self._recent.setdefault(origin, [0, 0])
        pane[0] += gross
        pane[1] += credited
        if len(self._recent) > MAX_RECENT:
            del self._recent[min(self._recent)]

    def begin_session(self, begins_ms: int) -> None:
        """A session began: what was spent since then counts, as far as it is remembered."""
        self.session_from_ms, self.session_to_ms = begins_ms, None
        since = [pane for origin, pane in self._recent.items() if origin > begins_ms - PANE_MS]
        self.session = [sum(pane[0] for pane in since), sum(pane[1] for pane in since)]

    def begin_flight(self, begins_ms: int | None) -> None:
        """The flight's begin was changed: its spend is counted again, by whole days, as far as they are kept."""
        if begins_ms is None:
            self.flight = [self.ever[0], self.ever[1] - self.closed_credit]
            return
        first = day_bounds(begins_ms, self.zone or "UTC")[0]
        days = [entry for start, entry in self.days.items() if start >= first]
        self.flight = [sum(entry[0] for entry in days), sum(entry[1] for entry in days)]

    def move_day(self, before_ms: int, after_ms: int) -> None:
        """The time zone was changed: what the running day spent stays with the running day, under its new name."""
        if before_ms != after_ms and before_ms in self.days:
            moved, there = self.days.pop(before_ms), self.day(after_ms)
            there[0] += moved[0]
            there[1] += moved[1]

    def money_of_day(self, start_ms: int) -> Money:
        """Of one local day."""
        entry = self.days.get(start_ms)
        return Money(entry[0], entry[1]) if entry else Money(0, 0)

    def snapshot(self) -> dict[str, Any]:
        """Builtin values, in a fixed order."""
        return {
            "zone": self.zone,
            "open_from_ms": self.open_from_ms,
            "closed_credit": self.closed_credit,
            "sums": [list(self.ever), list(self.flight), list(self.session)],
            "session": [self.session_from_ms, self.session_to_ms],
            "days": [(start, list(self.days[start])) for start in sorted(self.days)],
            "recent": [(origin, list(self._recent[origin])) for origin in sorted(self._recent)],
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Takes back what `snapshot` gave."""
        self.zone, self.open_from_ms = snapshot["zone"], snapshot["open_from_ms"]
        self.closed_credit = snapshot["closed_credit"]
        self.ever, self.flight, self.session = (list(sums) for sums in snapshot["sums"])
        self.session_from_ms, self.session_to_ms = snapshot["session"]
        self.days = {start: list(entry) for start, entry in snapshot["days"]}
        self._recent = {origin: list(pane) for origin, pane in snapshot["recent"]}
        self._day = (0, 0)
