"""Totals of the current effect pane at one grain, and what has been added since they were last published.

Batches are appended as columns (**blocks**). A **fold**, at a tick, groups the blocks by effect pane, origin pane and
key, adds them to the **totals**, and yields every key that changed with its totals so far, as columns again. Once the
effect pane moves on, its rows can never change again (the newest event time of a topic-partition never goes back), so
its totals are forgotten.

Keys are admitted per effect pane, in the order of their first record, up to a limit; the rest fold into `other`, first
by campaign, beyond twice the limit altogether. When folds happen does not change which keys are admitted.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np

from streams.records import OTHER
from streams.rules import LIMIT
from streams.state.keys import Ints, Numbering

CONSOLIDATE_AT: Final = 131_072
"""Waiting rows are grouped in place beyond this many, so that waiting costs keys, not events."""
Place = tuple[int, int]
"""Origin pane ms, and the key's number."""


class Block(NamedTuple):
    """Columns of equal length: panes in ms, the key's number, and the amounts (rows × width)."""

    effect: Ints
    origin: Ints
    key: Ints
    amounts: Ints


class Changed(NamedTuple):
    """The keys that a fold has changed in one effect pane, each once: columns of equal length."""

    origin: Ints
    key: Ints
    totals: Ints
    """So far, rows × width."""
    added: Ints
    """By this fold."""


