"""Whose conversions come at the wrong times: a glut within seconds (hijacking), or flat over hours (flooding).

AppsFlyer on click-to-install times: about 75% within an hour and 94% within a day; hijacked ones show a glut at 3 to
10 s, flooded ones lie flat between 2 and 24 h. Each **look** compares a publisher's conversions in buckets of time
with those of its peers, by a chi-square of two samples. All are compared at equal age: only clicks older than the
look's horizon, only conversions within it.

Large samples differ in trifles. So (1) the statistic is divided by how much the peers differ among themselves (design
effect 1 + (n-1)ρ, Brier, Biometrika 67, 1980; ρ is the peers' median), and (2) a conviction needs an effect: the
buckets in question are some times as full as the peers', and by a share of all conversions. Small samples do not
follow a chi-square: buckets that are too empty are joined, and (3) what is in the buckets in question must be as
unlikely by the beta-binomial of the peers' share and spread, which is exact at any size.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from streams.invalid import InvalidRules
from streams.stages.invalid.distributions import BetaBinomial, Floats, chi_square_tail

SECOND_MS: Final = 1_000
MINUTE_MS: Final = 60_000
HOUR_MS: Final = 3_600_000
LEAST_PEERS: Final = 5
LEAST_EXPECTED: Final = 5.0
"""Conversions expected in a bucket (Cochran's rule); fewer are joined with the next."""
LEAST_TOLD: Final = 20.0
"""Conversions of a publisher that can tell how peers differ."""
LEAST_SPREAD: Final = 0.001
"""Peers' times are never taken to be more alike, ρ."""
ROUNDS: Final = 3
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class Look(NamedTuple):
    """One question to the times."""

    name: str
    edges_ms: tuple[int, ...]
    """Upper ends of the buckets, spaced by factors; the last is the horizon."""
    first: int
    """The buckets [first, last) are where an excess convicts."""
    last: int
    times: float
    """So many times as full as the peers' …"""
    share: float
    """… and by this share of all its conversions."""
    takes_all: bool
    """Every conversion is flagged, not only those in the buckets in excess."""

    @property
    def horizon_ms(self) -> int:
        """Later conversions do not count."""
        return self.edges_ms[-1]

    @property
    def buckets(self) -> int:
        """How many there are."""
        return len(self.edges_ms)

    def bucket_of(self, delay_ms: npt.NDArray[np.uint32]) -> Ints:
        """The bucket of each time; an upper end belongs to its bucket."""
        return np.searchsorted(np.array(self.edges_ms), delay_ms, "left").astype(np.int64)


GLUT: Final = Look(
    "glut",
    tuple(s * SECOND_MS for s in (1, 3, 10, 30, 60, 120, 300, 600)),
    first=0,
    last=4,  # up to 30 s
    times=3.0,
    share=0.2,
    takes_all=False,
)
FLAT: Final = Look(
    "flat",
    (*(m * MINUTE_MS for m in (1, 5, 15, 30)), *(h * HOUR_MS for h in (1, 2, 4, 8, 16, 24))),
    first=6,  # from 2 h
    last=10,
    times=1.5,
    share=0.25,
    takes_all=True,
)
LOOKS: Final = (GLUT, FLAT)
Suspicion = tuple[Mask, dict[str, float]]


def suspicious(counts: Floats, look: Look, rules: InvalidRules) -> dict[int, Suspicion]:
    """Places of publishers (rows of the counts by bucket) with wrong times: the buckets to flag, what was seen.

    In rounds: those found are no peers of the others.
    """
    found: dict[int, Suspicion] = {}
    totals = counts.sum(axis=1)
    candidates = np.flatnonzero(totals >= rules.timing_min_conversions).tolist()
    for _ in range(ROUNDS):
        peers = totals > 0
        peers[list(found)] = False
        if peers.sum() <= LEAST_PEERS:
            break
        weighed = _capped(counts, totals, peers)
        spread = _spread(counts[peers], weighed[peers])
        new = {}
        for publisher in candidates:
            theirs = weighed.sum(axis=0) - weighed[publisher]
            verdict = _compare(counts[publisher], theirs, spread, look, rules) if publisher not in found else None
            if verdict is not None:
                verdict[1]["peers"] = float(peers.sum() - 1)
                new[publisher] = verdict
        if not new:
            break
        found |= new
    return found


def _capped(counts: Floats, totals: Floats, peers: Mask) -> Floats:
    """The peers' counts; none weighs more than three median ones, however many it has."""
    most = 3.0 * float(np.median(totals[peers]))
    scale = np.where(peers, np.minimum(1.0, most / np.maximum(totals, 1.0)), 0.0)
    capped: Floats = counts * scale[:, None]
    return capped


def _spread(counts: Floats, weighed: Floats) -> float:
    """How much peers differ, ρ: the median over them, so that bad ones among them do not matter."""
    pooled = weighed.sum(axis=0)
    used = pooled > 0
    shares = pooled[used] / pooled.sum()
    totals = counts.sum(axis=1)
    told = totals >= LEAST_TOLD
    if used.sum() < 2 or not told.any():
        return 0.0
    expected = totals[told, None] * shares
    statistic = ((counts[told][:, used] - expected) ** 2 / expected).sum(axis=1) / (used.sum() - 1)
    return float(np.clip(np.median((statistic - 1.0) / (totals[told] - 1.0)), 0.0, 0.5))


def _compare(mine: Floats, theirs: Floats, spread: float, look: Look, rules: InvalidRules) -> Suspicion | None:
    """One publisher against the pool of its peers."""
    total, pool = float(mine.sum()), float(theirs.sum())
    if pool < rules.timing_min_conversions:
        return None
    shares, usual = mine / total, theirs / pool
    wrong = np.zeros(look.buckets, dtype=bool)
    asked = slice(look.first, look.last)
    if look.takes_all:
        seen, expected = float(shares[asked].sum()), float(usual[asked].sum())
        wrong[asked] = True
    else:
        wrong[asked] = (shares > look.times * usual)[asked]
        seen, expected = float(shares[wrong].sum()), float(usual[wrong].sum())
    if not (wrong.any() and seen > look.times * expected and seen - expected >= look.share):
        return None
    chance = max(_by_buckets(mine, theirs, wrong, 1.0 + (total - 1.0) * spread), _by_share(mine, theirs, wrong, spread))
    if chance >= rules.timing_p:
        return None
    places = np.flatnonzero(wrong)
    evidence = {
        f"is_{look.name}": 1.0,
        "conversions": total,
        "seen_share": seen,
        "expected_share": expected,
        "bucket_from_ms": float(look.edges_ms[places[0] - 1]) if places[0] else 0.0,
        "bucket_to_ms": float(look.edges_ms[places[-1]]),
        "p": chance,
        "threshold_p": rules.timing_p,
    }
    return (np.ones(look.buckets, dtype=bool) if look.takes_all else wrong), evidence


def _by_buckets(mine: Floats, theirs: Floats, wrong: Mask, design_effect: float) -> float:
    """Chi-square of two samples; the buckets in question are one cell, others that are too empty join the next."""
    total, pool = float(mine.sum()), float(theirs.sum())
    cells = [(float(mine[wrong].sum()), float(theirs[wrong].sum()))]
    left, right = 0.0, 0.0
    for own, others in zip(mine[~wrong].tolist(), theirs[~wrong].tolist(), strict=True):
        left, right = left + own, right + others
        if (left + right) * min(total, pool) / (total + pool) >= LEAST_EXPECTED:
            cells.append((left, right))
            left, right = 0.0, 0.0
    cells[-1] = (cells[-1][0] + left, cells[-1][1] + right)
    scale = (pool / total) ** 0.5
    statistic = sum((own * scale - others / scale) ** 2 / (own + others) for own, others in cells)
    return chi_square_tail(statistic / design_effect, len(cells) - 1)


def _by_share(mine: Floats, theirs: Floats, wrong: Mask, spread: float) -> float:
    """Probability of so many in the buckets in question; the peers' share as if one more of theirs were there."""
    total, right = round(float(mine.sum())), round(float(mine[~wrong].sum()))
    usual = (float(theirs[wrong].sum()) + 1.0) / (float(theirs.sum()) + 2.0)
    return BetaBinomial(1.0 - usual, max(spread, LEAST_SPREAD)).lower_tail(right, total)
