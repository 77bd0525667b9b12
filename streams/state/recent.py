"""Counted events that a later word may still reach: what each added, so that just that can be taken back.

Clicks and conversions are remembered whole, impressions and plays only where they were flagged. Fresh events live in a
dict; packed ones in **runs**, immutable, so that a checkpoint writes only new ones. Memory: 40 bytes an event and its
id, as long as what it added (key, amounts) repeats. Beyond `max_events` the oldest are forgotten: a word about one of
them comes too late, and is counted.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import xxhash

from streams.errors import CorruptCheckpoint
from streams.rules import MINUTE_MS
from streams.state.keys import KeyTable, Names

PACK_AT: Final = 50_000
MAX_RUN_EVENTS: Final = 1_000_000
"""Runs are not merged beyond this size, so that no merge takes long."""
MAX_ID_BYTES: Final = 64
"""A longer event id is not kept: its event is told by the digest alone."""

_PACK: Final = msgspec.msgpack.Encoder()
_COLUMNS: Final = {"high": "u8", "low": "u8", "at": "i8", "key": "i4", "sums": "i4", "bits": "u4", "excluding": "u4"}


class Remembered(NamedTuple):
    """One counted event."""

    digest: bytes
    event_id: str
    at_ms: int
    bits: int
    """Flags that it was counted with."""
    excluding: int
    """Those of them that excluded it then."""
    names: Names
    """Campaign, ad unit, creative, variant, currency."""
    dimensions: Names
    """All of them, in the tables' order."""
    amounts: tuple[int, ...]
    """What it added, in the order of its input's measures, the common ones first."""
    cohort: tuple[int, ...]
    """Click hour ms, age bucket ms and value micros of a conversion that counts towards CVR; else empty."""


class Counted(NamedTuple):
    """Columns of a batch's events that are to be remembered."""

    ids: Sequence[str]
    at_ms: npt.NDArray[np.int64]
    bits: npt.NDArray[np.int64]
    excluding: npt.NDArray[np.int64]
    names: Sequence[Names]
    """Campaign, ad unit, creative, variant, currency."""
    dimensions: Sequence[Names]
    amounts: npt.NDArray[np.int64]
    cohorts: Sequence[tuple[int, ...]]


class Run(msgspec.Struct, frozen=True):
    """Packed events, sorted by `high`. Never changed, so its name stands for its content."""

    name: int
    columns: dict[str, npt.NDArray[Any]]
    ids: npt.NDArray[np.bytes_]
    keys: list[tuple[Names, Names]]
    sums: list[tuple[tuple[int, ...], tuple[int, ...]]]

    def __len__(self) -> int:
        return len(self.ids)

    def encode(self) -> bytes:
        """MessagePack: little-endian columns, and the tables that they refer to."""
        columns = [self.columns[name].tobytes() for name in _COLUMNS]
        return _PACK.encode([columns, self.ids.tobytes(), self.ids.itemsize, self.keys, self.sums])

    @classmethod
    def decode(cls, name: int, data: bytes) -> "Run":
        """Takes back what `encode` gave.

        Raises:
            CorruptCheckpoint: it is not whole.
        """
        try:
            columns, ids, width, keys, sums = msgspec.msgpack.decode(data)
            arrays = {n: np.frombuffer(c, dtype=_COLUMNS[n]) for n, c in zip(_COLUMNS, columns, strict=True)}
            whole = np.frombuffer(ids, dtype=f"S{width}")
        except (msgspec.MsgspecError, ValueError, TypeError) as error:
            raise CorruptCheckpoint(f"a run of events cannot be read: {error}") from None
        if {len(column) for column in arrays.values()} != {len(whole)} or not len(whole):
            raise CorruptCheckpoint("a run of events is not whole")
        tables = [[(tuple(left), tuple(right)) for left, right in table] for table in (keys, sums)]
        return cls(name, arrays, whole, *tables)

    def find(self, digests: Sequence[bytes], pairs: npt.NDArray[np.uint64], floor_ms: int) -> Iterator[Remembered]:
        """The events with these digests that have not been forgotten."""
        high = self.columns["high"]
        places = np.searchsorted(high, pairs[:, 0])
        places[places == len(high)] = 0
        for at in np.flatnonzero(high[places] == pairs[:, 0]).tolist():
            place = int(places[at])
            while place < len(high) and high[place] == pairs[at, 0]:
                if self.columns["low"][place] == pairs[at, 1] and self.columns["at"][place] >= floor_ms:
                    yield self._at(place, digests[at])
                place += 1

    def _at(self, place: int, digest: bytes) -> Remembered:
        names, dimensions = self.keys[self.columns["key"][place]]
        amounts, cohort = self.sums[self.columns["sums"][place]]
        at_ms, bits, excluding = (int(self.columns[name][place]) for name in ("at", "bits", "excluding"))
        shown = bytes(self.ids[place]).decode(errors="replace")
        return Remembered(digest, shown, at_ms, bits, excluding, names, dimensions, amounts, cohort)


