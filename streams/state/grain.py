"""Totals of the current effect pane at one grain, and what has been added since they were last published.

Batches are appended as columns (**blocks**). A **fold**, at a tick, groups the blocks by effect pane, origin pane and
key, adds them to the **totals**, and yields every key that changed with its totals so far. Once the effect pane moves
on, its rows can never change again (the newest event time of a topic-partition never goes back), so its totals are
forgotten.

Keys are admitted per effect pane, in the order of their first record, up to a limit; the rest fold into `other`, first
by campaign, beyond twice the limit altogether. When folds happen does not change which keys are admitted.
"""

from collections.abc import Callable, Iterator
from operator import add
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from streams.records import OTHER
from streams.rules import LIMIT
from streams.state.keys import Names

Ints = npt.NDArray[np.int64]
Key = tuple[Any, ...]
"""(origin pane ms, campaign, ad unit, creative, variant, currency, validity, …)."""
CONSOLIDATE_AT: Final = 131_072
"""Waiting rows are grouped in place beyond this many, so that waiting costs keys, not events."""


class Block(NamedTuple):
    """Columns of equal length: panes in ms, the key's number, and the amounts (rows × width)."""

    effect: Ints
    origin: Ints
    key: Ints
    amounts: Ints


Changed = tuple[Key, list[int], list[int]]
"""A key after a fold: its totals, and what this fold added."""


