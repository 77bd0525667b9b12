"""Records in immutable sorted runs: what a desk of sources remembers, exactly, in bounded memory.

A log-structured merge of a few arrays: new records become a run, runs of like size are merged (each record is copied
a logarithmic number of times), and a look-up asks every run by binary search. A run never changes, so its **name**
stands for its content, and a checkpoint writes only runs that it has not written yet.

Memory: `ENTRY` is 56 bytes and its key 8, so 64 bytes an entry, of a publisher 76; `TOLD` is 24 and 8.
"""

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from streams.errors import CorruptCheckpoint
from streams.verdicts import Clicks

MERGE_RATIO: Final = 3
"""A run is merged into the one before it as long as that is not this many times as large."""
MINOR_BITS: Final = np.uint64(32)
MINOR_MASK: Final = np.uint64((1 << 32) - 1)
NO_DELAY: Final = (1 << 32) - 1
IS_SHOWN: Final = NO_DELAY - 1

ENTRY: Final = np.dtype(
    [
        ("source", "<u8"),
        ("high", "<u8"),
        ("low", "<u8"),
        ("at_ms", "<i8"),
        ("campaign", "<u8"),
        ("user", "<u8"),  # of publishers' entries the group: nobody asks for their users
        ("delay_ms", "<u4"),  # NO_DELAY: a click; IS_SHOWN: an impression; else a conversion, in 49 days at most
        ("partition", "<u2"),  # the forwarder: the click's own
        ("click_type", "u1"),
        ("unused", "u1"),
    ]
)
"""What is kept of a `CLICK`. Its kind is the store's."""
PUBLISHER_ENTRY: Final = np.dtype([*ENTRY.descr, ("person", "<u4"), ("address", "<u4"), ("agent", "<u4")])
"""Of a publisher's also whom it came from, 32 bits of each hash: what publishers are compared by."""
TOLD: Final = np.dtype([("high", "<u8"), ("low", "<u8"), ("at_ms", "<i8")])
"""A click that a rule has flagged."""

Keys = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
KeyOf = Callable[[Clicks], Keys]


class Run(NamedTuple):
    """Records sorted by their keys."""

    name: int
    keys: Keys
    records: Clicks


def key_by_click(entries: Clicks) -> Keys:
    """Source first (its upper half), then the click: a source's entries stand together, and one is found at once."""
    return (entries["source"] & ~MINOR_MASK) | (entries["high"] >> MINOR_BITS)


def key_by_user(entries: Clicks) -> Keys:
    """Source first, then the user: the entries of one user at one address stand together."""
    return (entries["source"] & ~MINOR_MASK) | (entries["user"] >> MINOR_BITS)


def key_by_digest(told: Clicks) -> Keys:
    """The click's digest alone."""
    return np.ascontiguousarray(told["high"])


def firsts(keys: Keys) -> Keys:
    """Sorted keys, each once."""
    different = np.ones(len(keys), dtype=bool)
    different[1:] = keys[1:] != keys[:-1]
    return keys[different]


def majors(keys: Keys) -> Keys:
    """The sources' halves of sorted keys, each once, as lowest possible keys."""
    return firsts(keys & ~MINOR_MASK)


def spread(starts: Ints, counts: Ints) -> Ints:
    """All places of the ranges [start, start + count), one range behind the other."""
    total = int(counts.sum())
    if not total:
        return np.zeros(0, dtype=np.int64)
    before = np.cumsum(counts) - counts
    places: Ints = np.arange(total, dtype=np.int64) + np.repeat(starts - before, counts)
    return places


def chosen(records: Clicks, mask: Mask) -> Clicks:
    """`records[mask]`: taking whole records by their places is eight times as fast."""
    return records if mask.all() else records.take(np.flatnonzero(mask))


