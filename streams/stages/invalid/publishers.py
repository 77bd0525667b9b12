"""Rules over publishers: too few conversions for the clicks (flooding), conversions at the wrong times (timing).

The publishers of one channel are each other's peers; where they are fewer than `LEAST_GROUP`, all that the desk owns
are. A publisher in several channels is judged in each by its clicks there. They are weighed at **steps** of event
time, when clicks and conversions have been told up to there, so that what is decided does not depend on when anybody
looked; only what arrives later than a step is not seen by it. A step weighs the clicks of `flooding_window_ms` before
it, at equal age: of every click just the first `maturity` (a 24th of that window) counts, and only clicks that are at
least so old are weighed. These rules are not monotone: more conversions may acquit, so what was told at a step stays
told.

A conviction for flooding holds until the next step weighs anew: what the publisher sends until then is flagged as it
comes, so no click of a flood waits for the next step.
"""

from typing import Any, Final, NamedTuple

import numpy as np

from streams.invalid import InvalidRules, Mode, Rule
from streams.stages.invalid.crowding import Evidence, Finding
from streams.stages.invalid.flooding import Rates, convicted, sums
from streams.stages.invalid.runs import IS_SHOWN, NO_DELAY, Ints, Mask, chosen
from streams.stages.invalid.timing import LOOKS, Look, Suspicion, Times, suspicious
from streams.verdicts import Clicks

STEPS: Final = 36
"""Steps in a flooding window: ten minutes of six hours."""
LEAST_STEP_MS: Final = 30_000
LEAST_GROUP: Final = 10
"""Publishers of a channel that suffice as peers of one another: twice those without whom nothing can be said."""
MATURITY: Final = 24
"""A 24th of the window, a quarter of an hour by default: of the conversions that come within the first hour (Criteo:
35% of all, AppsFlyer: 75%) most come so soon, and a flood is found while it still runs."""


