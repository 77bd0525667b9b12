"""Which event ids have been seen, and when: exact, 128 bits an id, 22 bytes of memory once packed.

Fresh ids live in a dict; packed ones in **runs**, immutable arrays sorted by the id, merged as they grow, so that a
checkpoint writes only new runs. Ids are remembered by event-time **bucket**: one is known as long as its bucket has
not fallen behind the newest event time by the horizon, nor behind the floor. Both are judged at each event, in offset
order, so the answer does not depend on how records were batched or when runs were packed.

Where others ask when an id happened (a click of its impression), dead ids are **kept** until a tick lets them go: what
one tick reads may span more time than the horizon. Kept ids are no duplicates' business.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
import xxhash

from streams.errors import CorruptCheckpoint
from streams.rules import MINUTE_MS, Horizon

PACK_AT: Final = 200_000
"""Fresh ids are packed beyond this many."""
MAX_RUN_IDS: Final = 4_000_000
"""Runs are not merged beyond this size, so that no merge takes long."""
MAX_KEPT: Final = 1_000_000
"""Dead ids that a tick leaves for who asks for them: 22 MB. Beyond it the oldest go; what refers to them is
unverifiable. Between two ticks there are also those that died since the last one: no more than were read."""
BUCKETS: Final = 24
"""Buckets that a horizon is divided into (a bucket is at least a minute)."""

COUNTED, DUPLICATE, LATE = range(3)
OFFSET_BITS: Final = 16
"""Of the time within a bucket: to the millisecond in buckets of a minute, to 55 ms in buckets of an hour."""
TOKEN_BITS: Final = 42
"""A token is a number of its own and, in the low bits, the bucket and the time in it: the first to set it is told from
the rest. Buckets of a minute fit until the year 2097."""
TIME_MASK: Final = (1 << TOKEN_BITS) - 1
OFFSET_MASK: Final = (1 << OFFSET_BITS) - 1
RECORD_BYTES: Final = 22

_IDS = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Outcomes = npt.NDArray[np.int8]


class Run(msgspec.Struct, frozen=True):
    """Packed ids, sorted by `high`. Never changed, so its name stands for its content."""

    name: int
    high: _IDS
    low: _IDS
    bucket: npt.NDArray[np.uint32]
    offset: npt.NDArray[np.uint16]
    last_bucket: int

    def encode(self) -> bytes:
        """Little-endian arrays, one behind the other: 22 bytes an id."""
        return b"".join((self.high.tobytes(), self.low.tobytes(), self.bucket.tobytes(), self.offset.tobytes()))


def digest_all(ids: Sequence[str]) -> list[bytes]:
    """XXH3, 128 bits, of each id. Not keyed: ids come from the platform's own collectors."""
    return list(map(xxhash.xxh3_128_digest, map(str.encode, ids)))