class Runs:
    """Records of one dtype, found by key."""

    def __init__(self, dtype: np.dtype[np.void], key_of: KeyOf) -> None:
        self.dtype = dtype
        self.key_of = key_of
        self.runs: list[Run] = []
        self.next_name = 1

    def __len__(self) -> int:
        """Records in memory."""
        return sum(len(run.keys) for run in self.runs)

    @property
    def nbytes(self) -> int:
        """Memory, bytes."""
        return len(self) * (self.dtype.itemsize + 8)

    def add(self, keys: Keys, records: Clicks, floor_ms: int) -> None:
        """New records, sorted by key. Merging forgets what happened before the floor."""
        if not len(keys):
            return
        self.runs.append(self._run(keys, records))
        while len(self.runs) > 1 and len(self.runs[-2].keys) <= MERGE_RATIO * len(self.runs[-1].keys):
            newer, older = self.runs.pop(), self.runs.pop()
            joined = np.concatenate((older.keys, newer.keys))
            order = np.argsort(joined, kind="stable")  # two sorted halves: merged in linear time
            records = np.concatenate((older.records, newer.records)).take(order)
            self._keep(joined[order], records, records["at_ms"] >= floor_ms)

    def forget(self, floor_ms: int) -> None:
        """What happened before the floor leaves memory."""
        runs, self.runs = self.runs, []
        for run in runs:
            live = run.records["at_ms"] >= floor_ms
            if live.all():
                self.runs.append(run)
            else:
                self._keep(run.keys, run.records, live)

    def _keep(self, keys: Keys, records: Clicks, live: Mask) -> None:
        if live.all():
            self.runs.append(self._run(keys, records))
        elif live.any():
            places = np.flatnonzero(live)
            self.runs.append(self._run(keys[places], records.take(places)))

    def _run(self, keys: Keys, records: Clicks) -> Run:
        name, self.next_name = self.next_name, self.next_name + 1
        return Run(name, keys, records)

    def count(self, lowest: Keys, highest: Keys) -> Ints:
        """Records with keys in each of the ranges, both ends included; those before the floor may be among them."""
        counts = np.zeros(len(lowest), dtype=np.int64)
        for run in self.runs:
            counts += np.searchsorted(run.keys, highest, "right") - np.searchsorted(run.keys, lowest, "left")
        return counts

    def gather(self, lowest: Keys, highest: Keys, floor_ms: int) -> Clicks:
        """Records with keys in the ranges, both ends included, that did not happen before the floor."""
        found = [np.zeros(0, dtype=self.dtype)]
        for run in self.runs:
            starts = np.searchsorted(run.keys, lowest, "left")
            places = spread(starts, np.searchsorted(run.keys, highest, "right") - starts)
            if len(places):
                found.append(run.records.take(places))
        gathered = np.concatenate(found)
        return chosen(gathered, gathered["at_ms"] >= floor_ms)

    def whole(self, floor_ms: int) -> Clicks:
        """Every record that did not happen before the floor."""
        records = np.concatenate([np.zeros(0, dtype=self.dtype), *(run.records for run in self.runs)])
        return chosen(records, records["at_ms"] >= floor_ms)

    def knows(self, keys: Keys, records: Clicks, fields: Iterable[str]) -> Mask:
        """Whether a record that is alike in these fields is held, for each of the records with these sorted keys."""
        known, names = np.zeros(len(keys), dtype=bool), tuple(fields)
        for run in self.runs:
            starts = np.searchsorted(run.keys, keys, "left")
            near = np.flatnonzero(run.keys[np.minimum(starts, len(run.keys) - 1)] == keys)
            if not len(near):
                continue
            counts = np.searchsorted(run.keys, keys[near], "right") - starts[near]
            mine, theirs = records.take(np.repeat(near, counts)), run.records.take(spread(starts[near], counts))
            alike = np.logical_and.reduce([mine[name] == theirs[name] for name in names])
            known[np.repeat(near, counts)[alike]] = True
        return known

    def named(self) -> list[tuple[int, bytes]]:
        """The runs in their order, for a checkpoint."""
        return [(run.name, run.records.tobytes()) for run in self.runs]

    def restore(self, runs: Iterable[tuple[int, bytes]], next_name: int) -> None:
        """Takes back what `named` gave.

        Raises:
            CorruptCheckpoint: a length does not fit.
        """
        self.runs, self.next_name = [], next_name
        for name, data in runs:
            if not data or len(data) % self.dtype.itemsize:
                raise CorruptCheckpoint(f"a run of {len(data)} bytes is not whole")
            records = np.frombuffer(data, dtype=self.dtype)
            self.runs.append(Run(name, self.key_of(records), records))
