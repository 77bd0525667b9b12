"""A publisher's risk as a stream shows it: how far its clicks differ from its peers', trait by trait, added up.

Nothing here is learned from labels, and no verdict follows: the score orders publishers for a reviewer. (What
`publisher_risk` ships was fitted to labelled data of another network, for files like those; it never judges live
traffic.) Each **trait** is a share, of so many **trials** so many **seen**: of pairs of one publisher's clicks those
that came from one address, of conversions those within seconds of their click. What is seen is compared with what was
expected at the peers' median share (robust, so that bad peers do not set the measure), and the logarithm of the ratio
of their odds with how much peers differ:

    ratio = ln((seen + K) / (trials - seen + K)) - ln((expected + K) / (trials - expected + K))
    variance = 1 / (expected + K) + 1 / (trials - expected + K)         what chance alone makes of the ratio
    deviation = (ratio - median) / sqrt(max(1.4826 · MAD, 0.25)² + variance)
    part = weight · clip(deviation - 1, 0, 6)        log-odds; weight 2/3, so a part is at most 4
    score = 1 / (1 + exp(-(base + sum of parts)))    base -4: 0.018 where nothing stands out

K = 5 keeps few trials from telling much (a constant added as to the empirical logit, where it is 0.5). Conversions
have no such bound, more may come than expected: their ratio is ln((seen + K) / (expected + K)), reversed.

Median and MAD: Iglewicz & Hoaglin, How to Detect and Handle Outliers, 1993, who call 3.5 deviations an outlier (a part
of 1.7 here). Equal weights predict about as well as fitted ones where signs are known (Dawes, The robust beauty of
improper linear models, American Psychologist 34, 1979). One trait alone never takes a score beyond 0.5.

The share of pairs that are alike is Simpson's index (Nature 163, 1949): its estimate is unbiased at any number of
clicks, so that small and large publishers can be compared, and its negative logarithm is the entropy of order 2
(Rényi), which Shannon's, as the labelled set has it, never falls below.

Clicks far above the peers' are a trait: of clicks and a sample of the impressions, the share that are clicks. Its odds
are clicks per impression but for a factor that is the same for all, and what is compared is how far the odds lie above
the peers', in their own spread. Only channels in which impressions name their publisher are compared. No rule convicts
by it alone: an app whose users click more than others', and buy as much, is a good app; flooding needs conversions far
below the peers' too.

Counts are exact, of the clicks that are held; users, addresses and agents are kept as 32 bits of their hash, so that
of n distinct ones about n²/2³³ are taken for another (0.001% of 100,000). At most `MAX_SCORED` publishers are scored,
those with the most clicks; the rest is one sum.
"""

from enum import StrEnum
from math import exp
from typing import Annotated, Final, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta

from streams.stages.invalid.distributions import Floats
from streams.stages.invalid.flooding import sums
from streams.stages.invalid.publishers import Publishers, Rows, reach_of
from streams.stages.invalid.runs import Ints, Keys, Mask, chosen
from streams.verdicts import SHOWN_EACH, Clicks

DAY_MS: Final = 86_400_000
WINDOW_MS: Final = DAY_MS
"""Clicks of so long are weighed, as far as they are held."""
MAX_SCORED: Final = 500
LEAST_CLICKS: Final = 100
LEAST_PEERS: Final = 5
"""Other publishers with enough clicks; of fewer nothing can be said (as of flooding)."""
LEAST_TRAITS: Final = 3
LEAST_CONVERSIONS: Final = 5.0
LEAST_KNOWN: Final = 0.5
"""Share of a publisher's clicks that must have an address (a user, an agent) for what is said of them."""
PRIOR: Final = 5.0
LEAST_SPREAD: Final = 0.25
"""Peers are never taken to be more alike than a quarter (as of flooding)."""
MAD_TO_SIGMA: Final = 1.4826
SLACK: Final = 1.0
MOST: Final = 6.0
WEIGHT: Final = 2.0 / 3.0
BASE: Final = -4.0
MINUTE_MS: Final = 60_000
HOUR_MS: Final = 3_600_000
MATURE_MS: Final = HOUR_MS
"""Clicks must be as old for their conversions to be compared, and only conversions so soon count: 35% of all come
within an hour (Criteo). Flooding waits less, for it has to find a flood that still runs."""
QUICK_MS: Final = 10_000
SOON_MS: Final = 30_000
LATE_MS: Final = 2 * HOUR_MS
LOW: Final = np.uint64((1 << 32) - 1)


