"""What a period will have spent at its end, with a 90% interval, and when its budget runs out."""

from math import exp, inf, sqrt
from typing import Final

from streams.stages.pacing.control import Look
from streams.stages.pacing.facts import Forecast

Z_90: Final = 1.6448536269514722
"""Two-sided 90% quantile of the normal distribution."""
LEAST_SPREAD: Final = 0.08
"""Standard deviation of the logarithm of what traffic is still to come, at least."""
STEERING_SHARE: Final = 0.004
"""What steering itself misses, share of the budget."""


def forecast_of(look: Look, rate: float, share_to_come: float, spread: float, is_open: bool) -> Forecast | None:
    """None while nothing is known of the traffic.

    The control spends what it aims at, wherever traffic allows: the end is the lesser of both. The interval is that of
    the traffic still to come (log-normal, with the spread that its level showed) and of the number of billable events.
    A period that is open, without an end, spends its budget some time.
    """
    if look.supply_now <= 0 or look.value <= 0:
        return None
    fixed = look.spent + look.in_flight
    coming = look.value * share_to_come * look.level_today * look.curve.between(look.now_ms, look.end_ms)
    if is_open:
        coming = inf
    room = 0.0 if look.is_exhausted else max(0.0, look.aim - fixed)
    sigma = max(LEAST_SPREAD, spread)
    middle = fixed + min(room, coming)
    number = Z_90 * sqrt(look.unit * max(0.0, middle - look.spent))
    low = fixed + min(room, coming * exp(-Z_90 * sigma)) - number - STEERING_SHARE * min(room, coming)
    high = fixed + min(room, coming * exp(Z_90 * sigma)) + number
    high = min(high, max(look.budget * (1 + STEERING_SHARE), middle))
    low = min(middle, max(low, look.spent, 0.0))
    high = max(middle, high)
    return Forecast(int(middle) // 1_000, int(low) // 1_000, int(high) // 1_000, exhausts_at(look, rate, is_open))


def exhausts_at(look: Look, rate: float, is_open: bool) -> int | None:
    """When the budget runs out at this rate, event time; None: not within the period."""
    room = look.budget - look.spent - look.in_flight
    if room <= 0:
        return look.now_ms
    if rate <= 0 or look.level_today <= 0 or look.value <= 0:
        return None
    carriers = room / (look.value * rate * look.level_today)
    at = look.curve.reached_at(look.now_ms, carriers)
    if at is None and is_open:
        known = look.curve.between(look.now_ms, inf)
        return look.now_ms + int(carriers / known * look.curve.length_ms) if known > 0 else None
    return at if at is not None and at < look.end_ms else None
