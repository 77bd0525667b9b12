"""Reach: a mergeable sketch of the unique users of each report key.

KMV (k minimum values; Bar-Yossef et al. 2002): the k smallest 64-bit hashes of user ids, a sorted list that anyone can
merge in SQL. Exact below k users, relative standard error 1/sqrt(k-2) above.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from streams.state.grain import Grain, Place, codes_of
from streams.state.keys import Ints, Names, Numbering

Hashes = npt.NDArray[np.uint64]
CONSOLIDATE_AT: Final = 131_072
"""Waiting hashes are cut back to k a key beyond this many."""


class Users(NamedTuple):
    """Columns of equal length: panes in ms, the key's number, and the user's hash."""

    effect: Ints
    origin: Ints
    key: Ints
    hash: Hashes

    def pick(self, chosen: npt.NDArray[Any]) -> "Users":
        """The rows that an index or a mask chooses."""
        return Users(self.effect[chosen], self.origin[chosen], self.key[chosen], self.hash[chosen])


def _joined(blocks: list[Users]) -> Users:
    return Users(
        np.concatenate([block.effect for block in blocks]),
        np.concatenate([block.origin for block in blocks]),
        np.concatenate([block.key for block in blocks]),
        np.concatenate([block.hash for block in blocks]),
    )


class Reach:
    """The sketches of one input's report keys in the current effect pane."""

    def __init__(self, sample: int, keys: Numbering) -> None:
        self.sample = sample
        self.keys = keys
        self.totals: dict[Place, list[int]] = {}
        self._effect_pane_ms = -1
        self._blocks: list[Users] = []
        self._waiting = 0
        self._cut_at = CONSOLIDATE_AT

    def add(self, users: Users) -> None:
        """Appends a batch's users."""
        if len(users.key) == 0:
            return
        self._blocks.append(users)
        self._waiting += len(users.key)
        if self._waiting > self._cut_at:
            self._blocks = [self._cut()]
            self._waiting = len(self._blocks[0].key)
            self._cut_at = max(CONSOLIDATE_AT, 2 * self._waiting)

    def _cut(self) -> Users:
        """At most the k smallest different hashes of each key and pane."""
        whole = _joined(self._blocks)
        codes = codes_of(whole.effect, whole.origin, whole.key)
        order = np.lexsort((whole.hash, codes))
        codes, hashes = codes[order], whole.hash[order]
        starts = np.flatnonzero(np.concatenate(([True], codes[1:] != codes[:-1])))
        is_first = np.ones(len(order), dtype=bool)
        is_first[1:] = hashes[1:] != hashes[:-1]
        is_first[starts] = True
        group_of = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(order))))
        rank = np.cumsum(is_first) - 1
        rank -= rank[starts][group_of]
        kept = order[is_first & (rank < self.sample)]
        return whole.pick(kept)

    def fold(self, effect_pane_ms: int, report: Grain) -> None:
        """Adds what waits to the totals of this effect pane, and forgets others. Call once per pane, in order.

        `report` tells under which key it has a key.
        """
        if effect_pane_ms != self._effect_pane_ms:
            self.totals, self._effect_pane_ms = {}, effect_pane_ms
        if not self._blocks:
            return
        users = _joined(self._blocks)
        mine, rest = users.effect == effect_pane_ms, users.effect > effect_pane_ms
        if mine.any():
            placed = users.pick(mine)
            self._blocks = [placed._replace(key=report.placed(placed.origin, placed.key))]
            self._merge(self._cut())
        self._blocks = [users.pick(rest)] if rest.any() else []
        self._waiting = int(rest.sum())
        self._cut_at = max(CONSOLIDATE_AT, 2 * self._waiting)

    def _merge(self, users: Users) -> None:
        """Rows of one key stand together, their hashes ascending."""
        if len(users.key) == 0:
            return
        changes = (users.key[1:] != users.key[:-1]) | (users.origin[1:] != users.origin[:-1])
        starts = np.flatnonzero(np.concatenate(([True], changes)))
        ends = np.append(starts[1:], len(users.key)).tolist()
        places = zip(users.origin[starts].tolist(), users.key[starts].tolist(), strict=True)
        hashes = users.hash.tolist()
        for place, start, end in zip(places, starts.tolist(), ends, strict=True):
            self.join(place, hashes[start:end])

    def join(self, place: Place, hashes: list[int]) -> None:
        """Merges sorted hashes into a key's sketch."""
        before = self.totals.get(place)
        self.totals[place] = hashes if before is None else sorted({*before, *hashes})[: self.sample]

    def of(self, origins: Ints, keys: Ints) -> list[Sequence[int]] | None:
        """The sketches of these keys of the effect pane; None where all are empty."""
        if not self.totals:
            return None
        return [self.totals.get(place, ()) for place in zip(origins.tolist(), keys.tolist(), strict=True)]

    def snapshot(self) -> dict[str, Any]:
        """The sketches as plain values; keys by name."""
        if self._blocks:
            self._blocks = [self._cut()]
            self._waiting = len(self._blocks[0].key)
        waiting = self._blocks[0] if self._blocks else None
        numbers = np.unique(waiting.key).tolist() if waiting else []
        return {
            "effect_pane_ms": self._effect_pane_ms,
            "effect": waiting.effect.tobytes() if waiting else b"",
            "origin": waiting.origin.tobytes() if waiting else b"",
            "key": waiting.key.tobytes() if waiting else b"",
            "names": [(number, self.keys.names_of(number)) for number in numbers],
            "hash": waiting.hash.tobytes() if waiting else b"",
        }

    def totals_snapshot(self) -> list[tuple[int, Names, bytes]]:
        """The sketches as plain values, keys by name: apart, for they change at folds only."""
        return [
            (origin, self.keys.names_of(number), np.array(hashes, dtype=np.uint64).tobytes())
            for (origin, number), hashes in self.totals.items()
        ]

    def restore_totals(self, totals: list[tuple[int, Any, bytes]]) -> None:
        """Takes back what `totals_snapshot` gave."""
        self.totals = {
            (origin, self.keys.number_of(tuple(names))): np.frombuffer(data, np.uint64).tolist()
            for origin, names, data in totals
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Takes back what `snapshot` gave."""
        self._effect_pane_ms = snapshot["effect_pane_ms"]
        self._blocks, self._waiting = [], 0
        renumbered = {old: self.keys.number_of(tuple(names)) for old, names in snapshot["names"]}
        if renumbered:
            old = np.frombuffer(snapshot["key"], dtype=np.int64)
            known = np.array(sorted(renumbered), dtype=np.int64)
            new = np.array([renumbered[n] for n in known.tolist()], dtype=np.int64)
            effect, origin = (np.frombuffer(snapshot[name], dtype=np.int64) for name in ("effect", "origin"))
            self.add(
                Users(effect, origin, new[np.searchsorted(known, old)], np.frombuffer(snapshot["hash"], np.uint64))
            )
