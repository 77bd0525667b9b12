"""Who floods: publishers whose clicks convert far less often than their peers' clicks on the same campaigns.

Campaigns convert very differently, so clicks are first weighed by how their campaign converts for others: a
publisher's **standard clicks** are those with which its conversions, at the mean rate, were to be expected (indirect
standardisation, as of mortality). What then still differs among honest publishers is the spread of a beta-binomial.

Several bad peers must not hide each other: whoever is `flooding_ratio` below the mean is suspected and is nobody's
peer. Suspects are tried from the best to the worst; one that is acquitted is a peer of those after it. So an honest
crowd of small rates widens the spread before anyone is convicted.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from streams.invalid import InvalidRules
from streams.stages.invalid.distributions import Floats, fit_beta_binomial

LEAST_PEERS: Final = 5
"""Of fewer nothing can be said."""
LEAST_VARIATION: Final = 0.25
"""Publishers' rates are never taken to be more alike than this coefficient of variation."""
SHRINKAGE: Final = 200.0
"""A campaign's rate is drawn towards the mean rate as if it had so many more clicks at that."""
ROUNDS: Final = 4
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def sums(amounts: Floats, places: Ints, size: int) -> Floats:
    """The amounts of each place."""
    return np.bincount(places, weights=amounts, minlength=size).astype(np.float64)


class Rates(NamedTuple):
    """Clicks and converted clicks of each publisher on each campaign."""

    publisher: Ints
    campaign: Ints
    clicks: Floats
    conversions: Floats

    def of(self, chosen: Mask) -> "Rates":
        """Those of some publishers."""
        return Rates(self.publisher[chosen], self.campaign[chosen], self.clicks[chosen], self.conversions[chosen])


def convicted(rates: Rates, publishers: int, campaigns: int, rules: InvalidRules) -> dict[int, dict[str, float]]:
    """The places of those who flood, with what was seen."""
    clicks = sums(rates.clicks, rates.publisher, publishers)
    conversions = sums(rates.conversions, rates.publisher, publishers)
    standard = clicks
    suspected = np.zeros(publishers, dtype=bool)
    for _ in range(ROUNDS):
        mean = _mean(standard, conversions, ~suspected)
        found = (clicks >= rules.flooding_min_clicks) & (conversions * rules.flooding_ratio < standard * mean)
        if mean <= 0.0 or found.sum() * 2 > (clicks > 0).sum():  # half of all: there is no normal to differ from
            return {}
        if (found == suspected).all() and standard is not clicks:
            break
        suspected = found
        standard = _standard_clicks(rates, suspected, publishers, campaigns)
    return _try(clicks, standard, conversions, suspected, rules)


def _mean(standard: Floats, conversions: Floats, peers: Mask) -> float:
    """Mean rate of the peers; none weighs more than the median one, however much it sends."""
    chosen = peers & (standard > 0)
    if not chosen.any():
        return 0.0
    trials, successes = standard[chosen], conversions[chosen]
    weights = np.minimum(trials, np.median(trials))
    return float((weights * successes / trials).sum() / weights.sum())


def _standard_clicks(rates: Rates, suspected: Mask, publishers: int, campaigns: int) -> Floats:
    """Clicks weighed by how much better or worse than the mean their campaign converts for others than suspects.

    Nobody sets the measure for itself: each publisher is left out of its own campaigns' rates.
    """
    counts = ~suspected[rates.publisher]
    clicks = sums(rates.clicks * counts, rates.campaign, campaigns)
    conversions = sums(rates.conversions * counts, rates.campaign, campaigns)
    mean = conversions.sum() / clicks.sum() if clicks.sum() else 0.0
    if mean <= 0.0:
        return sums(rates.clicks, rates.publisher, publishers)
    others = clicks[rates.campaign] - rates.clicks * counts
    theirs = conversions[rates.campaign] - rates.conversions * counts
    relative = (theirs + SHRINKAGE * mean) / (others + SHRINKAGE) / mean
    return sums(rates.clicks * relative, rates.publisher, publishers)


def _try(
    clicks: Floats, standard: Floats, conversions: Floats, suspected: Mask, rules: InvalidRules
) -> dict[int, dict[str, float]]:
    """Suspects from the best to the worst, each against those who are no suspects or were acquitted."""
    found: dict[int, dict[str, float]] = {}
    peers = ~suspected & (standard > 0)
    suspects = np.flatnonzero(suspected)
    by_rate = suspects[np.argsort(-conversions[suspects] / standard[suspects], kind="stable")]
    fitted = None
    for publisher in by_rate.tolist():
        if peers.sum() < LEAST_PEERS:
            return found
        if fitted is None:
            fitted = fit_beta_binomial(conversions[peers], np.maximum(standard, conversions)[peers], LEAST_VARIATION)
        if fitted is None:
            return found
        trials, successes = round(float(standard[publisher])), int(conversions[publisher])
        chance = fitted.lower_tail(successes, trials)
        if chance < rules.flooding_p and successes * rules.flooding_ratio < trials * fitted.mean:
            found[publisher] = {
                "clicks": float(clicks[publisher]),
                "conversions": float(successes),
                "seen_rate": successes / float(clicks[publisher]),
                "expected_rate": fitted.mean * trials / float(clicks[publisher]),
                "p": chance,
                "peers": float(peers.sum()),
                "peers_spread": fitted.spread,
                "threshold_ratio": rules.flooding_ratio,
                "threshold_p": rules.flooding_p,
            }
        else:
            peers[publisher], fitted = True, None
    return found
