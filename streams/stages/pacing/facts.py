"""What the pacing of a campaign is told at a tick, and what it answers."""

from typing import NamedTuple

from streams.events import Input
from streams.signals import Allowance, LiveSession, RateReason


class Added(NamedTuple):
    """What one tick's folds add to a campaign at one origin pane; every amount may be negative (a correction)."""

    origin_ms: int
    """Start of the pane in which it happened, event time."""
    impressions: int
    plays: int
    """Started, first loops."""
    clicks: int
    conversions: int
    """Credited to a click, of the types that count towards CVR."""
    spend_millimicros: int
    """Gross."""
    credited_millimicros: int = 0
    """Given back: what was billed for events found invalid or rejected later. Never negative."""


class Facts(NamedTuple):
    """The world of one campaign at one look, about every five seconds of wall time."""

    now_ms: int
    """Event time of the partition: that of its newest event. Does not go back; stands while everything is silent, but
    goes on in a lull."""
    wall_ms: int
    """The tick's wall time: decides nothing but a control's validity."""
    unknown: frozenset[Input]
    """Inputs from which nothing comes though it should: unknown, never zero. Rates then hold or fall."""
    is_catching_up: bool
    """Event time lags far behind the wall: controls are of no use to anyone."""
    allowances: tuple[Allowance, ...] = ()
    """The latest of each pool that the campaign draws on."""
    sessions: tuple[LiveSession, ...] = ()
    """What is told of the campaign's live sessions and has happened by `now_ms`, in the order of its times: since the
    last look. What was told before may be told again."""
    is_lull: bool = False
    """Nothing comes because nothing is let through: a new period may begin, and nothing is known of its traffic."""


class Money(NamedTuple):
    """Spend of one period, millimicros. gross = valid + credited, always."""

    gross: int
    credited: int

    @property
    def valid(self) -> int:
        """What is owed."""
        return self.gross - self.credited


class Total(NamedTuple):
    """The total budget of a campaign's flight, and what has become of it."""

    budget_micros: int
    spend_millimicros: int
    """Valid spend of the flight."""
    exhausted_at_ms: int | None
    """When the flight's spend reached it, event time: no new period brings it back."""


class Forecast(NamedTuple):
    """Spend at the period's end, micros, with a 90% interval, and the event time at which the budget runs out."""

    spend_micros: int
    low_micros: int
    high_micros: int
    exhausts_at_ms: int | None


class Decision(NamedTuple):
    """One look's answer: the control, and everything that explains it."""

    rate: float
    """0 to 1, a multiple of 1e-6."""
    rate_when_stale: float
    reason: RateReason
    period_kind: str
    """day, flight or live_session."""
    period_start_ms: int
    period_end_ms: int
    budget_micros: int
    """What this period may spend: budget, over-delivery policy, caps of flight and period considered. 0: there is no
    budget, as for `plan_micros` and `target_micros`; an account's balance alone limits the spend."""
    plan_micros: int
    """The period's budget without over-delivery: what the plan's parts sum to."""
    target_micros: int
    """What the plan says should be spent by now."""
    spend: Money
    in_flight_millimicros: int
    forecast: Forecast | None
    demand_micros_per_h: int
    """What would be spent an hour at rate 1, as estimated."""
    exhausted_at_ms: int | None
    """When the period's spend reached its budget, event time."""
    is_learning: bool
    """An optimised campaign that has too few conversions to be judged."""
    closed_credit_millimicros: int
    """Credits that came after their period had closed: for billing, never for pacing."""
    total: Total | None = None
    """None: there is no total budget."""
    excess_credit_millimicros: int = 0
    """Since ever: what periods spent beyond the over-delivery policy, owed back where it credits the excess. It is for
    billing, and not part of `spend`, whose credits are those of invalid events."""

    @property
    def is_exhausted(self) -> bool:
        """Whether the period's budget or the flight's total is spent."""
        return self.exhausted_at_ms is not None or (self.total is not None and self.total.exhausted_at_ms is not None)
