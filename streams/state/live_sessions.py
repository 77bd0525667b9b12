"""What is told of live sessions, until it has happened: in the order of its times, whenever it was told.

A record may tell of a time a little ahead, and in a backlog of all that is still to come. It waits here until the
campaign's pacing has reached its time, so what is announced changes nothing before.
"""

from bisect import insort
from typing import Any, Final

import msgspec

from streams.events import Reason, Rejected
from streams.signals import LiveSession

MAX_CAMPAIGNS: Final = 10_000
"""Campaigns that anything waits of; of a further one nothing is taken."""
MAX_WAITING: Final = 32
"""Records of a campaign that wait; beyond it the earliest gives way."""


def refusal(session: LiveSession, appended_ms: int, skew_ms: int) -> Rejected | None:
    """Why a record is not taken: it tells of a time further than `skew_ms` beyond its own timestamp."""
    return Rejected(Reason.FUTURE, "$.event_time_ms") if session.event_time_ms > appended_ms + skew_ms else None


class LiveSessions:
    """Of one partition's campaigns, whether or not these have settings yet."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[LiveSession]] = {}

    def take(self, session: LiveSession) -> bool:
        """A record takes effect once its time has come. False where one is lost, this or an earlier one."""
        waiting = self._waiting.get(session.campaign_id)
        if waiting is None:
            if len(self._waiting) >= MAX_CAMPAIGNS:
                return False
            waiting = self._waiting[session.campaign_id] = []
        insort(waiting, session, key=_time_of)  # behind those of the same time
        if len(waiting) <= MAX_WAITING:
            return True
        del waiting[0]
        return False

    def happened(self, campaign: str, now_ms: int) -> tuple[LiveSession, ...]:
        """What has happened by now and was not given out before, in the order of its times; event time."""
        waiting = self._waiting.get(campaign)
        if waiting is None or waiting[0].event_time_ms > now_ms:
            return ()
        found = tuple(session for session in waiting if session.event_time_ms <= now_ms)
        if len(found) == len(waiting):
            del self._waiting[campaign]
        else:
            del waiting[: len(found)]
        return found

    def forget(self, campaign: str) -> None:
        """Nothing of the campaign waits any more."""
        self._waiting.pop(campaign, None)

    def snapshot(self) -> list[Any]:
        """Plain values, by campaign in the order of their times."""
        return [msgspec.to_builtins(session) for waiting in self._waiting.values() for session in waiting]

    def restore(self, snapshot: list[Any]) -> None:
        """Takes back what `snapshot` gave."""
        self._waiting = {}
        for session in msgspec.convert(snapshot, list[LiveSession]):
            self._waiting.setdefault(session.campaign_id, []).append(session)


def _time_of(session: LiveSession) -> int:
    return session.event_time_ms
