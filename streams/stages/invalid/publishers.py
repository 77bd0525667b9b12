"""Publishers against their peers, those of the same channel: far too few conversions, or conversions at odd times.

Judged in steps of event time, each over a window that ended long enough ago for conversions to have come: all clicks
are weighed at equal age (`MATURITY_MS`), so a publisher is not suspect for being young: later conversions count for
neither rule. Every step is judged once its clicks and their conversions are complete, so what is flagged is a function
of the evidence that came in time, and not of when somebody looked.

* Flooding: clicks far above, conversions far below what peers show. The rate must be lower by a factor, and by chance
  only with a tiny probability under the beta-binomial that the other publishers fit (themselves without the lowest and
  highest, so that a few bad peers do not hide each other).
* Timing: times from click to conversion that are distributed unlike the peers': a glut within seconds (hijacking), or
  flat as chance has it (flooding). AppsFlyer: about 75 % of installs come within an hour. Chi-square over buckets, and
  an excess that matters, for with enough data every trifle is significant.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from streams.invalid import InvalidRules, Mode, Rule
from streams.rules import MINUTE_MS
from streams.stages.invalid.tails import BetaFit, beta_binomial_lower, chi_square_upper, fit_beta, wider
from streams.stages.invalid.velocity import Found
from streams.verdicts import NOT_CONVERTED, Clicks

STEP_MS: Final = 10 * MINUTE_MS
MATURITY_MS: Final = 20 * MINUTE_MS
"""Conversions within this of their click are weighed, once it has passed for every click of the window."""
LEAST_PEERS: Final = 4
LEAST_CONVERSIONS: Final = 30
"""Of the peers together: fewer tell nothing."""
LEAST_TELLING: Final = 50
"""Clicks by which a peer's rate tells how much peers differ."""
TRIMMED: Final = 0.1
"""Share of the peers at each end that is left out of the fit."""
DELAY_BOUNDS_MS: Final = (3_000, 10_000, MINUTE_MS, 5 * MINUTE_MS)
"""Upper bounds of the buckets of time from click to conversion; the last ends with the maturity."""
LEAST_EXCESS: Final = 0.15
"""Share of a source's conversions beyond what its peers show in those buckets."""
Counts = npt.NDArray[np.int64]


class Weighed(NamedTuple):
    """One publisher in a window."""

    clicks: Clicks
    conversions: Clicks
    """Those within the maturity."""
    mature: int
    """Clicks with such a conversion."""


def judge(entries: Clicks, end_ms: int, rules: InvalidRules) -> Iterator[Found]:
    """What one window shows: clicks of [end - flooding window, end). `entries`: of publishers, each once."""
    begin_ms = end_ms - rules.flooding_window_ms
    inside = entries[(entries["at_ms"] >= begin_ms) & (entries["at_ms"] < end_ms)]
    for group in np.unique(inside["group"]).tolist():
        publishers = _weighed(inside[inside["group"] == group])
        if len(publishers) > LEAST_PEERS:
            if rules.mode(Rule.PUBLISHER_FLOODING) is not Mode.OFF:
                yield from _flooding(publishers, rules)
            if rules.mode(Rule.PUBLISHER_TIMING) is not Mode.OFF:
                yield from _timing(publishers, rules)


def _weighed(entries: Clicks) -> list[Weighed]:
    found = []
    order = np.argsort(entries["source"], kind="stable")
    ordered = entries[order]
    for source in np.split(ordered, np.flatnonzero(ordered["source"][1:] != ordered["source"][:-1]) + 1):
        is_click = source["delay_ms"] == NOT_CONVERTED
        clicks, conversions = source[is_click], source[~is_click]
        timely = conversions[conversions["delay_ms"] <= MATURITY_MS]
        mature = len(np.unique(timely[["high", "low"]]))
        found.append(Weighed(clicks, timely, min(mature, len(clicks))))
    return found


def _flooding(publishers: list[Weighed], rules: InvalidRules) -> Iterator[Found]:
    for at, suspect in enumerate(publishers):
        if len(suspect.clicks) < rules.flooding_min_clicks:
            continue
        fit = _fit([each for place, each in enumerate(publishers) if place != at])
        if fit is None or suspect.mature * rules.flooding_ratio > fit.mean * len(suspect.clicks):
            continue
        chance = beta_binomial_lower(suspect.mature, len(suspect.clicks), fit)
        if chance < rules.flooding_p:
            rate = suspect.mature / len(suspect.clicks)
            seen = {"clicks": len(suspect.clicks), "conversions": suspect.mature, "rate": rate, "p": chance}
            expected = {"peers_rate": fit.mean, "peers": len(publishers) - 1, "window_ms": rules.flooding_window_ms}
            yield Found(Rule.PUBLISHER_FLOODING, suspect.clicks, {**seen, **expected})


