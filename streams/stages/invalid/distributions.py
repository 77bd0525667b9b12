"""The few distributions that judging publishers needs: beta-binomial and chi-square, by log-gamma sums.

Written out because a package of statistics would weigh more than everything else here together; tested against
values of other implementations.
"""

from math import erfc, exp, inf, lgamma, log, log1p, pi, sqrt
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
ROUNDS: Final = 20
"""Of weights and estimates in turn: they settle within a few."""
LEAST_MEAN: Final = 1e-12


class BetaBinomial(NamedTuple):
    """Rates that differ: each source's own is drawn from a beta distribution."""

    mean: float
    spread: float
    """Intra-class correlation ρ in (0, 1): the variance of the sources' rates is ρ · mean · (1 - mean)."""

    def lower_tail(self, successes: int, trials: int) -> float:
        """Probability of at most so many successes. Time and memory grow with the successes.

        Sums the probabilities by their ratios: P(k+1)/P(k) = (n-k)(k+a) / ((k+1)(n-k-1+b)).
        """
        if successes >= trials:
            return 1.0
        precision = (1.0 - self.spread) / self.spread
        a, b = self.mean * precision, (1.0 - self.mean) * precision
        none = _log_beta(a, trials + b) - _log_beta(a, b)
        k = np.arange(successes, dtype=np.float64)
        ratios = np.log((trials - k) / (k + 1.0)) + np.log((k + a) / (trials - k - 1.0 + b))
        logs = np.concatenate(([none], none + np.cumsum(ratios)))
        return min(1.0, float(np.exp(logs).sum()))


def _log_beta(a: float, b: float) -> float:
    """log B(a, b), without the loss of digits where b is much the larger (Stirling's series for the difference)."""
    if b < 1e5 or a > b / 1e3:
        return lgamma(a) + lgamma(b) - lgamma(a + b)
    difference = (b - 0.5) * log1p(a / b) + a * (log(a + b) - 1.0) + (1.0 / (a + b) - 1.0 / b) / 12.0
    return lgamma(a) - difference


def fit_beta_binomial(successes: Floats, trials: Floats, least_variation: float) -> BetaBinomial | None:
    """By moments, sources weighed by what they tell about the mean (Kleinman, JASA 68, 1973).

    `least_variation`: the sources' rates are never taken to vary less than this share of their mean, for few sources
    look alike by chance. None: there is nothing to fit.
    """
    if len(trials) < 2 or not successes.sum() > 0.0:
        return None
    rates, spread, mean = successes / trials, 0.0, 0.0
    for _ in range(ROUNDS):
        weights = trials / (1.0 + (trials - 1.0) * spread)
        total = float(weights.sum())
        mean = min(max(float((weights * rates).sum()) / total, LEAST_MEAN), 1.0 - LEAST_MEAN)
        around = float((weights * (rates - mean) ** 2).sum())
        shares = weights * (1.0 - weights / total)
        by_chance = float((shares / trials).sum())
        room = float(shares.sum()) - by_chance
        found = (around / (mean * (1.0 - mean)) - by_chance) / room if room > 0.0 else 0.0
        settled, spread = spread, min(max(found, 0.0), 1.0 - 1e-9)
        if abs(spread - settled) < 1e-9:
            break
    floor = least_variation**2 * mean / (1.0 - mean)
    return BetaBinomial(mean, min(max(spread, floor, 1e-9), 1.0 - 1e-9))


def chi_square_tail(value: float, freedom: int) -> float:
    """Probability that a chi-square variable of so many degrees of freedom exceeds the value.

    Abramowitz & Stegun 26.4.4 and 26.4.5: a finite sum, begun by an exponential (even) or the normal tail (odd).
    """
    if freedom < 1 or value <= 0.0:
        return 1.0
    half = value / 2.0
    if value == inf or half > 700.0 + 10.0 * freedom:
        return 0.0
    if freedom % 2 == 0:
        term, tail, begin = exp(-half), exp(-half), 1.0
    else:
        term, tail, begin = sqrt(2.0 * value / pi) * exp(-half), erfc(sqrt(half)), 1.5
        if freedom > 1:
            tail += term
    for step in range((freedom - 1) // 2 - (0 if freedom % 2 == 0 else 1)):
        term *= half / (begin + step)
        tail += term
    return min(1.0, tail)
