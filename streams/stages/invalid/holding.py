"""What a desk holds of its sources: sets of entries by kind, complete ones and those that still wait, within bounds.

Each kind has its own share of the room and its own floor of event time, so that one never crowds out another. The
floor only rises: with the watermark, when no window can contain an entry any more, and where there is no room. What
comes below it is ignored, and counted; what was forgotten for want of room is counted apart.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from streams.invalid import SourceKind
from streams.stages.invalid.runs import (
    ENTRY,
    IS_SHOWN,
    MINOR_MASK,
    NO_DELAY,
    PUBLISHER_ENTRY,
    Keys,
    Mask,
    Runs,
    chosen,
    key_by_click,
    key_by_user,
)
from streams.verdicts import CLICK, NOT_CONVERTED, SHOWN, Clicks

ROOM: Final = 8
"""Where there is no room, one of so many entries is forgotten at once, so that it is seldom done."""
KINDS: Final = tuple(SourceKind)
SAME: Final = ("source", "high", "low", "delay_ms")
"""What makes two entries of one kind the same: a conversion is not its click, nor another conversion."""
COPIED: Final = ("source", "high", "low", "at_ms", "campaign", "user", "click_type")
ORDER: Final = ("partition", "at_ms", *reversed(SAME))
"""How entries with one key are sorted, the last name first: of two that are the same the earliest is kept."""


def entries_of(kind: SourceKind, **columns: Any) -> Clicks:
    """`CLICK` records of one kind of source from columns (arrays, or one value for all) named as its fields."""
    sizes = [len(column) for column in columns.values() if np.ndim(column)]
    made = np.zeros(max(sizes, default=1), dtype=CLICK)
    made["kind"], made["delay_ms"] = KINDS.index(kind), NOT_CONVERTED
    for name, column in columns.items():
        made[name] = column
    return made


TIDY_MS: Final = 3_600_000
"""Event time after which what has left every window leaves memory, too, however little comes."""


def dtype_of(kind: SourceKind) -> np.dtype[np.void]:
    """What is kept of an entry of this kind."""
    return PUBLISHER_ENTRY if kind is SourceKind.PUBLISHER else ENTRY


def held_of(kind: SourceKind, clicks: Clicks, partition: int) -> Clicks:
    """What is kept of `CLICK` records of one kind that a partition forwarded."""
    held = np.zeros(len(clicks), dtype=dtype_of(kind))
    for name in COPIED:
        held[name] = clicks[name]
    if kind is SourceKind.PUBLISHER:
        held["user"] = clicks["group"]
        held["person"] = (clicks["user"] >> np.uint64(32)) ^ (clicks["user"] & MINOR_MASK)
        held["address"], held["agent"] = clicks["address"], clicks["agent"]
    delay_ms = clicks["delay_ms"]
    told = (delay_ms == NOT_CONVERTED, delay_ms == SHOWN)
    held["delay_ms"] = np.select(told, (NO_DELAY, IS_SHOWN), np.clip(delay_ms, 0, IS_SHOWN - 1))
    held["partition"] = partition
    return held


def once_each(keys: Keys, entries: Clicks) -> tuple[Keys, Clicks]:
    """Sorted by key; of entries that are the same, one."""
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    alike = np.zeros(len(keys), dtype=bool)
    alike[1:] = keys[1:] == keys[:-1]
    if not alike.any():
        return keys, entries.take(order)
    alike[:-1] |= alike[1:]
    places = np.flatnonzero(alike)  # few: only these need all their fields compared
    some = entries.take(order[places])
    order[places] = order[places][np.lexsort([some[name] for name in ORDER] + [keys[places]])]
    entries = entries.take(order)
    first = np.ones(len(keys), dtype=bool)
    first[1:] = np.logical_or.reduce([entries[name][1:] != entries[name][:-1] for name in SAME])
    return keys[first], chosen(entries, first)


class Holding:
    """The entries of one desk."""

    def __init__(self, max_entries: int) -> None:
        self.max_each = max(1, max_entries // len(KINDS))
        """Of one kind; beyond it, the oldest event time is forgotten first."""
        self.forgotten = 0
        self.ignored = 0
        self.floors_ms = dict.fromkeys(KINDS, 0)
        self.held = {
            kind: Runs(dtype_of(kind), key_by_user if kind is SourceKind.ADDRESS else key_by_click) for kind in KINDS
        }
        self._waiting: dict[SourceKind, list[Clicks]] = {kind: [] for kind in KINDS}

    def __len__(self) -> int:
        """Entries in memory."""
        return sum(map(self._count, KINDS))

    def waiting(self) -> int:
        """Entries that the watermark has not reached."""
        return sum(len(part) for parts in self._waiting.values() for part in parts)

    def waiting_bytes(self) -> int:
        """Memory of those."""
        return sum(part.nbytes for parts in self._waiting.values() for part in parts)

    def _count(self, kind: SourceKind) -> int:
        return len(self.held[kind]) + sum(map(len, self._waiting[kind]))

    def take(self, clicks: Clicks, partition: int) -> None:
        """Entries wait for the watermark. May forget the oldest."""
        for at, kind in enumerate(KINDS):
            mine = chosen(clicks, clicks["kind"] == at)
            if not len(mine):
                continue
            live: Mask = mine["at_ms"] >= self.floors_ms[kind]
            self.ignored += int(len(live) - live.sum())
            self._waiting[kind].append(held_of(kind, chosen(mine, live), partition))
            if self._count(kind) > self.max_each:
                self._make_room(kind)

    def raise_floors(self, floors_ms: Mapping[SourceKind, int]) -> bool:
        """What happened before is out of every window. Whether it has left memory as well: now and then it does."""
        is_tidied = False
        for kind, floor_ms in floors_ms.items():
            if floor_ms > self.floors_ms[kind]:
                is_due = floor_ms // TIDY_MS > self.floors_ms[kind] // TIDY_MS
                self.floors_ms[kind] = floor_ms
                if is_due:
                    self._forget(kind)
                    is_tidied = True
        return is_tidied

    def _make_room(self, kind: SourceKind) -> None:
        """Forgets what comes twice, what has left every window, and then what is oldest."""
        whole = np.concatenate(self._waiting[kind])
        self._waiting[kind] = [once_each(self.held[kind].key_of(whole), whole)[1]]
        self._forget(kind)
        excess = self._count(kind) - self.max_each
        if excess > 0:
            parts = [*self._waiting[kind], *(run.records for run in self.held[kind].runs)]
            at_ms = np.concatenate([part["at_ms"] for part in parts])
            place = min(len(at_ms) - 1, excess + self.max_each // ROOM)
            self.floors_ms[kind] = int(np.partition(at_ms, place)[place]) + 1
            before = self._count(kind)
            self._forget(kind)
            self.forgotten += before - self._count(kind)

    def _forget(self, kind: SourceKind) -> None:
        floor_ms = self.floors_ms[kind]
        self.held[kind].forget(floor_ms)
        self._waiting[kind] = [chosen(part, part["at_ms"] >= floor_ms) for part in self._waiting[kind]]

    def complete(self, watermark_ms: int) -> Iterator[tuple[SourceKind, Keys, Clicks]]:
        """Entries that no longer wait and are not held yet, by kind, sorted by key. To be added when weighed."""
        for kind in KINDS:
            parts = self._waiting[kind]
            if not parts:
                continue
            whole = np.concatenate(parts) if len(parts) > 1 else parts[0]
            ready: Mask = whole["at_ms"] <= watermark_ms
            self._waiting[kind] = [chosen(whole, ~ready)] if not ready.all() else []
            entries = chosen(whole, ready & (whole["at_ms"] >= self.floors_ms[kind]))
            if len(entries):
                held = self.held[kind]
                keys, entries = once_each(held.key_of(entries), entries)
                new = ~held.knows(keys, entries, SAME)
                if new.any():
                    yield kind, keys[new], chosen(entries, new)

    def add(self, kind: SourceKind, keys: Keys, entries: Clicks) -> None:
        """Entries that were weighed are held."""
        self.held[kind].add(keys, entries, self.floors_ms[kind])

    def head(self) -> dict[str, Any]:
        """Plain values: everything besides the runs."""
        return {
            "forgotten": self.forgotten,
            "ignored": self.ignored,
            "floors_ms": {kind.value: floor_ms for kind, floor_ms in self.floors_ms.items()},
            "waiting": {kind.value: [part.tobytes() for part in parts] for kind, parts in self._waiting.items()},
        }

    def restore_head(self, head: dict[str, Any]) -> None:
        """Takes back what `head` gave."""
        self.forgotten, self.ignored = head["forgotten"], head["ignored"]
        self.floors_ms = {kind: head["floors_ms"][kind.value] for kind in KINDS}
        self._waiting = {
            kind: [np.frombuffer(part, dtype=dtype_of(kind)) for part in head["waiting"][kind.value]] for kind in KINDS
        }
