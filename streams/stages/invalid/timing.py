"""Whose conversions come at the wrong times: a glut within seconds (hijacking), or flat over hours (flooding).

AppsFlyer on click-to-install times: about 75% within an hour and 94% within a day; hijacked ones show a glut at 3 to
10 s, flooded ones lie flat between 2 and 24 h. Each **look** compares a publisher's conversions in buckets of time
with those of its peers **on the same campaigns**, by a chi-square of two samples: one-tap orders take seconds whoever
serves them. Campaigns to which the others brought few conversions are one campaign together; one that hardly anybody
else serves has no baseline, and what is brought to it is left out. All are compared at equal age: only clicks older
than the look's horizon, only conversions within it.

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
"""Others who make a baseline: of all campaigns, and of each one."""
LEAST_SERVING: Final = 3
"""Others who must have brought conversions to a campaign, for it to be measured by those of its kind."""
LEAST_EXPECTED: Final = 5.0
"""Conversions expected in a bucket (Cochran's rule); fewer are joined with the next."""
LEAST_TOLD: Final = 20.0
"""Conversions of a publisher that can tell how peers differ; and of the others on a campaign that make a baseline."""
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


class Times(NamedTuple):
    """Conversions by cell: what one publisher brought to one campaign, cells by buckets."""

    publisher: Ints
    campaign: Ints
    counts: Floats

    def of(self, chosen: Mask) -> "Times":
        """Some of the cells."""
        return Times(self.publisher[chosen], self.campaign[chosen], self.counts[chosen])


class Compared(NamedTuple):
    """By publisher: what has a baseline, and the baseline, both by bucket."""

    seen: Floats
    expected: Floats
    """As many as were seen, spread over the buckets as the others' are on the same campaigns."""
    pool: Floats
    """So many conversions of others say as much as the baseline does."""


def suspicious(times: Times, look: Look, rules: InvalidRules) -> dict[int, Suspicion]:
    """Publishers with wrong times: the buckets to flag, what was seen.

    In rounds: those found are no peers of the others.
    """
    found: dict[int, Suspicion] = {}
    totals = _summed(times.counts.sum(axis=1), times.publisher)
    for _ in range(ROUNDS):
        peers = totals > 0
        peers[list(found)] = False
        if peers.sum() <= LEAST_PEERS:
            break
        compared = _against_campaigns(times, _weights(totals, peers))
        spread = _spread(compared.seen[peers], compared.expected[peers])
        new = {}
        for publisher in np.flatnonzero(compared.seen.sum(axis=1) >= rules.timing_min_conversions).tolist():
            verdict = _verdict(compared, publisher, spread, look, rules) if publisher not in found else None
            if verdict is not None:
                verdict[1]["peers"] = float(peers.sum() - 1)
                verdict[1]["without_baseline"] = float(totals[publisher]) - verdict[1]["conversions"]
                new[publisher] = verdict
        if not new:
            break
        found |= new
    return found


def _summed(values: Floats, places: Ints, size: int | None = None) -> Floats:
    """Rows of equal place added up."""
    found: Floats = np.zeros((int(places.max(initial=-1)) + 1 if size is None else size, *values.shape[1:]))
    np.add.at(found, places, values)
    return found


def _weights(totals: Floats, peers: Mask) -> Floats:
    """What a conversion of each peer weighs: none weighs more than three median peers, however many it has."""
    most = 3.0 * float(np.median(totals[peers]))
    found: Floats = np.where(peers, np.minimum(1.0, most / np.maximum(totals, 1.0)), 0.0)
    return found


def _against_campaigns(times: Times, weights: Floats) -> Compared:
    """Every publisher's conversions, and what the others' on the same campaigns let expect."""
    publisher, campaign, counts = times
    weighed, mine = counts * weights[publisher][:, None], counts.sum(axis=1)
    is_peer = ((weights[publisher] > 0) & (mine > 0)).astype(np.float64)
    others, serving = (_summed(each, campaign)[campaign] - each for each in (weighed, is_peer))
    is_enough = (others.sum(axis=1) >= LEAST_TOLD) & (serving >= LEAST_PEERS)
    is_small = ~is_enough & (serving >= LEAST_SERVING)
    small = _summed(weighed * is_small[:, None], publisher, len(weights))
    others[is_small] = (small.sum(axis=0) - small)[publisher[is_small]]
    size = np.maximum(others.sum(axis=1), 1.0)
    mine = mine * (is_enough | (is_small & (size >= LEAST_TOLD)))
    seen = _summed(counts * (mine > 0)[:, None], publisher, len(weights))
    expected = _summed(others * (mine / size)[:, None], publisher, len(weights))
    return Compared(seen, expected, _pool(publisher, mine, size, is_small, len(weights)))


def _pool(publisher: Ints, mine: Floats, size: Floats, is_small: Mask, publishers: int) -> Floats:
    """By publisher: 1 / Σ share² / size over its baselines; small campaigns share one."""
    apart = np.where(is_small, 0.0, mine)
    inexact = _summed(apart * apart / size, publisher, publishers)
    together = _summed(np.where(is_small, mine, 0.0), publisher, publishers)
    of_small = np.ones(publishers)
    of_small[publisher[is_small]] = size[is_small]
    inexact += together * together / of_small
    found: Floats = _summed(mine, publisher, publishers) ** 2 / np.maximum(inexact, 1e-9)
    return found


def _spread(seen: Floats, expected: Floats) -> float:
    """How much peers differ, ρ: the median over them, so that bad ones among them do not matter."""
    told = seen.sum(axis=1) >= LEAST_TOLD
    seen, expected = seen[told], expected[told]
    used = expected > 0
    freedom = used.sum(axis=1) - 1
    if not len(seen) or not (freedom > 0).any():
        return 0.0
    seen, expected, used, freedom = (each[freedom > 0] for each in (seen, expected, used, freedom))
    deviations = np.divide((seen - expected) ** 2, expected, out=np.zeros_like(seen), where=used)
    statistic = deviations.sum(axis=1) / freedom
    return float(np.clip(np.median((statistic - 1.0) / (seen.sum(axis=1) - 1.0)), 0.0, 0.5))


def _verdict(compared: Compared, publisher: int, spread: float, look: Look, rules: InvalidRules) -> Suspicion | None:
    mine, expected = compared.seen[publisher], compared.expected[publisher]
    return _compare(mine, expected * (compared.pool[publisher] / mine.sum()), spread, look, rules)


def _compare(mine: Floats, theirs: Floats, spread: float, look: Look, rules: InvalidRules) -> Suspicion | None:
    """One publisher against its baseline, as if the baseline were a pool of conversions."""
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