class Grain:
    """One input's totals at one pane size. `keys` tells what a key's number stands for."""

    def __init__(self, pane_ms: int, max_keys: int, width: int, keys: Numbering) -> None:
        self.pane_ms = pane_ms
        self.max_keys = max_keys
        self.width = width
        self.keys = keys
        self.effect_pane_ms = -1
        self.folded_rows = 0
        self._index: dict[Place, int] = {}
        """Where in the totals each key of the effect pane stands."""
        self._totals: Ints = np.zeros((0, width), dtype=np.int64)
        """As many rows as `_index` has entries, and room for more."""
        self._blocks: list[Block] = []
        self._waiting = 0
        self._group_at = CONSOLIDATE_AT
        self._bound = 0
        """No total of this effect pane can be larger than this."""

    def __len__(self) -> int:
        """Keys of the effect pane."""
        return len(self._index)

    def add(self, block: Block) -> None:
        """Appends a batch's columns, in offset order; effect panes never go back."""
        if len(block.key) == 0:
            return
        self._blocks.append(block)
        self._waiting += len(block.key)
        self._bound += int(np.abs(block.amounts).max()) * len(block.key)
        if self._waiting > self._group_at:
            self._blocks = [self._grouped()]
            self._waiting = len(self._blocks[0].key)
            self._group_at = max(CONSOLIDATE_AT, 2 * self._waiting)

    def _grouped(self) -> Block:
        """The waiting rows with one row a key and pane, in the order of their first appearance."""
        whole = Block(*(np.concatenate(column) for column in zip(*self._blocks, strict=True)))
        order, starts, first = group(codes_of(whole.effect, whole.origin, whole.key))
        amounts = self._summed(whole.amounts[order], starts)
        by_appearance = np.argsort(first)
        first = first[by_appearance]
        return Block(whole.effect[first], whole.origin[first], whole.key[first], amounts[by_appearance])

    def _summed(self, amounts: Ints, starts: Ints) -> Ints:
        """Sums of groups of rows that stand together. Where one might not fit: exact, slow, and clamped."""
        if self._bound <= LIMIT:
            return np.add.reduceat(amounts, starts, axis=0)
        return _clamped(np.add.reduceat(amounts.astype(object), starts, axis=0))

    def fold(self) -> Iterator[tuple[int, Changed]]:
        """Adds what waits to the totals; yields each effect pane in order, with every key changed in it.

        While a pane is handled, the totals and what `placed` tells are that pane's.
        """
        if not self._blocks:
            return
        rows = self._grouped()
        self._blocks, self._waiting, self._group_at = [], 0, CONSOLIDATE_AT
        panes, starts = np.unique(rows.effect, return_index=True)  # ascending, and so in order
        ends = [*starts[1:].tolist(), len(rows.effect)]
        for pane, start, end in zip(panes.tolist(), starts.tolist(), ends, strict=True):
            if pane != self.effect_pane_ms:
                self._index, self.effect_pane_ms = {}, pane
                self._bound = self._bound if pane != panes[-1] else _magnitude(rows.amounts[start:])
            part = slice(start, end)
            yield pane, self._add_to_totals(rows.origin[part], rows.key[part], rows.amounts[part])

    def _add_to_totals(self, origins: Ints, keys: Ints, amounts: Ints) -> Changed:
        """One row a key in, one row a changed key out. Keys are admitted in the order of the rows."""
        known = len(self._index)
        rows = self._admitted(origins, keys)
        refused = np.flatnonzero(rows < 0)
        if len(refused):
            keys = keys.copy()
            keys[refused], rows[refused] = self._folded(origins[refused], keys[refused])
            self.folded_rows += len(refused)
            origins, keys, rows, amounts = self._joined(origins, keys, rows, amounts)
        self._make_room(known)
        before = self._totals[rows]
        totals = before + amounts if self._bound <= LIMIT else _clamped(before.astype(object) + amounts)
        self._totals[rows] = totals
        return Changed(origins, keys, totals, amounts)

    def _admitted(self, origins: Ints, keys: Ints) -> Ints:
        """The row of each key in the totals, which it gets now where there is room; otherwise -1."""
        index = self._index
        places = list(zip(origins.tolist(), keys.tolist(), strict=True))
        found = list(map(index.get, places))
        if None in found:
            room = max(0, self.max_keys - len(index))
            new = [place for place, row in zip(places, found, strict=True) if row is None][:room]
            index.update(zip(new, range(len(index), len(index) + len(new)), strict=True))
            found = [index.get(place, -1) for place in places]
        return np.array(found, dtype=np.int64)

    def _folded(self, origins: Ints, keys: Ints) -> tuple[Ints, Ints]:
        """What keys fold into that are not admitted: numbers, and rows in the totals."""
        others = self.keys.others_of(keys)
        codes = codes_of(np.zeros_like(others), origins, others)
        _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
        numbers, rows = np.empty_like(first), np.empty_like(first)
        for each in np.argsort(first).tolist():  # in the order of their first appearance
            place = (int(origins[first[each]]), int(others[first[each]]))
            if place not in self._index and len(self._index) >= 2 * self.max_keys:
                place = self._all_others(place)
            numbers[each], rows[each] = place[1], self._index.setdefault(place, len(self._index))
        return numbers[inverse], rows[inverse]

    def _all_others(self, other: Place) -> Place:
        """The `other` of all campaigns."""
        return other[0], self.keys.number_of((OTHER, *self.keys.names_of(other[1])[1:]))

    def _joined(self, origins: Ints, keys: Ints, rows: Ints, amounts: Ints) -> tuple[Ints, Ints, Ints, Ints]:
        """Rows of the same key brought together, in the order of their first appearance."""
        order, starts, first = group(rows)
        by_appearance = np.argsort(first)
        summed = self._summed(amounts[order], starts)[by_appearance]
        first = first[by_appearance]
        return origins[first], keys[first], rows[first], summed

    def _make_room(self, known: int) -> None:
        """Zeros for the keys that are new, of which the first has the row `known`."""
        needed = len(self._index)
        if needed > len(self._totals):
            grown = np.zeros((max(64, 2 * needed), self.width), dtype=np.int64)
            grown[:known] = self._totals[:known]
            self._totals = grown
        else:
            self._totals[known:needed] = 0

    def placed(self, origins: Ints, keys: Ints) -> Ints:
        """The numbers under which the totals have these keys of the effect pane, all of which have been folded."""
        if len(self._index) < self.max_keys:
            return keys
        codes = codes_of(np.zeros_like(keys), origins, keys)
        _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
        origins, found = origins[first], keys[first]
        places = zip(origins.tolist(), found.tolist(), strict=True)
        refused = np.array([place not in self._index for place in places], dtype=bool)
        if not refused.any():
            return keys
        known = len(self._index)
        found[refused], _ = self._folded(origins[refused], found[refused])
        assert len(self._index) == known, "a key is asked for that was not folded"
        return found[inverse]

    def has_closed_pane(self, newest_ms: int) -> bool:
        """Whether a row waits whose effect pane can get no more events."""
        return bool(self._blocks) and int(self._blocks[0].effect[0]) < newest_ms - newest_ms % self.pane_ms

    @property
    def is_clean(self) -> bool:
        """Whether nothing waits to be folded."""
        return not self._blocks

    def snapshot(self) -> dict[str, Any]:
        """The grain as plain values; keys by name, for numbers do not outlive the process."""
        if self._blocks:
            self._blocks = [self._grouped()]
            self._waiting = len(self._blocks[0].key)
        waiting = self._blocks[0] if self._blocks else None
        return {
            "pane_ms": self.pane_ms,
            "effect_pane_ms": self.effect_pane_ms,
            "folded_rows": self.folded_rows,
            "bound": min(self._bound, LIMIT + 1),
            "effect": waiting.effect.tobytes() if waiting else b"",
            "origin": waiting.origin.tobytes() if waiting else b"",
            "names": list(map(self.keys.names_of, waiting.key.tolist())) if waiting else [],
            "amounts": waiting.amounts.tobytes() if waiting else b"",
        }

    def totals_snapshot(self) -> dict[str, Any]:
        """The totals as plain values: apart, for they change at folds only."""
        return {
            "origin": [origin for origin, _ in self._index],
            "names": [self.keys.names_of(number) for _, number in self._index],
            "amounts": self._totals[: len(self._index)].tobytes(),
        }

    def restore_totals(self, totals: dict[str, Any]) -> None:
        """Takes back what `totals_snapshot` gave; call after `restore`."""
        numbers = [self.keys.number_of(tuple(names)) for names in totals["names"]]
        self._index = {place: row for row, place in enumerate(zip(totals["origin"], numbers, strict=True))}
        self._totals = _ints(totals["amounts"]).reshape(-1, self.width).copy()

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Takes back what `snapshot` gave."""
        self.pane_ms, self.effect_pane_ms = snapshot["pane_ms"], snapshot["effect_pane_ms"]
        self.folded_rows = snapshot["folded_rows"]
        self._blocks, self._waiting = [], 0
        self._bound = snapshot["bound"]
        if snapshot["names"]:
            numbers = np.array([self.keys.number_of(tuple(names)) for names in snapshot["names"]], dtype=np.int64)
            effect, origin = _ints(snapshot["effect"]), _ints(snapshot["origin"])
            self.add(Block(effect, origin, numbers, _ints(snapshot["amounts"]).reshape(-1, self.width)))


def _ints(data: bytes) -> Ints:
    return np.frombuffer(data, dtype=np.int64)


def _clamped(amounts: Any) -> Ints:
    return np.clip(amounts, -LIMIT, LIMIT).astype(np.int64)  # type: ignore[no-any-return]


def _magnitude(amounts: Ints) -> int:
    return int(np.abs(amounts).max(initial=0)) * len(amounts)


STEP_MS: Final = 1_000
"""All panes begin at multiples of this."""


def codes_of(effect: Ints, origin: Ints, key: Ints) -> Ints:
    """One number for each row, equal where all three are equal."""
    parts = [(column - column.min()) // STEP_MS for column in (effect, origin)]
    spans = [int(part.max()) + 1 for part in parts]
    if spans[0] * spans[1] * (int(key.max()) + 1) > LIMIT:  # far apart: number what there is
        parts = [np.unique(part, return_inverse=True)[1] for part in parts]
        key = np.unique(key, return_inverse=True)[1]
        spans = [int(part.max()) + 1 for part in parts]
    return (parts[0] * spans[1] + parts[1]) * (int(key.max()) + 1) + key  # type: ignore[no-any-return]


def group(codes: Ints) -> tuple[Ints, Ints, Ints]:
    """An order that brings equal codes together, where each group starts in it, and each group's first row."""
    order = np.argsort(codes)
    ordered = codes[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    return order, starts, np.minimum.reduceat(order, starts)
