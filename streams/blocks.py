"""Rows of the measured tables as columns: what a tick gives of one input, from the fold to the insertion.

A tick changes thousands of keys, and a row has some sixty columns, so building each row costs more than everything
else that is done for it. A block holds what its rows have in common once, and the rest as columns; to everyone who does
not look closer it is a sequence of rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self, overload

import numpy as np
import numpy.typing as npt

from streams.records import MEASURES, Row, Table

Ints = npt.NDArray[np.int64]
Names = tuple[Any, ...]
MEASURED: Final = frozenset((Table.PANES, Table.REPORTS))
"""Tables whose rows come in blocks."""
_PLACE: Final = {name: at for at, name in enumerate(MEASURES)}


@dataclass(frozen=True, slots=True, eq=False)
class RowBlock(Sequence[Row]):
    """Rows of one input and one effect pane, of one tick, each key once. Never changed."""

    table: Table
    head: Row
    """Values of IDENTITY."""
    origin: Ints
    """Start of each row's origin pane, epoch s."""
    effect: int
    """Start of the effect pane, epoch s."""
    names: list[Names]
    """Values of DECISION_KEY, by row."""
    dimensions: list[Names] | None
    """Values of DIMENSIONS, by row; None in a table without them."""
    measures: tuple[str, ...]
    """What the columns of `totals` are; the other measures are 0."""
    totals: Ints
    """Rows × measures."""
    users: list[Sequence[int]] | None
    """Sketches by row, where the table has them; None: all are empty."""
    rules: str
    version: int | None = None
    """None until it is known: the rows are one value shorter then."""

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Row]:
        spread = np.zeros((len(self), len(MEASURES)), dtype=np.int64)
        spread[:, [_PLACE[name] for name in self.measures]] = self.totals
        end = (self.rules,) if self.version is None else (self.rules, self.version)
        has_users = self.table is Table.REPORTS
        for at, (origin, totals) in enumerate(zip(self.origin.tolist(), spread.tolist(), strict=True)):
            dimensions = self.dimensions[at] if self.dimensions is not None else ()
            users = ((self.users[at] if self.users is not None else ()),) if has_users else ()
            yield (*self.head, origin, self.effect, *self.names[at], *dimensions, *totals, *users, *end)

    @overload
    def __getitem__(self, at: int) -> Row: ...
    @overload
    def __getitem__(self, at: slice) -> Self: ...
    def __getitem__(self, at: int | slice) -> Row | Self:
        if isinstance(at, slice):
            return self._part(at)
        place = range(len(self))[at]
        return next(iter(self._part(slice(place, place + 1))))

    def _part(self, part: slice) -> Self:
        return replace(
            self,
            origin=self.origin[part],
            names=self.names[part],
            dimensions=self.dimensions and self.dimensions[part],
            totals=self.totals[part],
            users=self.users and self.users[part],
        )

    def pick(self, chosen: npt.NDArray[np.bool_]) -> Self:
        """The rows that a mask chooses."""
        places = np.flatnonzero(chosen).tolist()
        return replace(
            self,
            origin=self.origin[chosen],
            names=[self.names[at] for at in places],
            dimensions=self.dimensions and [self.dimensions[at] for at in places],
            totals=self.totals[chosen],
            users=self.users and [self.users[at] for at in places],
        )

    def stamped(self, version: int) -> Self:
        """The same rows with their version."""
        return replace(self, version=version)

    def keys(self) -> list[Row]:
        """What tells each row from all others of its table but its version."""
        shared = (self.head, self.effect)
        if self.dimensions is None:
            return [(shared, *key) for key in zip(self.origin.tolist(), self.names, strict=True)]
        return [(shared, *key) for key in zip(self.origin.tolist(), self.names, self.dimensions, strict=True)]


class Blocks(Sequence[Row]):
    """Blocks of one table, one behind the other: a sequence of their rows."""

    def __init__(self, parts: Sequence[RowBlock]) -> None:
        self.parts = [part for part in parts if len(part)]
        self._size = sum(map(len, self.parts))

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Row]:
        for part in self.parts:
            yield from part

    @overload
    def __getitem__(self, at: int) -> Row: ...
    @overload
    def __getitem__(self, at: slice) -> "Blocks": ...
    def __getitem__(self, at: int | slice) -> "Row | Blocks":
        if isinstance(at, slice):
            return self._slice(*at.indices(self._size))
        place = range(self._size)[at]
        return next(iter(self._slice(place, place + 1)))

    def _slice(self, start: int, stop: int, step: int = 1) -> "Blocks":
        assert step == 1, "blocks are cut, not sampled"
        parts, begin = [], 0
        for part in self.parts:
            first, last = max(start - begin, 0), min(stop - begin, len(part))
            if first < last:
                parts.append(part[first:last])
            begin += len(part)
        return Blocks(parts)

    def stamped(self, version: int) -> "Blocks":
        """The same rows with their version."""
        return Blocks([part.stamped(version) for part in self.parts])


def stamped(rows: Sequence[Row], version: int) -> Sequence[Row]:
    """Rows that lack their version, with it."""
    if isinstance(rows, Blocks):
        return rows.stamped(version)
    end = (version,)
    return [row + end for row in rows]


def joined(groups: Sequence[Sequence[Row]]) -> Sequence[Row]:
    """Rows of one table from several hands, as columns where all of them are."""
    if all(isinstance(group, Blocks) for group in groups):
        return Blocks([part for group in groups if isinstance(group, Blocks) for part in group.parts])
    return [row for group in groups for row in group]
