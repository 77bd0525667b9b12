"""Which period a campaign is in.

* **day**: the local day, cut to the flight. Its budget is the daily one, not prorated; or, with a total budget
  alone and an end of the flight, its share of what the flight has left, by the traffic to be expected.
* **live_session**: from the start of a live session to its end, planned or real.
* **flight**: a total budget alone without an end of the flight: it only caps, as soon as possible.
"""

from enum import IntEnum
from typing import Final, NamedTuple

from streams.campaigns import CampaignSettings
from streams.rules import HOUR_MS, MINUTE_MS
from streams.signals import LiveSession, SessionState
from streams.terms import PacingPeriod

OPEN_END_MS: Final = 253_402_300_799_000
"""The end of a period that has none: the year 9999."""
USUAL_SESSION_MS: Final = 4 * HOUR_MS
"""How long a live session is taken to last when its end is not planned."""
EXTENSION_MS: Final = 30 * MINUTE_MS
"""A session that outlasts its planned end is taken to go on for so long."""


class Stage(IntEnum):
    NOT_STARTED = 0
    RUNNING = 1
    ENDED = 2


class Period(NamedTuple):
    """[start, end) of what is planned as one, epoch ms."""

    kind: str
    start_ms: int
    end_ms: int
    day_ms: int
    """Start of the local day that holds now."""
    stage: Stage


class SessionClock:
    """The campaign's latest live session: when it began, when it ends."""

    def __init__(self) -> None:
        self.session_id = ""
        self.creator_id = ""
        self.began_ms: int | None = None
        self.ended_ms: int | None = None
        self.planned_ms: int | None = None

    def tell(self, session: LiveSession) -> bool:
        """Takes a record that has happened; true where a session began that was not known.

        The end of another session than the latest changes nothing, nor does the begin, told late, of one before it.
        """
        is_new = session.live_session_id != self.session_id
        if session.state is SessionState.ENDED:
            if not self.session_id:
                self.session_id = session.live_session_id  # nobody told when it began
            if session.live_session_id == self.session_id:
                self.ended_ms = session.event_time_ms
            return False
        if not is_new:
            if self.ended_ms is None:
                self.planned_ms = session.planned_end_ms or self.planned_ms
            return False
        if self.began_ms is not None and session.event_time_ms < self.began_ms:
            return False
        self.session_id, self.creator_id = session.live_session_id, session.creator_id or ""
        self.began_ms, self.ended_ms, self.planned_ms = session.event_time_ms, None, session.planned_end_ms
        return True

    def end_at(self, now_ms: int) -> int:
        """When the running session is to end, as far as is known now; later than now while it runs."""
        assert self.began_ms is not None
        if self.ended_ms is not None:
            return max(self.ended_ms, self.began_ms + 1)
        end = self.planned_ms or self.began_ms + USUAL_SESSION_MS
        end = max(end, self.began_ms + MINUTE_MS)
        return end if now_ms < end else end + ((now_ms - end) // EXTENSION_MS + 1) * EXTENSION_MS

    def snapshot(self) -> list[int | str | None]:
        """Builtin values."""
        return [self.session_id, self.creator_id, self.began_ms, self.ended_ms, self.planned_ms]

    def restore(self, snapshot: list[object]) -> None:
        """Takes back what `snapshot` gave."""
        self.session_id, self.creator_id, self.began_ms, self.ended_ms, self.planned_ms = snapshot  # type: ignore[assignment]


def period_of(settings: CampaignSettings, now_ms: int, clock: SessionClock, day: tuple[int, int]) -> Period:
    """The period that holds now; `day` are the bounds of its local day."""
    start, end = settings.flight_start_ms, settings.flight_end_ms
    stage = Stage.RUNNING
    if start is not None and now_ms < start:
        stage = Stage.NOT_STARTED
    elif end is not None and now_ms >= end:
        stage = Stage.ENDED
    if settings.pacing.period is PacingPeriod.LIVE_SESSION:
        return _session_period(now_ms, clock, day, stage)
    budget = settings.budget
    if budget.daily_micros is None and budget.total_micros is not None and end is None:
        return Period("flight", start if start is not None else 0, OPEN_END_MS, day[0], stage)
    if stage is not Stage.RUNNING:
        return Period("day", day[0], day[1], day[0], stage)
    begins = max(day[0], start) if start is not None else day[0]
    ends = min(day[1], end) if end is not None else day[1]
    return Period("day", begins, ends, day[0], stage)


def _session_period(now_ms: int, clock: SessionClock, day: tuple[int, int], stage: Stage) -> Period:
    if clock.began_ms is None:
        stage = Stage.ENDED if clock.ended_ms is not None else min(stage, Stage.NOT_STARTED)
        return Period("live_session", day[0], day[1], day[0], stage)
    end = clock.end_at(now_ms)
    if stage is Stage.RUNNING and clock.ended_ms is not None and now_ms >= clock.ended_ms:
        stage = Stage.ENDED
    elif now_ms < clock.began_ms:
        stage = Stage.NOT_STARTED
    return Period("live_session", clock.began_ms, end, day[0], stage)