def _fit(peers: list[Weighed]) -> BetaFit | None:
    """Of the peers with clicks, without those of the lowest and highest rates.

    Leaving these out, and weighing large ones more, understates how much publishers differ: where all that have enough
    clicks to tell differ more, that holds.
    """
    known = sorted((p for p in peers if len(p.clicks)), key=lambda p: p.mature / len(p.clicks))
    cut = int(len(known) * TRIMMED)
    kept = known[cut : len(known) - cut]
    if len(kept) < LEAST_PEERS or sum(p.mature for p in kept) < LEAST_CONVERSIONS:
        return None
    fit = fit_beta([len(p.clicks) for p in kept], [p.mature for p in kept])
    telling = [p for p in known if len(p.clicks) >= LEAST_TELLING]
    return fit and wider(fit, [len(p.clicks) for p in telling], [p.mature for p in telling])


def _timing(publishers: list[Weighed], rules: InvalidRules) -> Iterator[Found]:
    """The oddest first, and then the others without it: beside a bad peer honest ones look odd as well."""
    places = [np.searchsorted(DELAY_BOUNDS_MS, p.conversions["delay_ms"], side="right") for p in publishers]
    counts = np.array([np.bincount(place, minlength=len(DELAY_BOUNDS_MS) + 1) for place in places])
    left = list(range(len(publishers)))
    while left:
        total = counts[left].sum(axis=0)
        odd = {at: found for at in left if (found := _odd(counts[at], total - counts[at], rules)) is not None}
        if not odd:
            return
        worst = max(odd, key=lambda at: (odd[at].excess, -at))
        left.remove(worst)
        chosen = publishers[worst].conversions[np.isin(places[worst], odd[worst].buckets)]
        bounds = {"bucket_below_ms": float([*DELAY_BOUNDS_MS, MATURITY_MS][int(odd[worst].buckets[0])])}
        seen = {"conversions": int(counts[worst].sum()), "excess": odd[worst].excess, "p": odd[worst].chance}
        yield Found(Rule.PUBLISHER_TIMING, chosen, {**seen, **bounds})


class Odd(NamedTuple):
    """Buckets in which a publisher has far more of its conversions than its peers of theirs."""

    buckets: Counts
    excess: float
    chance: float


def _odd(own: Counts, peers: Counts, rules: InvalidRules) -> Odd | None:
    """Chi-square of both samples: few peers' shares are as uncertain as few conversions' are."""
    size, others = int(own.sum()), int(peers.sum())
    if size < rules.timing_min_conversions or others < LEAST_CONVERSIONS:
        return None
    excess = own / size - (peers + 0.5) / (others + 0.5 * len(peers))
    buckets = np.flatnonzero(excess > LEAST_EXCESS)
    both = own + peers
    share = both[both > 0] / (size + others)
    value = sum(
        float(((sample[both > 0] - share * count) ** 2 / (share * count)).sum())
        for sample, count in ((own, size), (peers, others))
    )
    chance = chi_square_upper(value, len(share) - 1) if len(share) > 1 else 1.0
    return Odd(buckets, float(excess[buckets].sum()), chance) if len(buckets) and chance < rules.timing_p else None


def due(credited_ms: int) -> int:
    """The end of the last window whose clicks and conversions are complete."""
    return max(0, (credited_ms - MATURITY_MS) // STEP_MS * STEP_MS)


def steps(at_ms: npt.NDArray[np.int64], judged_ms: int, due_ms: int, window_ms: int) -> Iterator[int]:
    """Ends of the windows behind `judged_ms` that are to be judged: all that hold evidence. Both are ends of steps."""
    known_ms = judged_ms
    for begin_ms in (np.unique(at_ms // STEP_MS) * STEP_MS).tolist():
        last_ms = min(due_ms, begin_ms + STEP_MS + window_ms)
        yield from range(max(known_ms, begin_ms) + STEP_MS, last_ms + 1, STEP_MS)
        known_ms = max(known_ms, last_ms // STEP_MS * STEP_MS)
