"""What one input of one partition has come to: position, newest event time, ledger, ids, totals.

Touched only by records of that input, in offset order, so that it is a function of one log's prefix.
"""

from typing import Any, Final

from streams.events import Input
from streams.ports import Batch as Batch
from streams.records import COMMON, DECISION_KEY, MEASURES_OF, DeadLetter, Entry
from streams.rules import Rules
from streams.stages.invalid.judge import Judge
from streams.state.credits import Billed
from streams.state.dedupe import DedupeIndex
from streams.state.grain import Grain
from streams.state.keys import MAX_KEYS, JoinedKeys, KeyTable
from streams.state.reach import Reach
from streams.state.traces import TOUCHED_BY, Traces

DIMENSION_BITS: Final = 24
DIMENSION_MASK: Final = (1 << DIMENSION_BITS) - 1
"""A report key's number: the decision key's, and in the low bits the dimensions'."""
NAMES: Final = len(DECISION_KEY)
"""Names of a decision key: campaign, ad unit, creative, variant, currency, validity."""
LedgerKey = tuple[str, str]
"""(entry, reason); the reason is '' except for what was rejected."""


class InputState:
    """State of one input in one partition."""

    def __init__(self, source: Input, rules: Rules) -> None:
        self.source = source
        self.start_offset = 0
        self.position = 0
        self.newest_ms = -1
        self.first_ms = -1
        """Event time of the first event ever: what happened before it cannot be known."""
        self.ledger: dict[LedgerKey, int] = {}
        self.published_ledger: dict[LedgerKey, int] = {}
        self.dead_letters: list[DeadLetter] = []
        self.billed: list[Billed] = []
        """Conversions that cost something and may be rejected later, since the last tick."""
        self.rejections: list[bytes] = []
        """Digests of the conversions that adjustments reject, since the last tick."""
        self.dedupe = DedupeIndex(rules.horizons[source], keeps=source in TOUCHED_BY)
        self.judge = Judge(source, rules.invalid)
        self.traces = Traces(source)
        self.keys, self.dimensions, self.cohort_keys = KeyTable(), KeyTable(), KeyTable()
        self.report_keys = JoinedKeys(self.keys, self.dimensions, DIMENSION_BITS, NAMES)
        self.report_revision = 0
        """Counts the folds of the report grain: its totals change then only."""
        self._open_grains(rules)

    def _open_grains(self, rules: Rules) -> None:
        width = len(COMMON) + len(MEASURES_OF[self.source])
        self.panes = Grain(rules.pane_ms, rules.max_pane_keys, width, self.keys)
        self.report = Grain(rules.report_pane_ms, rules.max_report_keys, width, self.report_keys)
        self.cohorts = Grain(rules.report_pane_ms, rules.max_report_keys, 2, self.cohort_keys)
        self.reach = Reach(rules.reach_sample, self.report_keys)

    def change_rules(self, rules: Rules) -> None:
        """New rules begin with empty grains: their rows have keys of their own. Everything must have been folded."""
        self.dedupe.change_horizon(rules.horizons[self.source], self.newest_ms)
        self.judge.change_rules(rules.invalid)
        self.report_revision += 1
        self._open_grains(rules)

    def tidy(self) -> None:
        """Bounds the key tables: beyond their size, only what still waits keeps a number."""
        if max(len(self.keys), len(self.dimensions), len(self.cohort_keys)) <= MAX_KEYS:
            return
        waiting, totals, reports = self._grains(), self._totals(), self.report_totals()
        for table in (self.keys, self.dimensions, self.cohort_keys):
            table.clear()
        self._restore_grains(waiting)
        self._restore_totals(totals)
        self.restore_report_totals(reports)

    def _grains(self) -> dict[str, Any]:
        return {
            "panes": self.panes.snapshot(),
            "report": self.report.snapshot(),
            "cohorts": self.cohorts.snapshot(),
            "reach": self.reach.snapshot(),
        }

    def _totals(self) -> dict[str, Any]:
        return {"panes": self.panes.totals_snapshot(), "cohorts": self.cohorts.totals_snapshot()}

    def _restore_totals(self, totals: dict[str, Any]) -> None:
        self.panes.restore_totals(totals["panes"])
        self.cohorts.restore_totals(totals["cohorts"])

    def report_totals(self) -> dict[str, Any]:
        """Totals and sketches of the report grain: the largest part of the state, and `report_revision` names it."""
        return {"report": self.report.totals_snapshot(), "reach": self.reach.totals_snapshot()}

    def restore_report_totals(self, totals: dict[str, Any]) -> None:
        """Takes back what `report_totals` gave; call after `restore`."""
        self.report.restore_totals(totals["report"])
        self.reach.restore_totals(totals["reach"])

    def _restore_grains(self, snapshot: dict[str, Any]) -> None:
        self.panes.restore(snapshot["panes"])
        self.report.restore(snapshot["report"])
        self.cohorts.restore(snapshot["cohorts"])
        self.reach.restore(snapshot["reach"])

    def begin_at(self, offset: int) -> None:
        """The first offset that this state has ever seen."""
        self.start_offset = self.position = offset

    def enter(self, entry: Entry, reason: str = "", count: int = 1) -> None:
        """One ledger entry for `count` offsets."""
        key = (entry.value, reason)
        self.ledger[key] = self.ledger.get(key, 0) + count

    def consumed(self) -> int:
        """Offsets consumed since the start. Equals the sum of the ledger (law 1)."""
        return self.position - self.start_offset

    def changed_ledger(self) -> list[tuple[LedgerKey, int]]:
        """Entries that have changed since this was last asked, with what was consumed."""
        now = {**self.ledger, ("consumed", ""): self.consumed()}
        changed = [(key, count) for key, count in now.items() if self.published_ledger.get(key) != count]
        self.published_ledger = now
        return changed

    def snapshot(self) -> dict[str, object]:
        """Everything but the packed ids and the report's totals, as plain values."""
        return {
            "start_offset": self.start_offset,
            "position": self.position,
            "newest_ms": self.newest_ms,
            "first_ms": self.first_ms,
            "ledger": list(self.ledger.items()),
            "published_ledger": list(self.published_ledger.items()),
            "dedupe": self.dedupe.head(),
            "indexes": {name: index.head() for name, index in self.judge.indexes().items()},
            "judge": self.judge.snapshot(),
            "recent": self.traces.recent.head(),
            "runs": {
                "ids": [run.name for run in self.dedupe.runs],
                **{name: [run.name for run in index.runs] for name, index in self.judge.indexes().items()},
            },
            "report_revision": self.report_revision,
            "totals": self._totals(),
            **self._grains(),
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Takes back what `snapshot` gave; runs and report totals are restored apart."""
        self.start_offset, self.position = snapshot["start_offset"], snapshot["position"]
        self.newest_ms, self.first_ms = snapshot["newest_ms"], snapshot["first_ms"]
        self.ledger = {(e, r): n for (e, r), n in snapshot["ledger"]}
        self.published_ledger = {(e, r): n for (e, r), n in snapshot["published_ledger"]}
        self.dedupe.restore(**snapshot["dedupe"])
        self.judge.restore(snapshot["judge"])
        for name, index in self.judge.indexes().items():
            index.restore(**snapshot["indexes"][name])
        self.report_revision = snapshot["report_revision"]
        self._restore_grains(snapshot)
        self._restore_totals(snapshot["totals"])