class DedupeIndex:
    """The ids of one topic-partition within its horizon."""

    def __init__(self, horizon: Horizon, keeps: bool = False) -> None:
        """`keeps`: dead ids are kept until `let_go`; without, they may go at once."""
        self.horizon = horizon
        self.keeps = keeps
        self.kept_ms = -1
        """What was live when the newest event time was this is kept."""
        self.dead: dict[int, int] = {}
        """Ids that are kept though they are dead, by bucket."""
        self.bucket_ms = max(MINUTE_MS, horizon.dedupe_ms // BUCKETS)
        self.fresh: dict[bytes, int] = {}
        self.counts: dict[int, int] = {}
        self.floor = 0
        self.runs: list[Run] = []
        self._next_name = 0
        self._next_token = 0

    def __len__(self) -> int:
        """Ids in live buckets."""
        return sum(self.counts.values())

    @property
    def floor_ms(self) -> int:
        """What happened before this is late: its ids may have been forgotten for want of room."""
        return self.floor * self.bucket_ms

    def is_live(self, bucket: int, newest_ms: int) -> bool:
        """Whether ids of this bucket are still remembered when the newest event time is `newest_ms`."""
        return bucket >= self.floor and (bucket + 1) * self.bucket_ms + self.horizon.dedupe_ms > newest_ms

    def _held(self, newest_ms: int) -> int:
        """The newest event time by which ids are dropped."""
        return min(self.kept_ms, newest_ms) if self.keeps else newest_ms

    @property
    def forgotten_ms(self) -> int:
        """What happened before this may be gone, for who asks when an id happened."""
        return max(self.kept_ms - self.horizon.dedupe_ms, self.floor_ms)

    def let_go(self, needed_ms: int, newest_ms: int) -> None:
        """At a tick: nobody asks any more for what was dead when the newest event time was `needed_ms`."""
        self._bury(newest_ms)
        self.kept_ms = max(self.kept_ms, needed_ms)
        beyond = sum(self.dead.values()) - MAX_KEPT
        for bucket in sorted(self.dead):
            end_ms = (bucket + 1) * self.bucket_ms + self.horizon.dedupe_ms
            if end_ms <= self.kept_ms or beyond > 0:
                beyond -= self.dead.pop(bucket)
                self.kept_ms = max(self.kept_ms, end_ms)

    def _bury(self, newest_ms: int) -> None:
        for bucket in [b for b in self.counts if not self.is_live(b, newest_ms)]:
            count = self.counts.pop(bucket)
            if self.keeps and self.is_live(bucket, self._held(newest_ms)):
                self.dead[bucket] = count

    def admit(self, ids: Sequence[str], at_ms: Ints, newest_ms: Ints) -> Outcomes:
        """Judges a batch in offset order and remembers the ids that count.

        `newest_ms` is the newest event time at each event, itself included. Returns COUNTED, DUPLICATE or LATE each.
        """
        buckets = at_ms // self.bucket_ms
        is_opening = any(bucket not in self.counts for bucket in np.unique(buckets).tolist())
        digests = digest_all(ids)
        if not is_opening or len(self) + len(ids) < self.horizon.max_ids:
            return self._admit(digests, at_ms, newest_ms, buckets)
        singly = range(len(ids))  # room is short and a bucket opens: what is forgotten depends on each event
        parts = [(digests[i : i + 1], at_ms[i : i + 1], newest_ms[i : i + 1], buckets[i : i + 1]) for i in singly]
        return np.concatenate([self._admit(*part) for part in parts])

    def _admit(self, digests: list[bytes], at_ms: Ints, newest_ms: Ints, buckets: Ints) -> Outcomes:
        late = at_ms < np.maximum(newest_ms - self.horizon.lateness_ms, self.floor_ms)
        outcomes = np.where(late, LATE, COUNTED).astype(np.int8)
        timely = list(range(len(digests)))
        if late.any():
            timely = np.flatnonzero(~late).tolist()
            digests, buckets, at_ms = [digests[i] for i in timely], buckets[timely], at_ms[timely]
        numbers = np.arange(self._next_token, self._next_token + len(digests), dtype=np.int64)
        self._next_token += len(digests)
        offsets = ((at_ms - buckets * self.bucket_ms) << OFFSET_BITS) // self.bucket_ms
        tokens = (numbers << TOKEN_BITS) + (buckets << OFFSET_BITS) + offsets
        known = np.fromiter(map(self.fresh.setdefault, digests, tokens.tolist()), dtype=np.int64, count=len(digests))
        found = self.find_packed(digests)
        seen = known != tokens
        if found:
            seen |= np.fromiter((digest in found for digest in digests), dtype=bool, count=len(digests))
        for i in np.flatnonzero(seen).tolist():
            place = timely[i]
            if self._is_duplicate(digests[i], int(tokens[i]), found, int(newest_ms[place])):
                outcomes[place] = DUPLICATE
        counted = buckets[outcomes[timely] == COUNTED] if len(digests) else buckets
        for bucket, count in zip(*(column.tolist() for column in np.unique(counted, return_counts=True)), strict=True):
            if bucket not in self.counts:
                self.open_bucket(bucket, int(newest_ms[-1]))
            self.counts[bucket] += count
        return outcomes

    def _is_duplicate(self, digest: bytes, token: int, found: dict[bytes, int], newest_ms: int) -> bool:
        """An id that was seen before: is that still remembered? If not, it counts again."""
        held = self.fresh.get(digest)
        bucket = (held & TIME_MASK) >> OFFSET_BITS if held is not None and held != token else -1
        bucket = max(bucket, found.get(digest, -1) >> OFFSET_BITS)
        if bucket >= 0 and self.is_live(bucket, newest_ms):
            if held == token:
                del self.fresh[digest]
            return True
        self.fresh[digest] = token
        return False

    def change_horizon(self, horizon: Horizon, newest_ms: int) -> None:
        """A longer memory cannot bring back what was forgotten: what is older than that is late."""
        forgotten = (newest_ms - self.horizon.dedupe_ms) // self.bucket_ms
        if horizon.dedupe_ms > self.horizon.dedupe_ms and newest_ms >= 0:
            self.floor = max(self.floor, forgotten)
        self.horizon = horizon

    def find_packed(self, digests: Sequence[bytes]) -> dict[bytes, int]:
        """Those of the digests that stand in runs, with their newest place in time (live or not): bucket, offset."""
        if not self.runs or not digests:
            return {}
        pairs = np.frombuffer(b"".join(digests), dtype=np.uint64).reshape(-1, 2)
        order = np.argsort(pairs[:, 0])
        needles = pairs[order, 0]
        found: dict[bytes, int] = {}
        for run in self.runs:
            places = np.searchsorted(run.high, needles)
            places[places == len(run.high)] = 0
            for at in np.nonzero(run.high[places] == needles)[0]:
                self._confirm(run, int(places[at]), digests[order[at]], found)
        return found

    @staticmethod
    def _confirm(run: Run, place: int, digest: bytes, found: dict[bytes, int]) -> None:
        """Ids may share their high half: walk all that do."""
        high, low = np.frombuffer(digest, dtype=np.uint64)
        while place < len(run.high) and run.high[place] == high:
            if run.low[place] == low:
                time = (int(run.bucket[place]) << OFFSET_BITS) + int(run.offset[place])
                found[digest] = max(found.get(digest, -1), time)
            place += 1

    def times(self, digests: Sequence[bytes]) -> dict[bytes, int]:
        """When those of the digests happened that are kept, epoch ms (as exact as OFFSET_BITS are)."""
        times = self.find_packed(digests)
        for digest in digests:
            token = self.fresh.get(digest)
            if token is not None:
                times[digest] = max(times.get(digest, -1), token & TIME_MASK)
        live = {digest: (time >> OFFSET_BITS, time & OFFSET_MASK) for digest, time in times.items()}
        return {
            digest: bucket * self.bucket_ms + -(-offset * self.bucket_ms >> OFFSET_BITS)
            for digest, (bucket, offset) in live.items()
            if self.is_live(bucket, self.kept_ms)
        }

    def open_bucket(self, bucket: int, newest_ms: int) -> None:
        """The first id of a bucket: forget dead buckets, and the oldest ones while there is no room."""
        self._bury(newest_ms)
        while self.counts and len(self) >= self.horizon.max_ids:
            oldest = min(self.counts)
            del self.counts[oldest]
            self.floor = oldest + 1
        self.counts[bucket] = 0

    def pack(self, newest_ms: int) -> None:
        """Moves fresh ids into a run, and merges runs of like size. Changes no answer."""
        if self.fresh:
            pairs = np.frombuffer(b"".join(self.fresh), dtype=np.uint64).reshape(-1, 2)
            tokens = np.fromiter(self.fresh.values(), dtype=np.int64, count=len(self.fresh))
            buckets = ((tokens & TIME_MASK) >> OFFSET_BITS).astype(np.uint32)
            offsets = (tokens & OFFSET_MASK).astype(np.uint16)
            self.runs.append(self._run(pairs[:, 0], pairs[:, 1], buckets, offsets))
            self.fresh = {}
            self._next_token = 0
        held_ms = self._held(newest_ms)
        self.runs = [r for r in self.runs if self.is_live(r.last_bucket, held_ms)]
        while self._last_two_are_alike():
            newer, older = self.runs.pop(), self.runs.pop()
            high, low = np.concatenate((older.high, newer.high)), np.concatenate((older.low, newer.low))
            bucket, offset = np.concatenate((older.bucket, newer.bucket)), np.concatenate((older.offset, newer.offset))
            ends = (bucket.astype(np.int64) + 1) * self.bucket_ms + self.horizon.dedupe_ms
            live = (ends > held_ms) & (bucket >= self.floor)
            if live.any():
                self.runs.append(self._run(high[live], low[live], bucket[live], offset[live]))

    def _last_two_are_alike(self) -> bool:
        if len(self.runs) < 2:
            return False
        older, newer = len(self.runs[-2].high), len(self.runs[-1].high)
        return older <= 2 * newer and older + newer <= MAX_RUN_IDS

    def _run(self, high: _IDS, low: _IDS, bucket: npt.NDArray[np.uint32], offset: npt.NDArray[np.uint16]) -> Run:
        order = np.argsort(high, kind="stable")  # two sorted halves: merged in linear time
        self._next_name += 1
        return Run(self._next_name, high[order], low[order], bucket[order], offset[order], int(bucket.max()))

    def bytes_packed(self) -> int:
        """Memory of the runs, bytes."""
        return sum(r.high.nbytes + r.low.nbytes + r.bucket.nbytes + r.offset.nbytes for r in self.runs)

    def head(self) -> dict[str, object]:
        """What a checkpoint keeps besides the runs."""
        return {
            "floor": self.floor,
            "counts": self.counts,
            "kept_ms": self.kept_ms,
            "dead": self.dead,
            "next_name": self._next_name,
            "bucket_ms": self.bucket_ms,
        }

    def restore(
        self, floor: int, counts: dict[int, int], kept_ms: int, dead: dict[int, int], next_name: int, bucket_ms: int
    ) -> None:
        """Takes back what `head` gave."""
        self.floor, self.counts, self._next_name, self.bucket_ms = floor, counts, next_name, bucket_ms
        self.kept_ms, self.dead = kept_ms, dead

    def restore_run(self, name: int, data: bytes) -> None:
        """Takes back one run; call in the order in which they stood.

        Raises:
            CorruptCheckpoint: the length does not fit.
        """
        count, rest = divmod(len(data), RECORD_BYTES)
        if rest or not count:
            raise CorruptCheckpoint(f"a run of {len(data)} bytes is not whole")
        high = np.frombuffer(data, dtype=np.uint64, count=count)
        low = np.frombuffer(data, dtype=np.uint64, count=count, offset=8 * count)
        bucket = np.frombuffer(data, dtype=np.uint32, count=count, offset=16 * count)
        offset = np.frombuffer(data, dtype=np.uint16, count=count, offset=20 * count)
        self.runs.append(Run(name, high, low, bucket, offset, int(bucket.max())))