class Grain:
    """One input's totals at one pane size. `names_of` tells what a key's number stands for."""

    def __init__(
        self,
        pane_ms: int,
        max_keys: int,
        width: int,
        names_of: Callable[[int], Names],
        others_of: Callable[[Ints], Ints] | None = None,
    ) -> None:
        self.pane_ms = pane_ms
        self.max_keys = max_keys
        self.width = width
        self.names_of = names_of
        self.others_of = others_of
        """The numbers of the keys that these fold into, for whole columns; without it they fold one by one."""
        self.effect_pane_ms = -1
        self.totals: dict[Key, list[int]] = {}
        self.folded_rows = 0
        self._blocks: list[Block] = []
        self._waiting = 0
        self._group_at = CONSOLIDATE_AT
        self._admitted: list[int] = []
        """Numbers of the keys in `totals` whose origin is the effect pane."""
        self._bound = 0
        """No total of this effect pane can be larger than this."""

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
        if self._bound > LIMIT:  # a sum might not fit: exact, slow, and clamped
            exact = np.add.reduceat(whole.amounts[order].astype(object), starts, axis=0)
            amounts = np.clip(exact, -LIMIT, LIMIT).astype(np.int64)
        else:
            amounts = np.add.reduceat(whole.amounts[order], starts, axis=0)
        by_appearance = np.argsort(first)
        first = first[by_appearance]
        return Block(whole.effect[first], whole.origin[first], whole.key[first], amounts[by_appearance])

    def fold(self) -> Iterator[tuple[int, list[Changed]]]:
        """Adds what waits to the totals; yields each effect pane in order, with every key changed in it.

        While a pane is handled, `totals` and `place` are that pane's.
        """
        if not self._blocks:
            return
        rows = self._grouped()
        self._blocks, self._waiting, self._group_at = [], 0, CONSOLIDATE_AT
        panes, starts = np.unique(rows.effect, return_index=True)  # ascending, and so in order
        ends = [*starts[1:].tolist(), len(rows.effect)]
        for pane, start, end in zip(panes.tolist(), starts.tolist(), ends, strict=True):
            if pane != self.effect_pane_ms:
                self.totals, self.effect_pane_ms, self._admitted = {}, pane, []
                self._bound = self._bound if pane != panes[-1] else _magnitude(rows.amounts[start:])
            part = slice(start, end)
            yield pane, self._add_to_totals(*self._folded(rows.origin[part], rows.key[part], rows.amounts[part]))

    def _folded(self, origins: Ints, keys: Ints, amounts: Ints) -> tuple[Ints, Ints, Ints]:
        """In a full pane, rows of keys that cannot be admitted any more, brought together under what they fold into."""
        placed = self.placed(origins, keys)
        if placed is keys:
            return origins, keys, amounts
        self.folded_rows += int((placed != keys).sum())
        order, starts, first = group(codes_of(np.zeros_like(placed), origins, placed))
        summed = np.add.reduceat(amounts[order], starts, axis=0)
        by_appearance = np.argsort(first)
        first = first[by_appearance]
        return origins[first], placed[first], summed[by_appearance]

    def placed(self, origins: Ints, keys: Ints) -> Ints:
        """The keys' numbers, those that a full pane does not admit replaced by what they fold into."""
        if self.others_of is None or len(self.totals) < self.max_keys or self._bound > LIMIT:
            return keys
        admitted = np.sort(np.array(self._admitted, dtype=np.int64))
        places = np.searchsorted(admitted, keys)
        places[places == len(admitted)] = 0
        known = admitted[places] == keys if len(admitted) else np.zeros(len(keys), dtype=bool)
        strange = (origins == self.effect_pane_ms) & ~known
        if not strange.any():
            return keys
        replaced = keys.copy()
        replaced[strange] = self.others_of(keys[strange])
        return replaced

    def _add_to_totals(self, origins: Ints, keys: Ints, amounts: Ints) -> list[Changed]:
        """One row a key in, one row a changed key out. Keys are admitted in the order of the rows."""
        names_of, totals, pane, admitted = self.names_of, self.totals, self.effect_pane_ms, self._admitted
        changed: list[Changed] = []
        others: dict[Key, list[int]] = {}
        is_full, new_others = len(totals) >= self.max_keys, 0
        for origin, number, delta in zip(origins.tolist(), keys.tolist(), amounts.tolist(), strict=True):
            key = (origin, *names_of(number))
            before = totals.get(key)
            if before is None:
                if is_full or len(totals) + len(others) >= self.max_keys:
                    key = self._other(key, others, len(totals) + new_others)
                    known = others.get(key)
                    others[key] = delta if known is None else list(map(add, known, delta))
                    self.folded_rows += 1
                    new_others += known is None and key not in totals
                    continue
                after = delta
                if origin == pane:
                    admitted.append(number)
            else:
                after = list(map(add, before, delta))
            totals[key] = after
            changed.append((key, after, delta))
        changed.extend(self._add_others(others))
        return [self._clamped(row) for row in changed] if self._bound > LIMIT else changed

    def _other(self, key: Key, others: dict[Key, list[int]], known: int) -> Key:
        """What a key folds into that is not admitted."""
        by_campaign = other_of(key)
        if known < 2 * self.max_keys or by_campaign in self.totals or by_campaign in others:
            return by_campaign
        return (by_campaign[0], OTHER, *by_campaign[2:])

    def _add_others(self, others: dict[Key, list[int]]) -> Iterator[Changed]:
        for key, delta in others.items():
            before = self.totals.get(key)
            after = self.totals[key] = delta if before is None else list(map(add, before, delta))
            yield key, after, delta

    def _clamped(self, row: Changed) -> Changed:
        key, totals, delta = row
        self.totals[key] = [max(-LIMIT, min(LIMIT, amount)) for amount in totals]
        return key, self.totals[key], delta

    def place(self, key: Key) -> Key:
        """The key under which the totals of the current effect pane have this one."""
        if key in self.totals:
            return key
        by_campaign = other_of(key)
        return by_campaign if by_campaign in self.totals else (by_campaign[0], OTHER, *by_campaign[2:])

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
            "effect": waiting.effect.tolist() if waiting else [],
            "origin": waiting.origin.tolist() if waiting else [],
            "names": [self.names_of(number) for number in waiting.key.tolist()] if waiting else [],
            "amounts": waiting.amounts.tobytes() if waiting else b"",
        }

    def totals_snapshot(self) -> list[tuple[Key, list[int]]]:
        """The totals as plain values: apart, for they change at folds only."""
        return list(self.totals.items())

    def restore_totals(self, totals: list[tuple[Any, list[int]]], number_of: Callable[[Names], int]) -> None:
        """Takes back what `totals_snapshot` gave; call after `restore`."""
        self.totals = {tuple(key): amounts for key, amounts in totals}
        self._admitted = [number_of(key[1:]) for key in self.totals if key[0] == self.effect_pane_ms]

    def restore(self, snapshot: dict[str, Any], number_of: Callable[[Names], int]) -> None:
        """Takes back what `snapshot` gave; `number_of` gives the names their numbers in this process."""
        self.pane_ms, self.effect_pane_ms = snapshot["pane_ms"], snapshot["effect_pane_ms"]
        self.folded_rows = snapshot["folded_rows"]
        self._blocks, self._waiting = [], 0
        self._bound = snapshot["bound"]
        if snapshot["names"]:
            numbers = [number_of(tuple(names)) for names in snapshot["names"]]
            amounts = np.frombuffer(snapshot["amounts"], dtype=np.int64).reshape(-1, self.width)
            effect, origin, key = (
                np.array(column, dtype=np.int64) for column in (snapshot["effect"], snapshot["origin"], numbers)
            )
            self.add(Block(effect, origin, key, amounts))


def _magnitude(amounts: Ints) -> int:
    return int(np.abs(amounts).max(initial=0)) * len(amounts)


def other_of(key: Key) -> Key:
    """What a key folds into: its campaign's `other`. Currencies are never summed, nor are validities."""
    origin, campaign, _, _, _, currency, validity, *rest = key
    return (origin, campaign, OTHER, OTHER, OTHER, currency, validity, *(OTHER if type(p) is str else p for p in rest))


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