class Trait(StrEnum):
    """What is compared."""

    SHARED_ADDRESSES = "shared_addresses"
    SHARED_USERS = "shared_users"
    SHARED_AGENTS = "shared_agents"
    SAME_MINUTE = "same_minute"
    CLICKS_PER_IMPRESSION = "clicks_per_impression"
    QUICK_REPEATS = "quick_repeats"
    UNCONVERTED = "unconverted"
    SOON_CONVERSIONS = "soon_conversions"
    LATE_CONVERSIONS = "late_conversions"


WORDS: Final[dict[Trait, str]] = {
    Trait.SHARED_ADDRESSES: "pairs of clicks from one address",
    Trait.SHARED_USERS: "pairs of clicks from one user",
    Trait.SHARED_AGENTS: "pairs of clicks from one user agent",
    Trait.SAME_MINUTE: "pairs of clicks of an hour in one minute",
    Trait.CLICKS_PER_IMPRESSION: f"clicks, of clicks and every {SHOWN_EACH}th impression",
    Trait.QUICK_REPEATS: "clicks within 10 s of the same user's last",
    Trait.UNCONVERTED: "conversions, of those expected on its campaigns",
    Trait.SOON_CONVERSIONS: "conversions within 30 s of their click",
    Trait.LATE_CONVERSIONS: "conversions later than 2 h, of those in a day",
}
"""What is seen, of its trials, for people. Too many are a risk; of `unconverted` too few."""


class Unscored(StrEnum):
    """Why a publisher has no score: it is unverifiable, which is neither good nor bad."""

    FEW_CLICKS = "few_clicks"
    FEW_PEERS = "few_peers"
    FEW_TRAITS = "few_traits"


class Part(msgspec.Struct, frozen=True):
    """What one trait adds to the log-odds."""

    trait: Trait
    seen: float
    """Its share at this publisher …"""
    typical: float
    """… and the peers' median."""
    deviation: float
    """How far it lies towards risk, in deviations of the peers."""
    log_odds: float


class PeerRisk(msgspec.Struct, frozen=True):
    """One publisher at one step. score = logistic(BASE + the sum of the parts' log-odds)."""

    source: Annotated[int, Meta(ge=0)]
    """Hash of its id."""
    clicks: int
    conversions: int
    users: int
    addresses: int
    agents: int
    score: float | None
    unscored: Unscored | None
    parts: tuple[Part, ...]


class Assessment(msgspec.Struct, frozen=True):
    """The publishers of one desk at one step of event time, those with the most clicks first."""

    from_ms: int = -1
    to_ms: int = -1
    peers: int = 0
    """Publishers that have enough clicks."""
    risks: tuple[PeerRisk, ...] = ()
    beyond: int = 0
    """Publishers that are not among them …"""
    beyond_clicks: int = 0
    """… and their clicks."""


class Shares(NamedTuple):
    """Of each publisher's trials, how many were seen; `expected` of them where each publisher has its own."""

    seen: Floats
    trials: Floats
    is_known: Mask


def window_of(publishers: Publishers, step_ms: int, floor_ms: int) -> tuple[int, int]:
    """Event time that a step weighs: a day, or less where the rules or the room hold less."""
    return max(step_ms - min(WINDOW_MS, reach_of(publishers.rules)), floor_ms), step_ms


def assess(publishers: Publishers, step_ms: int, floor_ms: int) -> Assessment:
    """The risks at a step. `floor_ms`: what happened before is not held."""
    from_ms, to_ms = window_of(publishers, step_ms, floor_ms)
    clicks = publishers.clicks.between(from_ms, to_ms)
    if not len(clicks.click):
        return Assessment(from_ms, to_ms)
    sources, counts = np.unique(clicks.entries["source"], return_counts=True)
    order = np.lexsort((sources, -counts))
    scored, rest = order[:MAX_SCORED], order[MAX_SCORED:]
    looked = _Look(publishers, clicks, _Places(sources, scored), (from_ms, to_ms))
    enough = counts[scored] >= LEAST_CLICKS
    parts = {trait: _compare(trait, shares, enough) for trait, shares in looked.shares(enough).items()}
    risks = [
        _risk(source, looked, number, enough, [part[number] for part in parts.values()])
        for number, source in enumerate(sources[scored].tolist())
    ]
    return Assessment(from_ms, to_ms, int(enough.sum()), tuple(risks), len(rest), int(counts[rest].sum()))


class _Places:
    """Where a source stands among those that are scored; -1: it is none of them."""

    def __init__(self, sources: Keys, scored: Ints) -> None:
        self.size = len(scored)
        self._sources = sources
        self._place = np.full(len(sources), -1, dtype=np.int64)
        self._place[scored] = np.arange(len(scored))

    def of(self, entries: Clicks) -> Ints:
        """Of each entry's source."""
        source = entries["source"]
        at = np.minimum(np.searchsorted(self._sources, source), len(self._sources) - 1)
        return np.where(self._sources[at] == source, self._place[at], -1)


