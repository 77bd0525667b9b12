"""Rules over publishers: too few conversions for the clicks (flooding), conversions at the wrong times (timing).

The publishers that one desk owns are each other's peers. They are weighed at **steps** of event time, when the
watermark passes them, so that what is decided does not depend on when anybody looked; only what arrives later than a
step is not seen by it. A step weighs the clicks of `flooding_window_ms` before it, at equal age: of every click just
the first `maturity` (a 24th of that window) counts, and only clicks that are at least so old are weighed. These rules
are not monotone: more conversions may acquit, so what was told at a step stays told.
"""

from typing import Final, NamedTuple

import numpy as np

from streams.invalid import InvalidRules, Mode, Rule
from streams.stages.invalid.crowding import Finding
from streams.stages.invalid.flooding import Rates, convicted, sums
from streams.stages.invalid.runs import NO_DELAY, Ints, Keys, chosen
from streams.stages.invalid.timing import LOOKS, Look, suspicious
from streams.verdicts import Clicks

STEPS: Final = 36
"""Steps in a flooding window: ten minutes of six hours."""
LEAST_STEP_MS: Final = 60_000
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


class Rows(NamedTuple):
    """Clicks or conversions, by event time of the click."""

    entries: Clicks
    publisher: Ints
    """Place among the publishers."""
    campaign: Ints
    click: Ints
    """Place among the clicks."""

    def between(self, from_ms: int, to_ms: int) -> "Rows":
        """Those of clicks in [from, to)."""
        low, high = np.searchsorted(self.entries["at_ms"], (from_ms, to_ms))
        cut = slice(low, high)
        return Rows(self.entries[cut], self.publisher[cut], self.campaign[cut], self.click[cut])

    def at(self, places: Ints) -> "Rows":
        """Those at these places."""
        return Rows(self.entries.take(places), self.publisher[places], self.campaign[places], self.click[places])


class Publishers:
    """What a desk holds of its publishers, joined: clicks, and the conversions of clicks that are held."""

    def __init__(self, entries: Clicks, rules: InvalidRules) -> None:
        self.rules = rules
        order = np.lexsort((entries["low"], entries["high"], entries["source"]))
        entries = entries.take(order)
        first = np.ones(len(entries), dtype=bool)
        names = ("source", "high", "low")
        first[1:] = np.logical_or.reduce([entries[name][1:] != entries[name][:-1] for name in names])
        click = np.cumsum(first, dtype=np.int64) - 1
        is_click = entries["delay_ms"] == NO_DELAY
        self.sources: Keys
        self.sources, publisher = np.unique(entries["source"], return_inverse=True)
        campaigns, campaign = np.unique(entries["campaign"], return_inverse=True)
        self.campaigns = len(campaigns)
        rows = Rows(entries, publisher.astype(np.int64), campaign.astype(np.int64), click)
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

    def weigh(self, step_ms: int) -> list[Finding]:
        """What is found at one step."""
        found = []
        if self.rules.mode(Rule.PUBLISHER_FLOODING) is not Mode.OFF:
            found += self._flooding(step_ms)
        if self.rules.mode(Rule.PUBLISHER_TIMING) is not Mode.OFF:
            found += [finding for look in LOOKS for finding in self._timing(step_ms, look)]
        return found

    def _flooding(self, step_ms: int) -> list[Finding]:
        """All clicks of the window of those who are convicted, the young ones too."""
        window_ms = self.rules.flooding_window_ms
        maturity_ms = window_ms // MATURITY
        rows = self.clicks.between(step_ms - window_ms, step_ms - maturity_ms)
        if len(rows.click) < self.rules.flooding_min_clicks:
            return []
        is_converted = self.soonest_ms[rows.click] <= maturity_ms
        cells, cell = np.unique(rows.publisher * self.campaigns + rows.campaign, return_inverse=True)
        rates = Rates(
            publisher=cells // self.campaigns,
            campaign=cells % self.campaigns,
            clicks=sums(np.ones(len(cell)), cell, len(cells)),
            conversions=sums(is_converted.astype(np.float64), cell, len(cells)),
        )
        verdicts = convicted(rates, len(self.sources), self.campaigns, self.rules)
        if not verdicts:
            return []
        every = self.clicks.between(step_ms - window_ms, step_ms)
        flagged = chosen(every.entries, np.isin(every.publisher, list(verdicts)))
        times = {"window_ms": float(window_ms), "maturity_ms": float(maturity_ms), "step_ms": float(step_ms)}
        evidence = {int(self.sources[publisher]): seen | times for publisher, seen in verdicts.items()}
        return [Finding(Rule.PUBLISHER_FLOODING, flagged, evidence)]

    def _timing(self, step_ms: int, look: Look) -> list[Finding]:
        """The clicks of conversions in the buckets that are in excess, or of all where the times are flat."""
        from_ms = step_ms - look.horizon_ms - self.rules.flooding_window_ms
        rows = self.conversions.between(from_ms, step_ms - look.horizon_ms)
        rows = rows.at(np.flatnonzero(rows.entries["delay_ms"] <= look.horizon_ms))
        if len(rows.click) < self.rules.timing_min_conversions:
            return []
        bucket = look.bucket_of(rows.entries["delay_ms"])
        counts = np.bincount(rows.publisher * look.buckets + bucket, minlength=len(self.sources) * look.buckets)
        verdicts = suspicious(counts.reshape(-1, look.buckets).astype(np.float64), look, self.rules)
        if not verdicts:
            return []
        every = self.conversions.between(from_ms, step_ms)
        every = every.at(np.flatnonzero(every.entries["delay_ms"] <= look.horizon_ms))
        is_wrong = np.zeros((len(self.sources), look.buckets), dtype=bool)
        for publisher, (wrong, _) in verdicts.items():
            is_wrong[publisher] = wrong
        flagged = chosen(every.entries, is_wrong[every.publisher, look.bucket_of(every.entries["delay_ms"])])
        times = {"window_ms": float(self.rules.flooding_window_ms), "step_ms": float(step_ms)}
        evidence = {int(self.sources[publisher]): seen | times for publisher, (_, seen) in verdicts.items()}
        return [Finding(Rule.PUBLISHER_TIMING, flagged, evidence)]