class Recent:
    """The remembered events of one input in one partition."""

    def __init__(self, max_events: int, horizon_ms: int) -> None:
        self.max_events = max_events
        self.horizon_ms = horizon_ms
        self.floor_ms = 0
        """What happened before this is forgotten."""
        self.runs: list[Run] = []
        self.fresh: dict[bytes, int] = {}
        self._columns: dict[str, list[int]] = {name: [] for name in ("at", "key", "sums", "bits", "excluding")}
        self._ids: list[bytes] = []
        self._digests: list[bytes] = []
        self._keys, self._sums = KeyTable(), KeyTable()
        self._next_name = 0

    def __len__(self) -> int:
        """Events held, with those that are forgotten but not yet dropped; of an id that counted twice, both."""
        return len(self._ids) + sum(map(len, self.runs))

    def bytes_held(self) -> int:
        """Memory of the packed columns, bytes."""
        return sum(run.ids.nbytes + sum(column.nbytes for column in run.columns.values()) for run in self.runs)

    def add(self, counted: Counted) -> None:
        """Remembers a batch, in offset order. An id that counted once before is remembered as it counted last."""
        begin = len(self._ids)
        encoded = list(map(str.encode, counted.ids))
        self._digests.extend(map(xxhash.xxh3_128_digest, encoded))
        self.fresh.update(zip(self._digests[begin:], range(begin, begin + len(encoded)), strict=True))
        self._ids.extend([each if _is_kept(each) else b"" for each in encoded])
        self._columns["at"].extend(counted.at_ms.tolist())
        self._columns["bits"].extend(counted.bits.tolist())
        self._columns["excluding"].extend(counted.excluding.tolist())
        keys = zip(counted.names, counted.dimensions, strict=True)
        self._columns["key"].extend(map(self._keys.__getitem__, keys))
        sums = zip(map(tuple, counted.amounts.tolist()), counted.cohorts, strict=True)
        self._columns["sums"].extend(map(self._sums.__getitem__, sums))
        if len(self.fresh) > PACK_AT:
            self.pack()

    def find(self, digests: Iterable[bytes]) -> dict[bytes, Remembered]:
        """The remembered events with these digests."""
        found: dict[bytes, Remembered] = {}
        rest = []
        for digest in dict.fromkeys(digests):
            at = self.fresh.get(digest)
            if at is None:
                rest.append(digest)
            elif self._columns["at"][at] >= self.floor_ms:
                found[digest] = self._fresh_at(at, digest)
        if rest and self.runs:
            pairs = np.frombuffer(b"".join(rest), dtype=np.uint64).reshape(-1, 2)
            for run in self.runs:  # of an id that counted again, the latest
                found.update({each.digest: each for each in run.find(rest, pairs, self.floor_ms)})
        return found

    def _fresh_at(self, at: int, digest: bytes) -> Remembered:
        columns = self._columns
        names, dimensions = self._keys.names[columns["key"][at]]
        amounts, cohort = self._sums.names[columns["sums"][at]]
        shown = self._ids[at].decode(errors="replace")
        at_ms, bits, excluding = (columns[name][at] for name in ("at", "bits", "excluding"))
        return Remembered(digest, shown, at_ms, bits, excluding, names, dimensions, amounts, cohort)

    def forget(self, newest_ms: int) -> None:
        """At a tick: what is older than the horizon goes, and the oldest while there is no room."""
        self.floor_ms = max(self.floor_ms, newest_ms - self.horizon_ms)
        if len(self) <= self.max_events:
            return
        self.pack()
        at = np.concatenate([run.columns["at"] for run in self.runs]) if self.runs else np.zeros(0, dtype=np.int64)
        at = at[at >= self.floor_ms]
        if len(at) > self.max_events:
            kept = self.max_events - self.max_events // 10
            oldest = int(np.partition(at, len(at) - kept)[len(at) - kept])
            self.floor_ms = oldest - oldest % MINUTE_MS + MINUTE_MS
        self._drop()

    def _drop(self) -> None:
        kept = []
        for run in self.runs:
            live = run.columns["at"] >= self.floor_ms
            if live.all():
                kept.append(run)
            elif live.any():
                self._next_name += 1
                columns = {name: column[live] for name, column in run.columns.items()}
                kept.append(Run(self._next_name, columns, run.ids[live], run.keys, run.sums))
        self.runs = kept

    def pack(self) -> None:
        """Moves fresh events into a run, drops dead runs, and merges runs of like size. Changes no answer."""
        if self.fresh:
            pairs = np.frombuffer(b"".join(self._digests), dtype=np.uint64).reshape(-1, 2)
            columns: dict[str, npt.NDArray[Any]] = {"high": pairs[:, 0], "low": pairs[:, 1]}
            for name, column in self._columns.items():
                columns[name] = np.array(column, dtype=_COLUMNS[name])
                column.clear()
            ids = np.array(self._ids, dtype=np.bytes_)
            self.runs.append(self._run(columns, ids, list(self._keys.names), list(self._sums.names)))
            self.fresh, self._ids, self._digests = {}, [], []
            self._keys.clear()
            self._sums.clear()
        self.runs = [run for run in self.runs if int(run.columns["at"].max()) >= self.floor_ms]
        while len(self.runs) > 1 and self._last_two_are_alike():
            newer, older = self.runs.pop(), self.runs.pop()
            self.runs.append(self._merged(older, newer))

    def _last_two_are_alike(self) -> bool:
        older, newer = len(self.runs[-2]), len(self.runs[-1])
        return older <= 2 * newer and older + newer <= MAX_RUN_EVENTS

    def _merged(self, older: Run, newer: Run) -> Run:
        keys, key_places = _joined(older.keys, newer.keys)
        sums, sum_places = _joined(older.sums, newer.sums)
        columns = {name: np.concatenate((older.columns[name], newer.columns[name])) for name in _COLUMNS}
        columns["key"][len(older) :] = key_places[newer.columns["key"]]
        columns["sums"][len(older) :] = sum_places[newer.columns["sums"]]
        return self._run(columns, np.concatenate((older.ids, newer.ids)), keys, sums)

    def _run(self, columns: dict[str, Any], ids: Any, keys: list[Any], sums: list[Any]) -> Run:
        order = np.argsort(columns["high"], kind="stable")  # of equal ids the later stands behind
        self._next_name += 1
        return Run(self._next_name, {name: column[order] for name, column in columns.items()}, ids[order], keys, sums)

    def head(self) -> dict[str, Any]:
        """What a checkpoint keeps besides the runs. Call `pack` first."""
        return {"floor_ms": self.floor_ms, "next_name": self._next_name, "runs": [run.name for run in self.runs]}

    def restore(self, head: dict[str, Any], runs: dict[int, bytes]) -> None:
        """Takes back what `head` and the runs' `encode` gave."""
        self.floor_ms, self._next_name = head["floor_ms"], head["next_name"]
        self.runs = [Run.decode(name, runs[name]) for name in head["runs"]]


def _is_kept(event_id: bytes) -> bool:
    """Whether a packed column gives it back as it is: that would lose zero bytes at its end."""
    return len(event_id) <= MAX_ID_BYTES and not event_id.endswith(b"\0")


def _joined(older: list[Any], newer: list[Any]) -> tuple[list[Any], npt.NDArray[np.int32]]:
    """One table of both, and the places that the newer one's entries have in it."""
    places = {entry: at for at, entry in enumerate(older)}
    moved = [places.setdefault(entry, len(places)) for entry in newer]
    return list(places), np.array(moved, dtype=np.int32)
