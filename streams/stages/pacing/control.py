"""The pass-through rate: feed-forward, corrected in proportion, with a dead band, a clamp, and hard limits.

The rate that is wanted is what the plan still needs within the next hour over what traffic will bring in that hour
unthrottled (a model, so a burst or the evening's peak moves the rate at once and error only slowly). It is followed
outside a dead band only, and no faster than a clamp allows (bucketed hysteresis and proportional control: Snap 2026,
arXiv 2509.25429). A campaign of which nothing is known starts near a tenth (LinkedIn, KDD 2014), plans aim to finish a
little early, for forecasts err (the same). Hard limits come last and are subject to neither band nor clamp.
"""

from math import exp, sqrt
from typing import Final, NamedTuple

from streams.rules import HOUR_MS, MINUTE_MS
from streams.signals import LEAST_RATE, RateReason
from streams.stages.pacing.curve import Curve

START_RATE: Final = 0.1
DEAD_BAND: Final = 0.06
RISE_PER_MIN: Final = 0.25
"""Largest relative rise, as an exponent."""
RISE_STEP_PER_MIN: Final = 0.02
"""And a step, so that a rate near 0 comes back."""
MOST_HASTE: Final = 8.0
FALL_PER_MIN: Final = 0.5
AHEAD_MS: Final = HOUR_MS
"""How far the control looks ahead: the time in which it makes up for being off plan."""
LEAST_AHEAD_MS: Final = 4 * MINUTE_MS
EARLY_SHARE: Final = 1 / 64
"""Share of the period by which the budget is to be spent early."""
LOOP_MS: Final = 25_000
"""Room is never spent faster than in this time: twice the loop's latency of 10 s, and a pane."""
PEAK: Final = 1.3
"""Traffic may be that much more than the last minutes say."""
SAFE_DEVIATIONS: Final = 1.7
"""Of what is in flight, which must fit as well."""
SCARCE_RATE: Final = 0.7
"""Where the rest of the period needs a rate beyond this, being on plan is not enough: traffic may run out."""
SPENT_SHARE: Final = 0.001
"""What is left of a budget below this share cannot be steered: it is exhausted."""
ON_PLAN_SHARE: Final = 0.02
STALE_SHARE: Final = 0.5
"""Without controls for an hour, not more than this share of what is left is spent."""


class Look(NamedTuple):
    """What the control looks at. Money in millimicros, time in epoch ms."""

    now_ms: int
    start_ms: int
    end_ms: int
    spent: int
    in_flight: float
    missing: float
    budget: int
    aim: int
    allowed: float
    """What allowances leave, above what is spent and in flight; infinite without."""
    value: float
    """Of a carrier, within the period."""
    unit: float
    error: float
    """Share by which what is in flight may be misjudged."""
    supply_now: float
    """Carriers per ms at rate 1, by the last minutes."""
    level_now: float
    """What to multiply the curve with, by the last minutes; and by the last hours."""
    level_today: float
    curve: Curve
    lag_ms: float
    """How long after its carrier spend comes, in the mean."""
    is_asap: bool
    is_told: bool
    """Whether all pools have told their allowance; until then the rate is that of a slow start, at most."""

    @property
    def committed(self) -> float:
        """Spent, in flight, or perhaps spent unseen."""
        return self.spent + self.in_flight + self.missing

    @property
    def room(self) -> float:
        """What may be added to the traffic now in flight, safely."""
        flying = self.in_flight
        deviation = sqrt(self.unit * flying + (self.error * flying) ** 2) if flying > 0 else 0.0
        return min(self.budget - self.committed - SAFE_DEVIATIONS * deviation, self.allowed)

    @property
    def is_exhausted(self) -> bool:
        """What is left cannot be steered, or does not pay one more billable event."""
        return self.budget - self.spent - self.in_flight < least_room(self) or self.budget <= 0


def least_room(look: Look) -> float:
    """What is left and less than this cannot be steered: a thousandth, or one billable event.

    An event that costs more than half of the budget is let through all the same while half of it is left.
    """
    return max(min(look.unit, 0.5 * look.budget), SPENT_SHARE * look.budget)


def within_allowance(look: Look) -> Look:
    """Of a campaign without a budget: what allowances leave is all that it can spend."""
    most = int(min(look.budget, look.spent + look.in_flight + max(0.0, look.allowed)))
    return look._replace(budget=most, aim=most)


