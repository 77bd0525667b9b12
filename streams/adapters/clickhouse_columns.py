"""Rows to the columns of one insertion. Most measures of a row are 0: a measure that is 0 in every row is left out.

ClickHouse fills what is left out with 0, and stores columns of zeros sparsely.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from streams.blocks import MEASURED, Blocks, RowBlock
from streams.events import Input
from streams.records import (
    COLUMNS,
    COMMON,
    DECISION_KEY,
    DIMENSIONS,
    IDENTITY,
    KEY_COLUMNS,
    MEASURES,
    MEASURES_OF,
    Row,
    Table,
)

Column = Sequence[Any] | npt.NDArray[np.int64]
_USERS: Final = "users"
_OPTIONAL: Final = frozenset((*MEASURES, _USERS))
_INPUT: Final = 1
"""Where the input stands in the rows of measured tables."""

assert all(KEY_COLUMNS[table][_INPUT] == "input" for table in MEASURED)


@cache
def _places(table: Table, inputs: frozenset[str]) -> tuple[int, ...]:
    """The columns that rows of these inputs can fill: of the measures only their own, where the inputs are known."""
    columns = COLUMNS[table]
    if not inputs <= frozenset(Input):
        return tuple(range(len(columns)))
    possible = {*COMMON, _USERS, *(m for name in inputs for m in MEASURES_OF[Input(name)])}
    return tuple(at for at, name in enumerate(columns) if name not in _OPTIONAL or name in possible)


def columns_of(table: Table, rows: Sequence[Row]) -> tuple[list[str], list[Column]]:
    """Names and values of the columns to insert. `rows` must not be empty.

    Measures of another input than the row's own are not looked at: they are 0 (streams.records).
    """
    if isinstance(rows, Blocks):
        return _columns_of_blocks(table, rows.parts)
    if table not in MEASURED:
        return list(COLUMNS[table]), [list(column) for column in zip(*rows, strict=True)]
    names: list[str] = []
    columns: list[Column] = []
    for at in _places(table, frozenset([row[_INPUT] for row in rows])):
        name = COLUMNS[table][at]
        column = [row[at] for row in rows]
        if name not in _OPTIONAL or any(column):
            names.append(name)
            columns.append(column)
    return names, columns


def _columns_of_blocks(table: Table, blocks: Sequence[RowBlock]) -> tuple[list[str], list[Column]]:
    """The same, without making the rows."""
    found: dict[str, Column] = {}
    for at, name in enumerate(IDENTITY):
        found[name] = _repeated(blocks, [block.head[at] for block in blocks])
    found["origin_pane"] = np.concatenate([block.origin for block in blocks]).tolist()
    found["effect_pane"] = _repeated(blocks, [block.effect for block in blocks])
    found.update(_by_name(DECISION_KEY, [names for block in blocks for names in block.names]))
    if table is Table.REPORTS:
        found.update(_by_name(DIMENSIONS, [values for block in blocks for values in block.dimensions or ()]))
    found.update(_measures(blocks))
    if any(block.users is not None for block in blocks):
        found[_USERS] = [sketch for block in blocks for sketch in block.users or [()] * len(block)]
    found["rules"] = _repeated(blocks, [block.rules for block in blocks])
    found["version"] = _repeated(blocks, [block.version for block in blocks])
    return list(found), list(found.values())


def _repeated(blocks: Sequence[RowBlock], values: Sequence[Any]) -> list[Any]:
    """Each block's one value for all of its rows."""
    return [value for block, value in zip(blocks, values, strict=True) for _ in range(len(block))]


def _by_name(names: Sequence[str], rows: Sequence[Row]) -> Iterator[tuple[str, Column]]:
    return zip(names, zip(*rows, strict=True), strict=True)


def _measures(blocks: Sequence[RowBlock]) -> Iterator[tuple[str, Column]]:
    """Those that are not 0 everywhere."""
    for name in dict.fromkeys(name for block in blocks for name in block.measures):
        parts = [
            block.totals[:, block.measures.index(name)] if name in block.measures else np.zeros(len(block), np.int64)
            for block in blocks
        ]
        column = np.concatenate(parts)
        if column.any():
            yield name, column