class _Look:
    """The clicks and conversions of the scored publishers, by their places among them."""

    def __init__(self, publishers: Publishers, clicks: Rows, places: _Places, window_ms: tuple[int, int]) -> None:
        self.publishers, self.places, self.size, self.window_ms = publishers, places, places.size, window_ms
        owner = places.of(clicks.entries)
        mine = np.flatnonzero(owner >= 0)
        self.clicks = clicks.at(mine) if len(mine) < len(owner) else clicks
        self.owner = owner[mine]
        self.counts = self._count(self.owner)
        self.conversions = self._count(self.owner[publishers.soonest_ms[self.clicks.click] <= WINDOW_MS])
        entries = self.clicks.entries
        self.addresses = _Values(self.owner, entries["address"].astype(np.uint64), self.size)
        self.agents = _Values(self.owner, entries["agent"].astype(np.uint64), self.size)
        self.users = _Values(self.owner, entries["person"].astype(np.uint64), self.size)

    def _count(self, owner: Ints) -> Floats:
        return np.bincount(owner, minlength=self.size).astype(np.float64)

    def shares(self, enough: Mask) -> dict[Trait, Shares]:
        """Every trait's."""
        least = LEAST_KNOWN * self.counts
        of_values = {
            Trait.SHARED_ADDRESSES: self.addresses,
            Trait.SHARED_USERS: self.users,
            Trait.SHARED_AGENTS: self.agents,
        }
        found = {
            trait: Shares(values.pairs, _pairs(values.known), enough & (values.known >= least))
            for trait, values in of_values.items()
        }
        found[Trait.SAME_MINUTE] = self._same_minute(enough)
        found[Trait.CLICKS_PER_IMPRESSION] = self._per_impression(enough)
        found[Trait.QUICK_REPEATS] = Shares(self._quick(), self.users.known, found[Trait.SHARED_USERS].is_known)
        found[Trait.UNCONVERTED] = self._unconverted(enough)
        window_ms, (from_ms, to_ms) = self.publishers.rules.flooding_window_ms, self.window_ms
        recent = self.publishers.conversions.between(from_ms, to_ms - MATURE_MS)
        found[Trait.SOON_CONVERSIONS] = self._timed(enough, recent, MATURE_MS, 0, SOON_MS)
        older = self.publishers.conversions.between(to_ms - DAY_MS - window_ms, to_ms - DAY_MS)  # as timing has it
        found[Trait.LATE_CONVERSIONS] = self._timed(enough, older, DAY_MS, LATE_MS, DAY_MS)
        return found

    def _same_minute(self, enough: Mask) -> Shares:
        at_ms = self.clicks.entries["at_ms"]
        minutes = _Values(self.owner, (at_ms // MINUTE_MS).astype(np.uint64) & LOW, self.size)
        hours = _Values(self.owner, (at_ms // HOUR_MS).astype(np.uint64) & LOW, self.size)
        return Shares(minutes.pairs, hours.pairs, enough & (hours.pairs > 0))

    def _per_impression(self, enough: Mask) -> Shares:
        """Clicks and sampled impressions that are old enough for both inputs to have been read."""
        from_ms, to_ms = self.window_ms[0], self.window_ms[1] - MATURE_MS
        shown = self.publishers.shown
        shown = chosen(shown, (shown["at_ms"] >= from_ms) & (shown["at_ms"] < to_ms))
        clicks = self.publishers.clicks.between(from_ms, to_ms).entries
        clicks = chosen(clicks, np.isin(clicks["user"], np.unique(shown["user"])))  # of publishers: the channel
        shown_of, clicked_of = self.places.of(shown), self.places.of(clicks)
        seen = self._count(clicked_of[clicked_of >= 0])
        is_known = enough & (seen > 0) & (seen >= LEAST_KNOWN * self._aged(to_ms))
        return Shares(seen, seen + self._count(shown_of[shown_of >= 0]), is_known)

    def _aged(self, to_ms: int) -> Floats:
        return self._count(self.owner[self.clicks.entries["at_ms"] < to_ms])

    def _quick(self) -> Floats:
        entries, users = self.clicks.entries, self.users
        order = np.lexsort((entries["at_ms"], users.keys))
        keys, at_ms = users.keys[order], entries["at_ms"][order]
        is_quick = (keys[1:] == keys[:-1]) & (np.diff(at_ms) <= QUICK_MS) & (keys[1:] & LOW != 0)
        return self._count(self.owner[order[1:]][is_quick])

    def _unconverted(self, enough: Mask) -> Shares:
        """Conversions against those that came if each campaign converted for it as for all (indirect standardisation).

        Only clicks that are old enough, and of their conversions only those that came so soon.
        """
        rows = self.clicks.between(self.window_ms[0], self.window_ms[1] - MATURE_MS)
        owner, campaigns = self.places.of(rows.entries), self.publishers.campaigns
        is_converted = (self.publishers.soonest_ms[rows.click] <= MATURE_MS).astype(np.float64)
        of_campaign = sums(np.ones(len(owner)), rows.campaign, campaigns)
        rates = sums(is_converted, rows.campaign, campaigns) / np.maximum(of_campaign, 1.0)
        expected = sums(rates[rows.campaign], owner, self.size)
        return Shares(sums(is_converted, owner, self.size), expected, enough & (expected > 0))

    def _timed(self, enough: Mask, rows: Rows, horizon_ms: int, from_ms: int, to_ms: int) -> Shares:
        """Conversions so long after their clicks, of those within the horizon; the clicks are as old."""
        delay_ms, owner = rows.entries["delay_ms"].astype(np.int64), self.places.of(rows.entries)
        counts = (owner >= 0) & (delay_ms <= horizon_ms)
        is_seen = counts & (delay_ms >= from_ms) & (delay_ms <= to_ms)
        trials = self._count(owner[counts])
        return Shares(self._count(owner[is_seen]), trials, enough & (trials >= LEAST_CONVERSIONS))


class _Values:
    """Of each publisher: clicks with a value, distinct values, and pairs of clicks with the same one. 0: unknown."""

    def __init__(self, owner: Ints, values: Keys, size: int) -> None:
        self.keys: Keys = (owner.astype(np.uint64) << np.uint64(32)) | values
        keys, counts = np.unique(self.keys, return_counts=True)
        is_known = (keys & LOW) != 0
        keys, counts = keys[is_known], counts[is_known].astype(np.float64)
        at = (keys >> np.uint64(32)).astype(np.int64)
        self.known = sums(counts, at, size)
        self.pairs = sums(_pairs(counts), at, size)
        self.distinct = np.bincount(at, minlength=size)


def _pairs(counts: Floats) -> Floats:
    found: Floats = counts * (counts - 1.0) / 2.0
    return found


def _compare(trait: Trait, shares: Shares, enough: Mask) -> list[Part | None]:
    """Each publisher's part; None where its share is not known, or too few peers' are."""
    known = shares.is_known & (shares.trials > 0)
    if known.sum() <= LEAST_PEERS:
        return [None] * len(enough)
    share = np.divide(shares.seen, shares.trials, out=np.zeros(len(enough)), where=known)
    typical = float(np.median(share[known]))
    expected = shares.trials * typical
    ratio = np.log((shares.seen + PRIOR) / (expected + PRIOR))
    variance = 1.0 / (expected + PRIOR)
    if trait is Trait.UNCONVERTED:
        ratio = -ratio
    else:
        rest, usual = np.maximum(shares.trials - shares.seen, 0.0), shares.trials - expected
        ratio -= np.log((rest + PRIOR) / (usual + PRIOR))
        variance += 1.0 / (usual + PRIOR)
    centre = float(np.median(ratio[known]))
    spread = max(MAD_TO_SIGMA * float(np.median(np.abs(ratio[known] - centre))), LEAST_SPREAD)
    deviation = (ratio - centre) / np.sqrt(spread**2 + variance)
    parts = WEIGHT * np.clip(deviation - SLACK, 0.0, MOST)
    return [
        Part(trait, float(share[at]), typical, float(deviation[at]), float(parts[at])) if known[at] else None
        for at in range(len(enough))
    ]


def _risk(source: int, looked: _Look, number: int, enough: Mask, parts: list[Part | None]) -> PeerRisk:
    found = tuple(part for part in parts if part is not None)
    unscored = None
    if not enough[number]:
        unscored = Unscored.FEW_CLICKS
    elif enough.sum() <= LEAST_PEERS:
        unscored = Unscored.FEW_PEERS
    elif len(found) < LEAST_TRAITS:
        unscored = Unscored.FEW_TRAITS
    log_odds = BASE + sum(part.log_odds for part in found)
    return PeerRisk(
        source=source,
        clicks=int(looked.counts[number]),
        conversions=int(looked.conversions[number]),
        users=int(looked.users.distinct[number]),
        addresses=int(looked.addresses.distinct[number]),
        agents=int(looked.agents.distinct[number]),
        score=1.0 / (1.0 + exp(-log_odds)) if unscored is None else None,
        unscored=unscored,
        parts=found if unscored is None else (),
    )
