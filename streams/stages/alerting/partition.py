"""Alerts of a partition to operations: an input from which nothing comes though it should.

One alert for whatever is silent, not one per campaign: campaigns' alerts are inhibited meanwhile. Event time stands
while everything is silent, so durations are those of the ticks' wall times here, which the journal holds.
"""

from typing import Any

from streams.events import Input
from streams.signals import Alert, AlertState, Audience
from streams.stages.alerting.facts import CLEAR, UNKNOWN, Condition, PartitionFacts, Signal
from streams.stages.alerting.figures import Place
from streams.stages.alerting.life import Change, Life
from streams.stages.alerting.sentences import sentence
from streams.terms import AlertKind


class PartitionAlerts:
    """Operations' alerts of one partition."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self._life = Life(AlertKind.INPUT_SILENT, f"partition:{partition}")

    def evaluate(self, facts: PartitionFacts) -> list[Alert]:
        """What changed. Another input that falls silent meanwhile is told under the same id."""
        if facts.is_catching_up:
            return []
        signal = _signal(facts)
        life, changes = self._life, []
        if life.is_firing and signal.condition == Condition.MET and life.fired is not None:
            before, silent = (dict(told.figures)["inputs"] for told in (life.fired, signal))
            if not set(str(silent).split(",")) <= set(str(before).split(",")):
                life.fired = signal
                changes = [Change(AlertState.FIRING, life.alert_id, life.began_ms, signal, signal)]
        changes = changes or life.look(signal, facts.wall_ms)
        return [self._alert(facts, change) for change in changes]

    def _alert(self, facts: PartitionFacts, change: Change) -> Alert:
        told = change.fired if change.state is AlertState.RESOLVED else change.signal
        inputs = str(dict(told.figures)["inputs"])
        return Alert(
            alert_id=change.alert_id,
            kind=AlertKind.INPUT_SILENT,
            state=change.state,
            audience=Audience.OPERATIONS,
            is_pushed=True,
            cause=f"input:{inputs}",
            seen=told.seen,
            expected=None,
            unit=told.unit,
            began_ms=change.began_ms,
            changed_ms=facts.now_ms,
            decided_ms=facts.wall_ms,
            text=sentence(AlertKind.INPUT_SILENT, change.state, told, "", Place("", "UTC", facts.wall_ms)),
        )

    def snapshot(self) -> list[object]:
        """Builtin values."""
        return self._life.snapshot()

    def restore(self, snapshot: list[Any]) -> None:
        """Takes back what `snapshot` gave."""
        self._life = Life.restored(snapshot)


def _signal(facts: PartitionFacts) -> Signal:
    if not facts.silent:
        return CLEAR
    names = ",".join(source.value for source in Input if source in facts.silent)
    if not names:
        return UNKNOWN
    since = min(facts.silent.values())
    figures = (("partition", facts.partition), ("inputs", names), ("since", since))
    return Signal(Condition.MET, float(max(0, facts.wall_ms - since)), None, "ms", figures, began_ms=since)
