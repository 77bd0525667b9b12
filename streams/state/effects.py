"""What a tick decides about events of the past, as rows whose input is the journal: moves and credits.

A **move** takes what an event added out of one validity and puts it into another, at the pane in which the event
happened, with effect today; so gross never changes. A **credit** is cost given back. Both are absolute totals per key,
like all rows.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import numpy as np

from streams.events import Input
from streams.records import MEASURES, MEASURES_OF, OFFSET_OF, Table
from streams.rules import Rules
from streams.stages.count import BASE, CREDITED
from streams.state.grain import Block, Changed, Grain
from streams.state.keys import MAX_KEYS, KeyTable, Names

JOURNAL_INPUT: Final = "journal"
_COHORT_WIDTH: Final = 2


class Effect(NamedTuple):
    """What one decision adds to one validity of one key."""

    at_ms: int
    """When the event happened."""
    names: Names
    """Campaign, ad unit, creative, variant, currency."""
    validity: str
    dimensions: Names
    """All of them, in the tables' order."""
    measures: tuple[int, ...]
    """In the order of MEASURES."""
    cohort: tuple[int, ...] = ()
    """Click hour ms, age bucket ms, conversions, value micros; empty: it belongs to none."""


def spread(source: Input, amounts: Iterable[int], sign: int = 1) -> tuple[int, ...]:
    """An input's own amounts (the common ones first) in their places among all measures."""
    own = [sign * amount for amount in amounts]
    before, width = OFFSET_OF[source] - BASE, len(MEASURES_OF[source])
    return (*own[:BASE], *(0,) * before, *own[BASE:], *(0,) * (len(MEASURES) - OFFSET_OF[source] - width))


def credit(cost_millimicros: int) -> tuple[int, ...]:
    """Measures of cost given back."""
    return (*(0,) * CREDITED, cost_millimicros, *(0,) * (len(MEASURES) - CREDITED - 1))


class Effected(NamedTuple):
    """The keys of one table that a tick's effects change in one effect pane."""

    table: Table
    effect_ms: int
    names: list[Names]
    """Each row's key without its pane."""
    changed: Changed
    """Its origins are panes, of cohorts the click hours."""


class Effects:
    """The journal's rows of the current effect pane, at every grain."""

    def __init__(self, rules: Rules) -> None:
        self.open_grains(rules)

    def open_grains(self, rules: Rules) -> None:
        """New rules begin with empty grains: their rows have keys of their own."""
        self._keys = {table: KeyTable() for table in (Table.PANES, Table.REPORTS, Table.COHORTS)}
        report_ms, most = rules.report_pane_ms, rules.max_report_keys
        self._grains = {
            Table.PANES: self._grain(Table.PANES, rules.pane_ms, rules.max_pane_keys, len(MEASURES)),
            Table.REPORTS: self._grain(Table.REPORTS, report_ms, most, len(MEASURES)),
            Table.COHORTS: self._grain(Table.COHORTS, report_ms, most, _COHORT_WIDTH),
        }

    def _grain(self, table: Table, pane_ms: int, max_keys: int, width: int) -> Grain:
        return Grain(pane_ms, max_keys, width, self._keys[table])

    def pane_ms(self, table: Table) -> int:
        """The table's pane."""
        return self._grains[table].pane_ms

    def apply(self, effects: list[Effect], newest_ms: int) -> list[Effected]:
        """At a tick: every key that these effects change, with its totals so far."""
        if not effects:
            return []
        decided = [(e.at_ms, (*e.names, e.validity), e.measures) for e in effects]
        reported = [(e.at_ms, (*e.names, e.validity, *e.dimensions), e.measures) for e in effects]
        cohorts = [(e.cohort[0], (*e.names, e.validity, e.cohort[1]), e.cohort[2:]) for e in effects if e.cohort]
        return [
            *self._fold(Table.PANES, decided, newest_ms),
            *self._fold(Table.REPORTS, reported, newest_ms),
            *self._fold(Table.COHORTS, cohorts, newest_ms),
        ]

    def _fold(
        self, table: Table, found: list[tuple[int, Names, tuple[int, ...]]], newest_ms: int
    ) -> Iterator[Effected]:
        if not found:
            return
        grain, keys = self._grains[table], self._keys[table]
        at = np.array([at_ms for at_ms, _, _ in found], dtype=np.int64)
        origin = at if table is Table.COHORTS else at - at % grain.pane_ms
        key = np.array([keys[names] for _, names, _ in found], dtype=np.int64)
        effect = np.full(len(found), newest_ms - newest_ms % grain.pane_ms, dtype=np.int64)
        amounts = np.array([measures for _, _, measures in found], dtype=np.int64)
        grain.add(Block(effect, origin, key, amounts))
        for effect_ms, changed in grain.fold():
            yield Effected(table, effect_ms, list(map(keys.names_of, changed.key.tolist())), changed)
        if len(keys) > MAX_KEYS:  # nothing waits, and totals are kept by name
            totals = grain.totals_snapshot()
            keys.clear()
            grain.restore_totals(totals)

    def snapshot(self) -> dict[str, Any]:
        """Plain values; nothing waits to be folded."""
        return {table.value: (grain.snapshot(), grain.totals_snapshot()) for table, grain in self._grains.items()}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Takes back what `snapshot` gave."""
        for table, grain in self._grains.items():
            waiting, totals = snapshot[table.value]
            grain.restore(waiting)
            grain.restore_totals(totals)
