"""What a campaign spent, exactly: by local day, over its flight, in its live session, and since ever.

gross = valid + credited in each. A credit whose period has closed is kept apart, for billing; late spend of a closed
day enters that day (and the flight), never today's.

**Excess** is what a day, a session or a flight spent beyond what its policy of over-delivery let it, as its latest look
had it: owed back, for billing too. It follows from the sums, so what is told late counts in the period that it is of. A
credit that came too late for pacing is owed already, and lessens it.
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


GROSS, CREDITED, BUDGET, CLOSED, LIMIT, EXCESS = range(6)
"""Of one period. Millimicros, but `BUDGET`: the daily budget in force, micros. `CLOSED`: credits that came too late for
pacing. `LIMIT`: what it may spend by its policy; below 0: it is not judged, and `EXCESS` stays as it is."""
UNJUDGED: Final = -1


def _sums(gross: int = 0, credited: int = 0, closed: int = 0) -> list[int]:
    return [gross, credited, 0, closed, UNJUDGED, 0]


class Ledger:
    """Sums of integers only: the order of additions within a tick does not matter. Bounded by `MAX_DAYS` days."""

    def __init__(self) -> None:
        self.zone = ""
        self.open_from_ms = -1
        """What happened before is closed: its credits go to billing."""
        self.closed_credit = 0
        self.excess = 0
        """Since ever. A day that is not kept any more takes its part into it for good."""
        self.ever = [0, 0]
        self.flight = _sums()
        self.session = _sums()
        self.session_from_ms: int | None = None
        self.session_to_ms: int | None = None
        self.days: dict[int, list[int]] = {}
        """By the start of the local day."""
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
        closed = 0
        if origin < self.open_from_ms:
            closed, credited = credited, 0
            self.closed_credit += closed
        start, end = settings.flight_start_ms, settings.flight_end_ms
        if (start is None or origin > start - PANE_MS) and (end is None or origin < end):
            self._put(self.flight, gross, credited, closed)
        self._put(self.day(self._day_start(origin, settings.time_zone)), gross, credited, closed)
        if settings.pacing.period is PacingPeriod.LIVE_SESSION:
            self._add_to_session(origin, gross, credited, closed)
        return credited

    def _put(self, sums: list[int], gross: int, credited: int, closed: int) -> None:
        sums[GROSS] += gross
        sums[CREDITED] += credited
        sums[CLOSED] += closed
        self._weigh(sums)

    def _weigh(self, sums: list[int]) -> None:
        if sums[LIMIT] == UNJUDGED:
            return
        excess = max(0, sums[GROSS] - sums[CREDITED] - sums[CLOSED] - sums[LIMIT])
        self.excess += excess - sums[EXCESS]
        sums[EXCESS] = excess

    def judge(self, period_kind: str, day_ms: int, limit: int, planned: int) -> None:
        """What the running period may spend, millimicros; `planned`: what was spent when it was planned last.

        What had been spent rightly when a budget was lowered stays right; what was excess already stays excess.
        """
        sums = self._of(period_kind, day_ms)
        right = planned if sums[LIMIT] == UNJUDGED else min(planned, sums[LIMIT])
        sums[LIMIT] = max(limit, right, 0)
        self._weigh(sums)

    def leave(self, day_ms: int) -> None:
        """Another kind of period begins, or none: what is spent from now on is not judged by what held before."""
        for sums in (self.day(day_ms), self.session, self.flight):
            sums[LIMIT] = UNJUDGED

    def _of(self, period_kind: str, day_ms: int) -> list[int]:
        if period_kind == "day":
            return self.day(day_ms)
        return self.session if period_kind == "live_session" else self.flight

    def day(self, start_ms: int) -> list[int]:
        """The entry of a local day; the oldest gives way."""
        entry = self.days.get(start_ms)
        if entry is None:
            entry = self.days[start_ms] = _sums()
            if len(self.days) > MAX_DAYS:
                del self.days[min(self.days)]
        return entry

    def _day_start(self, at_ms: int, zone: str) -> int:
        if zone != self.zone or not self._day[0] <= at_ms < self._day[1]:
            self._day = day_bounds(at_ms, zone)
            self.zone = zone
        return self._day[0]

    def _add_to_session(self, origin: int, gross: int, credited: int, closed: int) -> None:
        begins, ends = self.session_from_ms, self.session_to_ms
        if begins is not None and origin > begins - PANE_MS and (ends is None or origin < ends):
            self._put(self.session, gross, credited, closed)
        pane = self._recent.setdefault(origin, [0, 0])
        pane[0] += gross
        pane[1] += credited
        if len(self._recent) > MAX_RECENT:
            del self._recent[min(self._recent)]

    def begin_session(self, begins_ms: int) -> None:
        """A session began: what was spent since then counts, as far as it is remembered."""
        self.session_from_ms, self.session_to_ms = begins_ms, None
        since = [pane for origin, pane in self._recent.items() if origin > begins_ms - PANE_MS]
        self.session = _sums(sum(pane[0] for pane in since), sum(pane[1] for pane in since))

    def begin_flight(self, begins_ms: int | None) -> None:
        """The flight's begin was changed: its spend is counted again, by whole days, as far as they are kept."""
        if begins_ms is None:
            self.flight = _sums(self.ever[0], self.ever[1] - self.closed_credit, self.closed_credit)
            return
        first = day_bounds(begins_ms, self.zone or "UTC")[0]
        days = [entry for start, entry in self.days.items() if start >= first]
        self.flight = _sums(*(sum(entry[at] for entry in days) for at in (GROSS, CREDITED, CLOSED)))

    def move_day(self, before_ms: int, after_ms: int) -> None:
        """The time zone was changed: what the running day spent stays with the running day, under its new name."""
        if before_ms != after_ms and before_ms in self.days:
            moved, there = self.days.pop(before_ms), self.day(after_ms)
            for at in (GROSS, CREDITED, CLOSED, EXCESS):
                there[at] += moved[at]
            there[LIMIT] = moved[LIMIT]

    def money_of_day(self, start_ms: int) -> Money:
        """Of one local day."""
        entry = self.days.get(start_ms)
        return Money(entry[0], entry[1]) if entry else Money(0, 0)

    def snapshot(self) -> dict[str, Any]:
        """Builtin values, in a fixed order."""
        return {
            "zone": self.zone,
            "open_from_ms": self.open_from_ms,
            "owed": [self.closed_credit, self.excess],
            "sums": [list(self.ever), list(self.flight), list(self.session)],
            "session": [self.session_from_ms, self.session_to_ms],
            "days": [(start, list(self.days[start])) for start in sorted(self.days)],
            "recent": [(origin, list(self._recent[origin])) for origin in sorted(self._recent)],
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Takes back what `snapshot` gave."""
        self.zone, self.open_from_ms = snapshot["zone"], snapshot["open_from_ms"]
        self.closed_credit, self.excess = snapshot["owed"]
        self.ever, self.flight, self.session = (list(sums) for sums in snapshot["sums"])
        self.session_from_ms, self.session_to_ms = snapshot["session"]
        self.days = {start: list(entry) for start, entry in snapshot["days"]}
        self._recent = {origin: list(pane) for origin, pane in snapshot["recent"]}
        self._day = (0, 0)
