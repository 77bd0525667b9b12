"""Code that is wrong on purpose about controls, alerts, live sessions, allowances and lulls."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import count
from typing import Any
from unittest import mock

from streams.signals import RateReason
from streams.stages.alerting import life
from streams.stages.alerting.campaign import CampaignAlerts
from streams.stages.alerting.facts import AlertFacts, Condition
from streams.stages.alerting.life import Change, Life
from streams.stages.pacing.campaign import CampaignPacer
from streams.stages.pacing.facts import Decision, Facts
from streams.stages.pacing.periods import SessionClock
from streams.state.lull import Lull
from streams.state.pacing import Looked, PacingDesk
from streams.state.pacing import World as Seen
from streams.state.partition import PartitionState
from streams.state.silence import UsualRates

Patch = AbstractContextManager[Any]


def forgets_rates_in_recovery() -> Patch:
    """What campaigns have spent, and their plans, are not loaded from a checkpoint."""
    return mock.patch.object(CampaignPacer, "restore", return_value=None)


def forgets_what_fires_in_recovery() -> Patch:
    """The lives of alerts are not loaded from a checkpoint."""
    return mock.patch.object(CampaignAlerts, "restore", return_value=None)


def forgets_sessions_in_recovery() -> Patch:
    """Which live session runs is not loaded from a checkpoint."""
    return mock.patch.object(SessionClock, "restore", return_value=None)


def forgets_allowances_in_recovery() -> Patch:
    """What pools have allotted is not loaded from a checkpoint."""
    real = PacingDesk.restore
    return mock.patch.object(PacingDesk, "restore", lambda self, kept: real(self, kept | {"allowances": []}))


def forgets_lulls_in_recovery() -> Patch:
    """That a silence is of the desk's own making is not loaded from a checkpoint."""
    return mock.patch.object(Lull, "restore", return_value=None)


def forgets_habits_in_recovery() -> Patch:
    """How often inputs usually come is not loaded from a checkpoint."""
    return mock.patch.object(UsualRates, "restore", return_value=None)


def decides_by_its_own_clock() -> Patch:
    """Controls are dated by whoever runs, not by the tick."""
    real, clock = PacingDesk.look, count()

    def look(self: PacingDesk, world: Seen) -> Looked:
        return real(self, world._replace(wall_ms=world.wall_ms + next(clock) % 7))

    return mock.patch.object(PacingDesk, "look", look)


def numbers_alerts_by_itself() -> Patch:
    """An alert's id is not made of what it is about."""
    numbers = count()
    return mock.patch.object(life, "alert_id_of", side_effect=lambda *_about: str(next(numbers)))


def takes_silence_for_nothing() -> Patch:
    """What is unknown is taken for zero: campaigns that seem to spend nothing are let through more."""
    real = CampaignPacer.evaluate

    def evaluate(self: CampaignPacer, settings: Any, facts: Facts, shape: Any) -> Decision:
        seeming = facts._replace(now_ms=max(facts.now_ms, self._now_ms + 3_000), unknown=frozenset())
        return real(self, settings, seeming, shape)

    return mock.patch.object(CampaignPacer, "evaluate", evaluate)


def alerts_on_what_is_unknown() -> Patch:
    """Advertisers hear of campaigns that seem to stand still because nothing comes."""
    real = CampaignAlerts.evaluate

    def evaluate(self: CampaignAlerts, settings: Any, facts: AlertFacts) -> Any:
        known = facts._replace(unknown=frozenset(), partition_is_alive=True, is_catching_up=False)
        return real(self, settings, known)

    return mock.patch.object(CampaignAlerts, "evaluate", evaluate)


def tells_alerts_again() -> Patch:
    """What fires is told at every look."""
    real = Life.look

    def look(self: Life, signal: Any, now_ms: int) -> list[Change]:
        told = real(self, signal, now_ms)
        if told or not self.is_firing or signal.condition != Condition.MET:
            return told
        return [Change(life.AlertState.FIRING, self.alert_id, self.began_ms, signal, signal)]

    return mock.patch.object(Life, "look", look)


def lists_what_is_over() -> Patch:
    """What has resolved is still listed as firing."""
    real = PacingDesk._tell

    def tell(self: PacingDesk, alerts: Any, looked: Looked) -> None:
        before = dict(self.firing)
        real(self, alerts, looked)
        self.firing = before | self.firing

    return mock.patch.object(PacingDesk, "_tell", tell)


def stays_with_pools_that_were_left() -> Patch:
    """What fires about a pool goes on when its campaign draws on it no more."""
    return mock.patch.object(CampaignAlerts, "_leave", return_value=[])


def begins_days_at_full_rate() -> Patch:
    """Whoever begins again in a lull is let through at once."""
    real = CampaignPacer.evaluate

    def evaluate(self: CampaignPacer, settings: Any, facts: Facts, shape: Any) -> Decision:
        decision = real(self, settings, facts, shape)
        is_begun = facts.is_lull and decision.rate > 0.0
        return decision._replace(rate=1.0, reason=RateReason.ON_PLAN) if is_begun else decision

    return mock.patch.object(CampaignPacer, "evaluate", evaluate)


def counts_corrections_twice() -> Patch:
    """What a tick corrects is kept for the next tick as well, unless a checkpoint comes between."""
    real = PartitionState._tell_desk

    def tell(self: PartitionState) -> None:
        kept = list(self._corrected)
        real(self)
        self._corrected = kept if self.seq % 2 else []

    return mock.patch.object(PartitionState, "_tell_desk", tell)


ALL: dict[Callable[[], Patch], str] = {
    forgets_rates_in_recovery: "budget",
    forgets_what_fires_in_recovery: "budget",
    forgets_sessions_in_recovery: "session",
    forgets_allowances_in_recovery: "balance",
    forgets_lulls_in_recovery: "night",
    forgets_habits_in_recovery: "silence",
    decides_by_its_own_clock: "",
    numbers_alerts_by_itself: "budget",
    takes_silence_for_nothing: "silence",
    alerts_on_what_is_unknown: "silence",
    tells_alerts_again: "budget",
    lists_what_is_over: "balance",
    stays_with_pools_that_were_left: "pool",
    begins_days_at_full_rate: "night",
    counts_corrections_twice: "",
}
"""Each with the story in which it shows soon; empty: with none."""
