"""Tail probabilities of the tests on publishers, in the standard library's terms.

Beta-binomial: Skellam, "A probability distribution derived from the binomial", JRSS B 10 (1948). Chi-square: the
regularised upper incomplete gamma function, by the series and continued fraction of Numerical Recipes, 6.2.
"""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

MAX_TERMS: Final = 10_000
EPSILON: Final = 1e-12


class BetaFit(NamedTuple):
    """A beta distribution of conversion rates."""

    mean: float
    strength: float
    """a + b: the larger, the more alike the rates are."""


LEAST_STRENGTH: Final = 2.0
MOST_STRENGTH: Final = 100_000.0


def fit_beta(clicks: Sequence[int], conversions: Sequence[int]) -> BetaFit | None:
    """By moments over sources of different size (Kleinman 1973); None where there is nothing to fit."""
    total, hits = sum(clicks), sum(conversions)
    if not total or not 0 < hits < total or len(clicks) < 2:
        return None
    mean = hits / total
    spread = sum(n * (k / n - mean) ** 2 for n, k in zip(clicks, conversions, strict=True) if n)
    scale = total - sum(n * n for n in clicks) / total
    binomial = mean * (1 - mean)
    excess = (spread - (len(clicks) - 1) * binomial) / (scale - (len(clicks) - 1))
    strength = binomial / excess - 1 if excess > 0 else MOST_STRENGTH
    return BetaFit(mean, min(MOST_STRENGTH, max(LEAST_STRENGTH, strength)))


def wider(fit: BetaFit, clicks: Sequence[int], conversions: Sequence[int]) -> BetaFit:
    """The same mean, with the spread that these sources show when each weighs the same, if that is more."""
    rates = [k / n for n, k in zip(clicks, conversions, strict=True)]
    if len(rates) < 2:
        return fit
    mean = sum(rates) / len(rates)
    chance = sum(mean * (1 - mean) / n for n in clicks) / len(clicks)
    excess = sum((rate - mean) ** 2 for rate in rates) / (len(rates) - 1) - chance
    if excess <= 0:
        return fit
    return fit._replace(strength=max(LEAST_STRENGTH, min(fit.strength, mean * (1 - mean) / excess - 1)))


def beta_binomial_lower(successes: int, trials: int, fit: BetaFit) -> float:
    """P(X <= successes)."""
    a, b = fit.mean * fit.strength, (1 - fit.mean) * fit.strength
    constant = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) - math.lgamma(a + b + trials)
    constant += math.lgamma(trials + 1)
    total = 0.0
    for k in range(min(successes, trials, MAX_TERMS) + 1):
        log_p = constant - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
        total += math.exp(log_p + math.lgamma(a + k) + math.lgamma(b + trials - k))
    return min(1.0, total)


def chi_square_upper(value: float, degrees: int) -> float:
    """P(X >= value)."""
    if value <= 0:
        return 1.0
    a, x = degrees / 2, value / 2
    scale = math.exp(-x + a * math.log(x) - math.lgamma(a))
    return 1.0 - _series(a, x) * scale if x < a + 1 else _fraction(a, x) * scale


def _series(a: float, x: float) -> float:
    term = total = 1 / a
    for n in range(1, MAX_TERMS):
        term *= x / (a + n)
        total += term
        if term < total * EPSILON:
            break
    return total


def _fraction(a: float, x: float) -> float:
    b = x + 1 - a
    c, d = 1e300, 1 / b
    h = d
    for n in range(1, MAX_TERMS):
        an = -n * (n - a)
        b += 2
        d = 1 / (an * d + b or 1e-300)
        c = b + an / c or 1e-300
        h *= d * c
        if abs(d * c - 1) < EPSILON:
            break
    return h
