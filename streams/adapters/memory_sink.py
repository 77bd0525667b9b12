"""A sink in memory that behaves as ReplacingMergeTree does, and can be told to fail. For the simulation and tests."""

from collections import deque
from collections.abc import Iterator, Sequence
from enum import StrEnum
from operator import itemgetter
from typing import Any, Final

from streams.errors import SinkUnavailable
from streams.records import COLUMNS, KEY_COLUMNS, Row, Table

_KEY_OF: Final = {table: itemgetter(*map(COLUMNS[table].index, KEY_COLUMNS[table])) for table in Table}


class Fault(StrEnum):
    """What happens to one insertion."""

    REFUSED = "refused"  # nothing takes effect
    PARTIAL = "partial"  # the first half takes effect, and the caller is told that it failed
    UNANSWERED = "unanswered"  # everything takes effect, and the caller is told that it failed


class MemorySink:
    """Keeps the highest version of each key; of equal versions the last inserted, as ClickHouse does."""

    def __init__(self) -> None:
        self.faults: deque[Fault | None] = deque()
        """What happens to the next insertions, first to last; None and an empty queue: nothing goes wrong."""
        self.insertions = 0
        """Insertions asked for, failed ones included."""
        self._rows: dict[Table, dict[Any, Row]] = {table: {} for table in Table}

    async def insert(self, table: Table, rows: Sequence[Row]) -> None:
        """Inserts rows in the order of `COLUMNS[table]`.

        Raises:
            SinkUnavailable: a fault was due.
        """
        if not rows:
            return
        self.insertions += 1
        fault = self.faults.popleft() if self.faults else None
        self._take(table, rows[: _taken(fault, len(rows))])
        if fault is not None:
            raise SinkUnavailable(f"the sink in memory was told to fail ({fault.value}); try again")

    def _take(self, table: Table, rows: Sequence[Row]) -> None:
        held, key_of = self._rows[table], _KEY_OF[table]
        for row in rows:
            key = key_of(row)
            known = held.get(key)
            if known is None or known[-1] <= row[-1]:
                held[key] = tuple(row)

    def rows(self, table: Table) -> list[Row]:
        """The rows that a reader sees, sorted by key."""
        return [row for _, row in sorted(self._rows[table].items())]

    def count(self, table: Table) -> int:
        """How many keys a table has."""
        return len(self._rows[table])

    def everything(self) -> Iterator[tuple[Table, Row]]:
        """All rows of all tables, sorted: two sinks that agree yield the same."""
        for table in Table:
            for row in self.rows(table):
                yield table, row


def _taken(fault: Fault | None, count: int) -> int:
    if fault is Fault.REFUSED:
        return 0
    return count // 2 if fault is Fault.PARTIAL else count
