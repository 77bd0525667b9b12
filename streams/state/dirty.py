"""Rows that ClickHouse has not acknowledged: the latest of each key. An outage costs these, never a queue of events."""

from collections.abc import Iterable, Sequence
from itertools import islice

from streams.records import KEY_COLUMNS, Row, Table

_WIDTH = {table: len(columns) for table, columns in KEY_COLUMNS.items()}
_CAMPAIGN_KEY = (0, 8)


def key_of(table: Table, row: Row) -> Row:
    """The key columns' values."""
    if table is Table.CAMPAIGNS:
        return tuple(row[at] for at in _CAMPAIGN_KEY)
    return row[: _WIDTH[table]]


class DirtyRows:
    """The latest row of each unacknowledged key. Never evicts: the caller pauses intake at its bound."""

    def __init__(self) -> None:
        self._rows: dict[Table, dict[Row, Row]] = {table: {} for table in Table}

    def __len__(self) -> int:
        return sum(map(len, self._rows.values()))

    def clear(self) -> None:
        """Forgets everything: the state that gave these rows was given up and will give them again."""
        for held in self._rows.values():
            held.clear()

    def put(self, table: Table, rows: Iterable[Row]) -> None:
        """Adds rows of one version, which must be at least as high as any here."""
        held, width = self._rows[table], _WIDTH[table]
        if table is Table.CAMPAIGNS:
            held.update((key_of(table, row), row) for row in rows)
        else:
            held.update((row[:width], row) for row in rows)

    def take(self, table: Table, limit: int) -> list[Row]:
        """Up to `limit` rows of a table; they stay until acknowledged."""
        return list(islice(self._rows[table].values(), limit))

    def acknowledge(self, table: Table, rows: Sequence[Row]) -> None:
        """Forgets these rows, unless their key has changed since they were taken."""
        held = self._rows[table]
        for row in rows:
            key = key_of(table, row)
            if held.get(key) is row:
                del held[key]

    def oldest_version(self) -> int | None:
        """The lowest version that is still here."""
        return min((row[-1] for held in self._rows.values() for row in held.values()), default=None)

    def since(self, version: int) -> list[tuple[Table, Row]]:
        """Rows with a higher version than this, in the order of their versions."""
        found = [(table, row) for table, held in self._rows.items() for row in held.values() if row[-1] > version]
        return sorted(found, key=lambda pair: pair[1][-1])