def step_of(rules: InvalidRules) -> int:
    """Event time between two steps, ms."""
    return max(LEAST_STEP_MS, rules.flooding_window_ms // STEPS)


def reach_of(rules: InvalidRules) -> int:
    """How old clicks may be that a step weighs, ms."""
    reach = rules.flooding_window_ms if rules.mode(Rule.PUBLISHER_FLOODING) is not Mode.OFF else 0
    if rules.mode(Rule.PUBLISHER_TIMING) is not Mode.OFF:
        reach = rules.flooding_window_ms + max(look.horizon_ms for look in LOOKS)
    return reach


Unit = tuple[int, int]
"""A publisher in a channel: source and group, hashes."""


class Standing(NamedTuple):
    """Who was convicted of flooding at a step: their clicks in [from_ms, to_ms) are flagged, whenever they come."""

    evidence: dict[Unit, Evidence]
    from_ms: int
    to_ms: int

    def find(self, entries: Clicks) -> list[Finding]:
        """Among new entries."""
        if not self.evidence or not len(entries):
            return []
        is_meant = (entries["delay_ms"] == NO_DELAY) & (entries["at_ms"] >= self.from_ms)
        is_meant &= (entries["at_ms"] < self.to_ms) & np.isin(entries["source"], [unit[0] for unit in self.evidence])
        entries = chosen(entries, is_meant)
        found = []
        for (source, group), evidence in self.evidence.items() if len(entries) else ():
            mine = chosen(entries, (entries["source"] == source) & (entries["user"] == group))
            if len(mine):
                found.append(Finding(Rule.PUBLISHER_FLOODING, mine, {source: evidence}))
        return found

    def snapshot(self) -> list[Any]:
        """Plain values."""
        return [list(self.evidence.items()), self.from_ms, self.to_ms]

    @classmethod
    def restored(cls, snapshot: list[Any]) -> "Standing":
        """Takes back what `snapshot` gave."""
        units, from_ms, to_ms = snapshot
        return cls({(source, group): evidence for (source, group), evidence in units}, from_ms, to_ms)


class Rows(NamedTuple):
    """Clicks or conversions, by event time of the click."""

    entries: Clicks
    unit: Ints
    """Place among the units."""
    campaign: Ints
    click: Ints
    """Place among the clicks."""

    def between(self, from_ms: int, to_ms: int) -> "Rows":
        """Those of clicks in [from, to)."""
        low, high = np.searchsorted(self.entries["at_ms"], (from_ms, to_ms))
        cut = slice(low, high)
        return Rows(self.entries[cut], self.unit[cut], self.campaign[cut], self.click[cut])

    def at(self, places: Ints) -> "Rows":
        """Those at these places."""
        return Rows(self.entries.take(places), self.unit[places], self.campaign[places], self.click[places])


class Publishers:
    """What a desk holds of its publishers, joined: clicks, and the conversions of clicks that are held.

    `shown` are impressions, one of `SHOWN_EACH`, in no order: the rules look at clicks and conversions alone.
    """

    def __init__(self, entries: Clicks, rules: InvalidRules) -> None:
        self.rules = rules
        is_shown = entries["delay_ms"] == IS_SHOWN
        self.shown: Clicks = entries.take(np.flatnonzero(is_shown))
        entries = chosen(entries, ~is_shown)
        order = np.lexsort((entries["delay_ms"] != NO_DELAY, entries["low"], entries["high"], entries["source"]))
        entries = entries.take(order)  # of each click it comes first, and then its conversions
        first = np.ones(len(entries), dtype=bool)
        names = ("source", "high", "low")
        first[1:] = np.logical_or.reduce([entries[name][1:] != entries[name][:-1] for name in names])
        click = np.cumsum(first, dtype=np.int64) - 1
        is_click = entries["delay_ms"] == NO_DELAY
        group = entries["user"][first][click]  # a conversion belongs where its click was
        sources, source = np.unique(entries["source"], return_inverse=True)
        groups, of_group = np.unique(group, return_inverse=True)
        pairs, unit = np.unique(source.astype(np.int64) * len(groups) + of_group, return_inverse=True)
        self.group_of: Ints = pairs % len(groups)
        """Place among the groups, of each unit."""
        pairs_of = zip(sources[pairs // len(groups)].tolist(), groups[self.group_of].tolist(), strict=True)
        self.units: list[Unit] = list(pairs_of)
        campaigns, campaign = np.unique(entries["campaign"], return_inverse=True)
        self.campaigns = len(campaigns)
        rows = Rows(entries, unit.astype(np.int64), campaign.astype(np.int64), click)
        is_known = np.zeros(int(click[-1]) + 1 if len(click) else 0, dtype=bool)
        is_known[click[is_click]] = True
        self.soonest_ms = np.full(len(is_known), NO_DELAY, dtype=np.int64)
        """From each click to its first conversion."""
        np.minimum.at(self.soonest_ms, click[~is_click], entries["delay_ms"][~is_click])
        self.clicks = self._by_time(rows.at(np.flatnonzero(is_click)))
        self.conversions = self._by_time(rows.at(np.flatnonzero(~is_click & is_known[click])))

    @staticmethod
    def _by_time(rows: Rows) -> Rows:
        return rows.at(np.argsort(rows.entries["at_ms"], kind="stable"))

    def _courts(self, present: Ints) -> list[tuple[Mask, Mask]]:
        """Of the units that are present: who are weighed against each other, and whom of them the verdict is about."""
        counts = np.bincount(self.group_of[present], minlength=int(self.group_of.max()) + 1)
        everyone = np.zeros(len(self.units), dtype=bool)
        everyone[present] = True
        is_enough = counts[self.group_of] >= LEAST_GROUP
        found = []
        for group in np.flatnonzero(counts >= LEAST_GROUP).tolist():
            own = everyone & (self.group_of == group)
            found.append((own, own))
        rest = everyone & ~is_enough
        return [*found, (everyone, rest)] if rest.any() else found

    def weigh(self, step_ms: int) -> tuple[list[Finding], Standing]:
        """What is found at one step; and who stands convicted of flooding until the next."""
        found, standing = [], Standing({}, 0, 0)
        if self.rules.mode(Rule.PUBLISHER_FLOODING) is not Mode.OFF:
            window_ms = self.rules.flooding_window_ms
            verdicts = self._flooding(step_ms)
            standing = Standing(verdicts, step_ms - window_ms, step_ms + step_of(self.rules))
            found += standing.find(self.clicks.between(standing.from_ms, standing.to_ms).entries)
        if self.rules.mode(Rule.PUBLISHER_TIMING) is not Mode.OFF:
            found += [finding for look in LOOKS for finding in self._timing(step_ms, look)]
        return found, standing

    def _flooding(self, step_ms: int) -> dict[Unit, Evidence]:
        """Who is convicted, with what was seen."""
        window_ms = self.rules.flooding_window_ms
        maturity_ms = window_ms // MATURITY
        rows = self.clicks.between(step_ms - window_ms, step_ms - maturity_ms)
        if len(rows.click) < self.rules.flooding_min_clicks:
            return {}
        is_converted = self.soonest_ms[rows.click] <= maturity_ms
        cells, cell = np.unique(rows.unit * self.campaigns + rows.campaign, return_inverse=True)
        rates = Rates(
            publisher=cells // self.campaigns,
            campaign=cells % self.campaigns,
            clicks=sums(np.ones(len(cell)), cell, len(cells)),
            conversions=sums(is_converted.astype(np.float64), cell, len(cells)),
        )
        times = {"window_ms": float(window_ms), "maturity_ms": float(maturity_ms), "step_ms": float(step_ms)}
        found: dict[Unit, Evidence] = {}
        for peers, asked in self._courts(np.unique(rates.publisher)):
            verdicts = convicted(rates.of(peers[rates.publisher]), len(self.units), self.campaigns, self.rules)
            found |= {self.units[unit]: seen | times for unit, seen in verdicts.items() if asked[unit]}
        return found

    def _timing(self, step_ms: int, look: Look) -> list[Finding]:
        """The clicks of conversions in the buckets that are in excess, or of all where the times are flat."""
        from_ms = step_ms - look.horizon_ms - self.rules.flooding_window_ms
        rows = self.conversions.between(from_ms, step_ms - look.horizon_ms)
        rows = rows.at(np.flatnonzero(rows.entries["delay_ms"] <= look.horizon_ms))
        if len(rows.click) < self.rules.timing_min_conversions:
            return []
        times = self._times(rows, look)
        verdicts: dict[int, Suspicion] = {}
        for peers, asked in self._courts(np.unique(rows.unit)):
            found = suspicious(times.of(peers[times.publisher]), look, self.rules)
            verdicts |= {unit: verdict for unit, verdict in found.items() if asked[unit]}
        if not verdicts:
            return []
        every = self.conversions.between(from_ms, step_ms)
        every = every.at(np.flatnonzero(every.entries["delay_ms"] <= look.horizon_ms))
        bucket = look.bucket_of(every.entries["delay_ms"])
        when = {"window_ms": float(self.rules.flooding_window_ms), "step_ms": float(step_ms)}
        return [
            Finding(
                Rule.PUBLISHER_TIMING,
                chosen(every.entries, (every.unit == unit) & wrong[bucket]),
                {self.units[unit][0]: seen | when},
            )
            for unit, (wrong, seen) in verdicts.items()
        ]

    def _times(self, rows: Rows, look: Look) -> Times:
        """Conversions by unit, campaign and bucket."""
        cells, cell = np.unique(rows.unit * self.campaigns + rows.campaign, return_inverse=True)
        bucket = look.bucket_of(rows.entries["delay_ms"])
        counts = np.bincount(cell * look.buckets + bucket, minlength=len(cells) * look.buckets)
        table = counts.reshape(-1, look.buckets).astype(np.float64)
        return Times(cells // self.campaigns, cells % self.campaigns, table)
