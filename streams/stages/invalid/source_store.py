"""Clicks by their source: immutable runs, sorted by source, so that a checkpoint writes only new ones.

Exact, with no sketch: 76 bytes an entry. Beyond `MAX_ENTRIES` the oldest event times go first, and what is older than
that is not taken any more.
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from streams.errors import CorruptCheckpoint
from streams.rules import MINUTE_MS
from streams.verdicts import CLICK, Clicks

ENTRY: Final = np.dtype([("key", "<u8"), *CLICK.descr, ("partition", "<u2")])
"""A click of a source; `key`: source and kind in one; `partition`: that of the click."""
MAX_ENTRIES: Final = 2_000_000
PACK_AT: Final = 20_000
MAX_RUN: Final = 1_000_000
_KIND: Final = np.uint64(0x9E3779B97F4A7C15)
Keys = npt.NDArray[np.uint64]


class Run(msgspec.Struct, frozen=True):
    """Entries sorted by key. Never changed, so its name stands for its content."""

    name: int
    entries: Clicks

    def encode(self) -> bytes:
        """The records."""
        return self.entries.tobytes()


def entries_of(clicks: Clicks, partition: int) -> Clicks:
    """A batch's clicks as entries."""
    found = np.zeros(len(clicks), dtype=ENTRY)
    for name in CLICK.names or ():
        found[name] = clicks[name]
    found["key"] = clicks["source"] ^ (clicks["kind"].astype(np.uint64) * _KIND)
    found["partition"] = partition
    return found


class SourceStore:
    """All entries of one partition."""

    def __init__(self, max_entries: int = MAX_ENTRIES) -> None:
        self.max_entries = max_entries
        self.floor_ms = 0
        self.forgotten = 0
        """Entries that had to go for want of room."""
        self.runs: list[Run] = []
        self._fresh: list[Clicks] = []
        self._next_name = 0

    def __len__(self) -> int:
        return sum(map(len, self._fresh)) + sum(len(run.entries) for run in self.runs)

    def add(self, entries: Clicks) -> None:
        """Takes a batch; what is older than the floor is left out."""
        kept = entries[entries["at_ms"] >= self.floor_ms]
        if len(kept):
            self._fresh.append(kept)
        if sum(map(len, self._fresh)) > PACK_AT:
            self.pack()

    def of(self, keys: Keys) -> Clicks:
        """Every entry of these sources, each once, by key and event time. `keys` must be sorted."""
        found = []
        for entries in self._sorted():
            begins = np.searchsorted(entries["key"], keys, side="left")
            ends = np.searchsorted(entries["key"], keys, side="right")
            counts = ends - begins
            total = int(counts.sum())
            if total:
                starts = np.repeat(begins - np.concatenate(([0], np.cumsum(counts)[:-1])), counts)
                found.append(entries[starts + np.arange(total)])
        if not found:
            return np.zeros(0, dtype=ENTRY)
        return distinct(np.concatenate(found), self.floor_ms)

    def of_kind(self, kind: int) -> Clicks:
        """Every entry of one kind, each once, by key and event time."""
        found = [entries[entries["kind"] == kind] for entries in self._sorted()]
        return distinct(np.concatenate(found), self.floor_ms) if found else np.zeros(0, dtype=ENTRY)

    def _sorted(self) -> Iterator[Clicks]:
        if len(self._fresh) > 1 or (self._fresh and not _is_sorted(self._fresh[0])):
            joined = np.concatenate(self._fresh)
            self._fresh = [joined[np.argsort(joined["key"], kind="stable")]]
        yield from self._fresh
        yield from (run.entries for run in self.runs)

    def forget(self, before_ms: int) -> None:
        """At a decision: what no window reaches any more goes, and the oldest while there is no room."""
        self.floor_ms = max(self.floor_ms, before_ms)
        if len(self) <= self.max_entries:
            return
        self.pack()
        at = np.concatenate([run.entries["at_ms"] for run in self.runs])
        at = at[at >= self.floor_ms]
        if len(at) > self.max_entries:
            kept = self.max_entries - self.max_entries // 10
            oldest = int(np.partition(at, len(at) - kept)[len(at) - kept])
            self.floor_ms = oldest - oldest % MINUTE_MS + MINUTE_MS
            self.forgotten += int((at < self.floor_ms).sum())
        self.runs = [self._run(live) for run in self.runs if len(live := self._live(run.entries))]

    def _live(self, entries: Clicks) -> Clicks:
        return entries[entries["at_ms"] >= self.floor_ms]

    def pack(self) -> None:
        """Moves fresh entries into a run, drops dead ones, and merges runs of like size. Changes no answer."""
        if self._fresh:
            self.runs.append(self._run(next(iter(self._sorted()))))
            self._fresh = []
        self.runs = [run for run in self.runs if int(run.entries["at_ms"].max()) >= self.floor_ms]
        while len(self.runs) > 1 and self._last_two_are_alike():
            newer, older = self.runs.pop(), self.runs.pop()
            joined = self._live(np.concatenate((older.entries, newer.entries)))
            if len(joined):
                self.runs.append(self._run(joined[np.argsort(joined["key"], kind="stable")]))

    def _last_two_are_alike(self) -> bool:
        older, newer = len(self.runs[-2].entries), len(self.runs[-1].entries)
        return older <= 2 * newer and older + newer <= MAX_RUN

    def _run(self, entries: Clicks) -> Run:
        self._next_name += 1
        return Run(self._next_name, entries)

    def bytes_held(self) -> int:
        """Memory of the entries, bytes."""
        return len(self) * ENTRY.itemsize

    def head(self) -> dict[str, Any]:
        """What a checkpoint keeps besides the runs. Call `pack` first."""
        return {
            "floor_ms": self.floor_ms,
            "forgotten": self.forgotten,
            "next_name": self._next_name,
            "runs": [run.name for run in self.runs],
        }

    def restore(self, head: dict[str, Any], runs: dict[int, bytes]) -> None:
        """Takes back what `head` and the runs' `encode` gave.

        Raises:
            CorruptCheckpoint: a run is not whole.
        """
        self.floor_ms, self.forgotten, self._next_name = head["floor_ms"], head["forgotten"], head["next_name"]
        self.runs = []
        for name in head["runs"]:
            if len(runs[name]) % ENTRY.itemsize:
                raise CorruptCheckpoint(f"a run of {len(runs[name])} bytes of sources is not whole")
            self.runs.append(Run(name, np.frombuffer(runs[name], dtype=ENTRY)))


def _is_sorted(entries: Clicks) -> bool:
    return bool((entries["key"][1:] >= entries["key"][:-1]).all())


def distinct(entries: Clicks, floor_ms: int) -> Clicks:
    """Each click of a source once, however often it was forwarded; by key, event time and digest."""
    live = entries[entries["at_ms"] >= floor_ms]
    order = np.lexsort((live["delay_ms"], live["low"], live["high"], live["at_ms"], live["key"]))
    ordered = live[order]
    if len(ordered) < 2:
        return ordered
    same = np.ones(len(ordered) - 1, dtype=bool)
    for name in ("key", "at_ms", "high", "low", "delay_ms"):
        same &= ordered[name][1:] == ordered[name][:-1]
    return ordered[np.concatenate(([True], ~same))]
