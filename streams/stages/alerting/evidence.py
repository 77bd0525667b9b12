"""Evidence that a count differs from what was expected, valid however often one looks.

Peeking at a fixed-horizon test inflates its errors (Johari, Pekelis, Walsh 2015, arXiv 1512.04922). A mixture
likelihood ratio does not: under the null it is a martingale that starts at 1, so it ever exceeds 1/alpha with a
probability of at most alpha (Ville 1939; Robbins 1970). For counts with a time-varying intensity the mixture is
Gamma-Poisson (Lindon and Malek, NeurIPS 2022, arXiv 2011.03567).

Real traffic varies more than Poisson from one week to the next. That is not sampling noise and does not average out,
so it is no part of the martingale: it moves the null's edge (`streams.stages.alerting.ratios`).
"""

from math import lgamma, log
from typing import Final

SHAPE: Final = 1.0
"""Of the gamma mixture (mean: the null's rate). 1 is the exponential: wide enough for a tenth and for ten times."""


def log_evidence(count: float, expected: float) -> float:
    """Log of the mixture likelihood ratio of `count` events, against a Poisson process of mean `expected`.

    The null that the true mean is at least (at most) `expected` is rejected where count < expected (>) and this
    exceeds log(1/alpha): the chance of ever getting there is largest at the null's edge. Clicks of impressions are
    binomial, which varies less than Poisson.
    """
    if expected <= 0:
        return 0.0
    shape = SHAPE + max(0.0, count)
    return expected + SHAPE * log(SHAPE) - lgamma(SHAPE) + lgamma(shape) - shape * log(SHAPE + expected)


def edge_evidence(count: float, expected: float, tolerance: float) -> float:
    """Log evidence that the true mean is outside [expected / tolerance, expected × tolerance]; 0 where there is none.

    Just outside an edge the likelihood ratio still speaks for the edge (its log is negative). That is no evidence
    either, so that a wider tolerance never is more evidence.
    """
    low, high = expected / tolerance, expected * tolerance
    if low <= count <= high:
        return 0.0
    return max(0.0, log_evidence(count, low if count < low else high))
