"""What the alerts of a campaign and of a partition are told at a look, and what a rule answers."""

from collections.abc import Mapping
from enum import IntEnum
from typing import Final, NamedTuple

from streams.events import Input
from streams.signals import Allowance
from streams.stages.pacing.facts import Decision
from streams.terms import AlertKind

Figures = tuple[tuple[str, int | float | str | None], ...]
"""Named numbers that a sentence tells: plain values, formatted where the sentence is made."""


class InvalidCounts(NamedTuple):
    """(invalid, gross) of the last hour, of what is judged apart: few clicks are billed beside many impressions."""

    clicks: tuple[int, int]
    impressions: tuple[int, int]


class AlertFacts(NamedTuple):
    """The world of one campaign at one look, about every 5 to 10 s of wall time."""

    now_ms: int
    """Event time of the partition: that of its newest event. Does not go back; all durations are measured in it."""
    wall_ms: int
    """The tick's wall time: only told on, as `Alert.decided_ms`."""
    partition: int = 0
    unknown: frozenset[Input] = frozenset()
    """Inputs from which nothing comes though it should: unknown, never zero."""
    is_catching_up: bool = False
    """History is being read: hours are learned, nothing fires or resolves."""
    decision: Decision | None = None
    """Of the pacing at this tick; None: the campaign has no budget."""
    allowances: tuple[Allowance, ...] = ()
    """The latest of each pool that the campaign draws on."""
    partition_is_alive: bool = True
    """Impressions of other campaigns keep coming."""
    invalid: InvalidCounts | None = None
    """None: nothing judges them."""


class PartitionFacts(NamedTuple):
    """The world of one partition at one look."""

    now_ms: int
    """Event time; stands while everything is silent, so durations are measured in `wall_ms` here."""
    wall_ms: int
    partition: int
    silent: Mapping[Input, int]
    """What is silent, and since when: event time of its last record, epoch ms UTC."""
    is_catching_up: bool = False


class Condition(IntEnum):
    """How a rule sees the world at one look."""

    UNKNOWN = 0
    """Cannot be judged: a life stays as it is."""
    CLEAR = 1
    """Below the threshold at which it resolves."""
    BETWEEN = 2
    """Between both thresholds: nothing begins, nothing ends."""
    MET = 3
    """Over the threshold at which it fires."""


class Signal(NamedTuple):
    """What a rule answers at one look."""

    condition: Condition
    seen: float | None = None
    expected: float | None = None
    unit: str = ""
    figures: Figures = ()
    began_ms: int | None = None
    """Event time since which it has been so; None: since the first look at which it was."""
    step: str = ""
    """Distinguishes occurrences that are not one: a budget's period, a step of the ladder."""
    form: str = ""
    """Which sentence of the kind is meant, where a kind has several."""


CLEAR: Final = Signal(Condition.CLEAR)
BETWEEN: Final = Signal(Condition.BETWEEN)
UNKNOWN: Final = Signal(Condition.UNKNOWN)


class Finding(NamedTuple):
    """A rule's answer about one subject: the campaign, or a pool that it draws on."""

    kind: AlertKind
    cause: str
    signal: Signal
