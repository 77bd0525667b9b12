"""Ratios with their intervals. A ratio over zero is absent (None), never 0 (law 9)."""

from math import sqrt
from typing import Final, NamedTuple

Z_95: Final = 1.959963984540054
"""Two-sided 95% quantile of the normal distribution."""


class Rate(NamedTuple):
    """A share and its 95% Wilson interval, each in [0, 1] unless successes exceed trials."""

    successes: int
    trials: int
    value: float
    low: float
    high: float


def wilson(successes: int, trials: int, z: float = Z_95) -> Rate | None:
    """Wilson score interval (Wilson 1927). None where there are no trials.

    Where successes exceed trials (conversions after clicks were invalidated) the ratio is told as it is, and the
    interval is that of a share of 1.
    """
    if trials <= 0:
        return None
    share = min(1.0, max(0.0, successes / trials))
    spread = z * z / trials
    center = (share + spread / 2) / (1 + spread)
    margin = z / (1 + spread) * sqrt(share * (1 - share) / trials + spread / (4 * trials))
    low = max(0.0, center - margin) if share > 0 else 0.0  # exact at the ends, where rounding leaves 1e-18
    high = min(1.0, center + margin) if share < 1 else 1.0
    return Rate(successes, trials, successes / trials, low, high)