def finish_ms(look: Look) -> int:
    """When the budget is to be spent."""
    early = int(EARLY_SHARE * min(look.end_ms - look.start_ms, 24 * HOUR_MS))
    return max(look.end_ms - early, look.start_ms + 1)


def ahead_ms(look: Look) -> int:
    """How far to look ahead: up to an hour, less towards the end."""
    return min(AHEAD_MS, max(LEAST_AHEAD_MS, finish_ms(look) - look.now_ms))


def hastened(look: Look, made_ms: int) -> int:
    """The moment of the plan that is to be reached at the end of the look ahead: plans run a little fast.

    A plan made at `made_ms` for the end of the period is followed as if that were `finish_ms`; spend that comes late
    must be under way as much earlier.
    """
    ahead = look.now_ms + ahead_ms(look) + int(look.lag_ms)
    finish = max(finish_ms(look), made_ms + 1)
    return made_ms + (ahead - made_ms) * (look.end_ms - made_ms) // (finish - made_ms)


def wanted(look: Look, planned: int) -> float:
    """The rate that brings spend onto its plan; `planned` is the plan's target at the end of the look ahead."""
    if look.is_asap or look.supply_now <= 0 or look.value <= 0:
        return 1.0
    horizon = ahead_ms(look)
    supply = look.value * look.level_now * look.curve.between(look.now_ms, look.now_ms + horizon)
    need = min(planned, look.aim) - look.committed
    on_plan = need / supply if supply > 0 else 1.0
    finish = max(finish_ms(look), look.now_ms + LEAST_AHEAD_MS)
    whole = look.value * look.level_today * look.curve.between(look.now_ms, finish)
    to_finish = (look.aim - look.committed) / whole if whole > 0 else 1.0
    if to_finish > SCARCE_RATE:
        share = min(1.0, (to_finish - SCARCE_RATE) / (1.0 - SCARCE_RATE))
        on_plan = max(on_plan, on_plan + share * (to_finish * 1.1 - on_plan))
    return min(1.0, max(0.0, on_plan))


def haste(look: Look) -> float:
    """How much faster than over a day rates may rise: short periods and those who want all at once have no time."""
    return MOST_HASTE if look.is_asap else min(MOST_HASTE, max(1.0, 24 * HOUR_MS / (look.end_ms - look.start_ms)))


def followed(rate: float, want: float, elapsed_ms: int, haste: float = 1.0) -> float:
    """The rate after dead band and clamp."""
    minutes = min(elapsed_ms, MINUTE_MS) / MINUTE_MS
    if abs(want - rate) <= DEAD_BAND * rate and want < 1.0:
        return rate
    highest = rate * exp(RISE_PER_MIN * haste * minutes) + RISE_STEP_PER_MIN * haste * minutes
    return min(max(want, rate * exp(-FALL_PER_MIN * minutes)), highest)


def highest(look: Look) -> float:
    """The rate at which the loop's latency cannot overspend what is left."""
    room = look.room
    if room <= 0 or look.is_exhausted:
        return 0.0
    if room < min(look.unit, 0.5 * look.budget) and room < look.allowed:
        return 0.0
    supply = look.value * max(look.supply_now, 0.0) * PEAK * LOOP_MS
    return room / supply if supply > room else 1.0


def stale_rate(look: Look, rate: float) -> float:
    """What to assume when controls stop: for an hour it spends half of what is left at most."""
    supply = look.value * max(look.level_now, look.level_today) * look.curve.between(look.now_ms, look.now_ms + HOUR_MS)
    supply = max(supply, look.value * look.supply_now * MINUTE_MS)
    if rate <= 0 or look.room <= 0:
        return 0.0
    return quantized(min(rate, STALE_SHARE * look.room / supply)) if supply > 0 else min(rate, START_RATE)


def quantized(rate: float) -> float:
    """Rounded down to a multiple of a millionth, within [0, 1]."""
    return round(int(min(1.0, max(0.0, rate)) / LEAST_RATE + 1e-9) * LEAST_RATE, 6)


def course(look: Look, target: int) -> RateReason:
    """Where spend is against its plan: within 2 points is on plan (Google Ad Manager's bands)."""
    if look.is_asap:
        return RateReason.AS_SOON_AS_POSSIBLE
    off = look.committed - target
    if abs(off) <= ON_PLAN_SHARE * look.budget:
        return RateReason.ON_PLAN
    return RateReason.AHEAD if off > 0 else RateReason.BEHIND
