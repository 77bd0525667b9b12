"""What was billed and is given back: cost of conversions that turn out to be rejected, once each, as effect rows.

A billed conversion that may be rejected later is remembered with its cost, its pane and its key. When its rejection
has been read too, whichever comes first, the next tick credits just that cost, in rows whose input is the journal: at
the pane of what was billed, with effect today. Gross is never touched: valid = gross - credited.
"""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import numpy as np

from streams.records import MEASURES, Row
from streams.rules import Rules
from streams.stages.count import CREDITED
from streams.state.grain import Block, Grain
from streams.state.keys import KeyTable, Names

MAX_BILLED: Final = 100_000
"""Billed conversions remembered per partition; beyond it the oldest is forgotten, and its rejection gives nothing back
(counted as unmatched, for reconciliation)."""
MAX_WAITING: Final = 10_000
"""Rejections that came before their conversion; beyond it the oldest is forgotten, and counted."""
JOURNAL_INPUT: Final = "journal"


class Billed(NamedTuple):
    """A conversion that cost something."""

    digest: bytes
    """Of its event id."""
    at_ms: int
    names: Names
    """Campaign, ad unit, creative, variant, currency."""
    dimensions: Names
    """All of them, in the tables' order."""
    cost_millimicros: int


class Credits:
    """The memory of one partition, and the rows of the current effect pane."""

    def __init__(self, rules: Rules) -> None:
        self.unmatched = 0
        self._billed: dict[bytes, Billed] = {}
        self._waiting: dict[bytes, int] = {}
        """Rejections without a conversion yet, and the event time at which they were read."""
        self.open_grains(rules)

    def open_grains(self, rules: Rules) -> None:
        """New rules begin with empty grains: their rows have keys of their own."""
        self._keys, self._report_keys = KeyTable(), KeyTable()
        self._panes = Grain(rules.pane_ms, rules.max_pane_keys, 1, self._keys.names.__getitem__)
        self._report = Grain(rules.report_pane_ms, rules.max_report_keys, 1, self._report_keys.names.__getitem__)

    def match(
        self, billed: Iterable[Billed], rejections: Iterable[bytes], newest_ms: int, horizon_ms: int
    ) -> list[Billed]:
        """At a tick, in the order of the logs: what is given back now. What is older than the horizon is forgotten."""
        found, since_ms = [], newest_ms - horizon_ms
        for each in billed:
            if self._waiting.pop(each.digest, -1) >= max(0, since_ms) and each.at_ms >= since_ms:
                found.append(each)
            else:
                self._billed[each.digest] = each
        for digest in rejections:
            known = self._billed.pop(digest, None)
            if known is not None and known.at_ms >= since_ms:
                found.append(known)
            else:
                self._waiting[digest] = newest_ms
        self._forget(since_ms)
        return found

    def _forget(self, before_ms: int) -> None:
        """Drops what no rejection in time can reach any more, and what there is no room for."""
        for digest in _beyond(self._billed, MAX_BILLED):
            del self._billed[digest]
        for digest in _beyond(self._waiting, MAX_WAITING):
            del self._waiting[digest]
            self.unmatched += 1
        if self._billed and next(iter(self._billed.values())).at_ms < before_ms:
            self._billed = {digest: each for digest, each in self._billed.items() if each.at_ms >= before_ms}
        if self._waiting and next(iter(self._waiting.values())) < before_ms:
            gone = [digest for digest, at_ms in self._waiting.items() if at_ms < before_ms]
            self.unmatched += len(gone)
            for digest in gone:
                del self._waiting[digest]

    def rows(self, found: list[Billed], newest_ms: int) -> tuple[list[tuple[int, int, Row, Row]], ...]:
        """Of both grains: (pane's origin, effect, key, measures) of every key that these credits change."""
        given = []
        for grain, keys, with_dimensions in ((self._panes, self._keys, False), (self._report, self._report_keys, True)):
            names = [(*each.names, *(each.dimensions if with_dimensions else ())) for each in found]
            at = np.array([each.at_ms for each in found], dtype=np.int64)
            key = np.array([keys[name] for name in names], dtype=np.int64)
            effect = np.full(len(found), newest_ms - newest_ms % grain.pane_ms, dtype=np.int64)
            amounts = np.array([[each.cost_millimicros] for each in found], dtype=np.int64)
            grain.add(Block(effect, at - at % grain.pane_ms, key, amounts))
            changed = [
                (origin, effect_ms, tuple(rest), _measures(totals[0]))
                for effect_ms, rows in grain.fold()
                for (origin, *rest), totals, _ in rows
            ]
            given.append(changed)
        return tuple(given)

    def snapshot(self) -> dict[str, Any]:
        """Plain values; nothing waits to be folded."""
        return {
            "unmatched": self.unmatched,
            "billed": list(self._billed.values()),
            "waiting": list(self._waiting.items()),
            "panes": self._panes.snapshot(),
            "report": self._report.snapshot(),
            "totals": [self._panes.totals_snapshot(), self._report.totals_snapshot()],
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Takes back what `snapshot` gave."""
        self.unmatched = snapshot["unmatched"]
        billed = [Billed(d, at, tuple(n), tuple(dims), cost) for d, at, n, dims, cost in snapshot["billed"]]
        self._billed = {each.digest: each for each in billed}
        self._waiting = dict(snapshot["waiting"])
        self._panes.restore(snapshot["panes"], self._keys.__getitem__)
        self._report.restore(snapshot["report"], self._report_keys.__getitem__)
        panes, report = snapshot["totals"]
        self._panes.restore_totals(panes, self._keys.__getitem__)
        self._report.restore_totals(report, self._report_keys.__getitem__)


def _beyond(held: dict[bytes, Any], limit: int) -> list[bytes]:
    """The oldest keys that there is no room for."""
    return [digest for digest, _ in zip(held, range(len(held) - limit), strict=False)]


def _measures(credited: int) -> Row:
    return (*(0,) * CREDITED, credited, *(0,) * (len(MEASURES) - CREDITED - 1))
