"""What one input of one partition has come to: position, newest event time, ledger, ids, totals.

Touched only by records of that input, in offset order, so that it is a function of one log's prefix.
"""

from typing import Any, NamedTuple

from streams.events import Input
from streams.ports import RawRecord
from streams.records import COMMON, MEASURES_OF, DeadLetter, Entry
from streams.rules import Rules
from streams.state.dedupe import DedupeIndex
from streams.state.grain import Grain
from streams.state.reach import ReportGrain

LedgerKey = tuple[str, str]
"""(entry, reason); the reason is '' except for what was rejected."""


class Batch(NamedTuple):
    """A fetched range of one input: [from_offset, to_offset), and the records in it.

    Offsets of the range without a record hold none (markers, compaction), or were lost to retention.
    """

    topic: str
    partition: int
    from_offset: int
    to_offset: int
    records: list[RawRecord]
    is_lost: bool = False


class InputState:
    """State of one input in one partition."""

    def __init__(self, source: Input, rules: Rules) -> None:
        self.source = source
        self.start_offset = 0
        self.position = 0
        self.newest_ms = -1
        self.ledger: dict[LedgerKey, int] = {}
        self.published_ledger: dict[LedgerKey, int] = {}
        self.dead_letters: list[DeadLetter] = []
        self.dedupe = DedupeIndex(rules.horizons[source])
        self._open_grains(rules)

    def _open_grains(self, rules: Rules) -> None:
        width = len(COMMON) + len(MEASURES_OF[self.source])
        self.panes = Grain(rules.pane_ms, rules.max_pane_keys, width)
        self.report = ReportGrain(rules.report_pane_ms, rules.max_report_keys, width, rules.reach_sample)
        self.cohorts = Grain(rules.report_pane_ms, rules.max_report_keys, 2)

    def change_rules(self, rules: Rules, resized: bool) -> None:
        """New limits from here on; new pane sizes begin with new panes. Everything must have been folded."""
        self.dedupe.horizon = rules.horizons[self.source]
        for grain, limit in ((self.panes, rules.max_pane_keys), (self.report, rules.max_report_keys)):
            grain.max_keys = limit
        self.cohorts.max_keys, self.report.sample = rules.max_report_keys, rules.reach_sample
        if resized:
            self._open_grains(rules)
            if self.newest_ms >= 0:
                self.panes.move_to(self.newest_ms - self.newest_ms % rules.pane_ms)
                minute = self.newest_ms - self.newest_ms % rules.report_pane_ms
                self.report.move_to(minute)
                self.cohorts.move_to(minute)

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
        """Everything but the packed ids, as plain values."""
        return {
            "start_offset": self.start_offset,
            "position": self.position,
            "newest_ms": self.newest_ms,
            "ledger": list(self.ledger.items()),
            "published_ledger": list(self.published_ledger.items()),
            "dedupe": self.dedupe.head(),
            "runs": [run.name for run in self.dedupe.runs],
            "panes": self.panes.snapshot(),
            "report": self.report.snapshot(),
            "cohorts": self.cohorts.snapshot(),
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Takes back what `snapshot` gave; the runs are restored apart."""
        self.start_offset, self.position = snapshot["start_offset"], snapshot["position"]
        self.newest_ms = snapshot["newest_ms"]
        self.ledger = {(e, r): n for (e, r), n in snapshot["ledger"]}
        self.published_ledger = {(e, r): n for (e, r), n in snapshot["published_ledger"]}
        self.dedupe.restore(**snapshot["dedupe"])
        self.panes.restore(snapshot["panes"])
        self.report.restore(snapshot["report"])
        self.cohorts.restore(snapshot["cohorts"])
