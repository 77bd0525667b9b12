"""Evidence that a count differs from what was expected, valid however often one looks.

Peeking at a fixed-horizon test inflates its errors (Johari, Pekelis, Walsh 2015, arXiv 1512.04922). A mixture
likelihood ratio does not: under the null it is a martingale that starts at 1, so it ever exceeds 1/alpha with a
probability of at most alpha (Ville 1939; Robbins 1970). For counts with a time-varying intensity the mixture is
Gamma-Poisson (Lindon and Malek, NeurIPS 2022, arXiv 2011.03567).

Real traffic varies more than Poisson from one week to the next. That is not sampling noise and does not average out.
There are two ways to allow for it, and each has its strength:

* `edge_evidence`: it moves the null's edge by so many of its deviations. What is beyond is told as soon as sampling
  noise is excluded: strong where there are many events, weak where there are few, for a few dozen events below their
  edge say little even if they are far below what is usual.
* `natural_evidence`: it is part of the null, whose mean is drawn from a gamma distribution of that variance, so that
  counts are negative binomial (Greenwood and Yule 1920). The ratio of both marginal likelihoods is a martingale under
  that null as well: strong where there are few events, and bounded by what nature does where there are many.
"""

from math import lgamma, log
from typing import Final

SHAPE: Final = 1.0
"""Of the gamma mixture (mean: the null's rate). 1 is the exponential: wide enough for a tenth and for ten times."""
LEAST_SPREAD: Final = 1e-4
"""One per cent: nothing is more regular."""


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


def natural_evidence(count: float, expected: float, spread: float) -> float:
    """Log evidence that the true mean is not `expected` but for a natural variation of relative variance `spread`.

    0 where there is none. With `spread` going to 0 it is `log_evidence`.
    """
    if expected <= 0:
        return 0.0
    count = max(0.0, count)
    shape = 1 / max(spread, LEAST_SPREAD)
    return max(0.0, _log_likelihood(count, expected, SHAPE) - _log_likelihood(count, expected, shape))


def _log_likelihood(count: float, mean: float, shape: float) -> float:
    """Of the negative binomial, without the term that is the same for every shape."""
    known = lgamma(shape + count) - lgamma(shape)
    return known + shape * log(shape / (shape + mean)) + count * log(mean / (shape + mean))
