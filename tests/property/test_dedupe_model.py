"""The de-duplication index equals a naive model, however it is batched, packed and restored."""

from random import Random
from unittest import mock

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.rules import MINUTE_MS, Horizon
from streams.state import dedupe
from streams.state.dedupe import COUNTED, DUPLICATE, LATE, DedupeIndex
from tests.property.histories import BOUNDED, seeds

LATENESS_MS, DEDUPE_MS = 3 * MINUTE_MS, 4 * MINUTE_MS
T0 = 1_700_000_000_000


def _scattered(seed: int) -> list[tuple[str, int]]:
    """Ids and times that drift on while they scatter, so that ids expire, come again, and come too late."""
    rng, step = Random(seed), Random(seed).choice([1_000, 9_000, 20_000])
    ids, back = rng.choice([8, 60]), rng.choice([MINUTE_MS, 5 * MINUTE_MS])
    return [(f"id{rng.randrange(ids)}", T0 + n * step + rng.randint(-back, 30_000)) for n in range(rng.randrange(200))]


events = seeds.map(_scattered)


class Naive:
    """One event after the other, in plain dictionaries."""

    def __init__(self, horizon: Horizon) -> None:
        self.horizon = horizon
        self.newest = -1
        self.floor = 0
        self.known: dict[str, int] = {}
        self.times: dict[str, int] = {}
        self.buckets: dict[int, int] = {}

    def _is_live(self, bucket: int) -> bool:
        return bucket >= self.floor and (bucket + 1) * MINUTE_MS + self.horizon.dedupe_ms > self.newest

    def judge(self, name: str, at: int) -> int:
        self.newest = max(self.newest, at)
        if at < max(self.newest - self.horizon.lateness_ms, self.floor * MINUTE_MS):
            return LATE
        if name in self.known and self._is_live(self.known[name]):
            return DUPLICATE
        bucket = at // MINUTE_MS
        if bucket not in self.buckets:
            self._open(bucket)
        self.buckets[bucket] += 1
        self.known[name] = bucket
        self.times[name] = at
        return COUNTED

    def _open(self, bucket: int) -> None:
        self.buckets = {b: n for b, n in self.buckets.items() if self._is_live(b)}
        while self.buckets and sum(self.buckets.values()) >= self.horizon.max_ids:
            oldest = min(self.buckets)
            del self.buckets[oldest]
            self.floor = oldest + 1
        self.buckets[bucket] = 0


def _reloaded(index: DedupeIndex) -> DedupeIndex:
    fresh = DedupeIndex(index.horizon, index.keeps)
    fresh.restore(**index.head())  # type: ignore[arg-type]
    for run in index.runs:
        fresh.restore_run(run.name, run.encode())
    return fresh


@given(events, seeds, st.sampled_from([2, 7, 30, 10**6]), st.sampled_from([3, 20, 10**6]), st.booleans())
@BOUNDED
def test_the_index_equals_a_naive_model(
    found: list[tuple[str, int]], seed: int, max_ids: int, max_run_ids: int, keeps: bool
) -> None:
    """Also where dead ids are kept for those who ask when they happened, and those who ask get an answer."""
    rng, horizon = Random(seed), Horizon(LATENESS_MS, DEDUPE_MS, max_ids)
    naive, index, newest = Naive(horizon), DedupeIndex(horizon, keeps), -1
    left = found
    with mock.patch.object(dedupe, "MAX_RUN_IDS", max_run_ids):
        while left:
            size = rng.choice([1, 2, 10, 200])
            part, left = left[:size], left[size:]
            at = np.array([at for _, at in part], dtype=np.int64)
            moved = np.maximum(np.maximum.accumulate(at), newest)
            newest = int(moved[-1])
            assert index.admit([name for name, _ in part], at, moved).tolist() == [naive.judge(*each) for each in part]
            assert index.floor == naive.floor
            if rng.random() < 0.4:
                index.pack(newest)
                index = _reloaded(index) if rng.random() < 0.5 else index
            if keeps:
                assert index.times(dedupe.digest_all(list(naive.times))) == _kept(naive, index)
                index.let_go(newest - rng.choice([0, DEDUPE_MS, 10 * DEDUPE_MS]) if rng.random() < 0.4 else -1, newest)


def _kept(naive: Naive, index: DedupeIndex) -> dict[bytes, int]:
    """Times of ids whose bucket was live when the newest event time was `kept_ms`."""
    first = max(naive.floor, (index.kept_ms - DEDUPE_MS) // MINUTE_MS)
    kept = {name: at for name, at in naive.times.items() if at // MINUTE_MS >= first}
    return dict(zip(dedupe.digest_all(list(kept)), kept.values(), strict=True))


@given(events, seeds)
@BOUNDED
def test_a_longer_horizon_counts_nothing_twice(found: list[tuple[str, int]], seed: int) -> None:
    """What a shorter memory has forgotten is late under a longer one, whenever it was packed."""
    rng, left = Random(seed), found
    index, newest, seen = DedupeIndex(Horizon(LATENESS_MS, DEDUPE_MS)), -1, set()
    longer = Horizon(20 * DEDUPE_MS, 20 * DEDUPE_MS)
    for number, (name, at) in enumerate(left):
        if number == len(left) // 2:
            index.change_horizon(longer, newest)
            seen = {known for known, bucket in seen if bucket >= index.floor}
        newest = max(newest, at)
        outcome = index.admit([name], np.array([at]), np.array([newest]))[0]
        if number < len(left) // 2:
            seen |= {(name, at // MINUTE_MS)} if outcome == COUNTED else set()
        elif outcome == COUNTED:
            assert name not in seen
            seen.add(name)
        if rng.random() < 0.2:
            index.pack(newest)
