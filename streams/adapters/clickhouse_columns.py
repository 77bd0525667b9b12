"""Rows to the columns of one insertion. Most measures of a row are 0: a measure that is 0 in every row is left out.

ClickHouse fills what is left out with 0, and stores columns of zeros sparsely.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from streams.events import Input
from streams.records import COLUMNS, COMMON, KEY_COLUMNS, MEASURES, MEASURES_OF, Row, Table

_USERS: Final = "users"
_OPTIONAL: Final = frozenset((*MEASURES, _USERS))
_MEASURED: Final = frozenset((Table.PANES, Table.REPORTS))
_INPUT: Final = 1
"""Where the input stands in the rows of measured tables."""

assert all(KEY_COLUMNS[table][_INPUT] == "input" for table in _MEASURED)


@cache
def _places(table: Table, inputs: frozenset[str]) -> tuple[int, ...]:
    """The columns that rows of these inputs can fill: of the measures only their own, where the inputs are known."""
    columns = COLUMNS[table]
    if not inputs <= frozenset(Input):
        return tuple(range(len(columns)))
    possible = {*COMMON, _USERS, *(m for name in inputs for m in MEASURES_OF[Input(name)])}
    return tuple(at for at, name in enumerate(columns) if name not in _OPTIONAL or name in possible)


def columns_of(table: Table, rows: Sequence[Row]) -> tuple[list[str], list[list[Any]]]:
    """Names and values of the columns to insert. `rows` must not be empty.

    Measures of another input than the row's own are not looked at: they are 0 (streams.records).
    """
    if table not in _MEASURED:
        return list(COLUMNS[table]), [list(column) for column in zip(*rows, strict=True)]
    names, columns = [], []
    for at in _places(table, frozenset([row[_INPUT] for row in rows])):
        name = COLUMNS[table][at]
        column = [row[at] for row in rows]
        if name not in _OPTIONAL or any(column):
            names.append(name)
            columns.append(column)
    return names, columns
