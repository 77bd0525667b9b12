"""Rows that ClickHouse has not acknowledged: the latest of each key. An outage costs these, never a queue of events."""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

import numpy as np

from streams.blocks import MEASURED, Blocks, RowBlock
from streams.records import KEY_COLUMNS, Row, Table

_WIDTH = {table: len(columns) for table, columns in KEY_COLUMNS.items()}
_CAMPAIGN_KEY = (0, 8)
COMPACT_AT: Final = 20_000
"""Rows in blocks, of one table, beyond which superseded ones are thrown out as they come in."""
Unsaved = tuple[Table, Row | RowBlock]


def key_of(table: Table, row: Row) -> Row:
    """The key columns' values."""
    if table is Table.CAMPAIGNS:
        return tuple(row[at] for at in _CAMPAIGN_KEY)
    return row[: _WIDTH[table]]


class DirtyRows:
    """The latest row of each unacknowledged key. Never evicts: the caller pauses intake at its bound.

    Rows of the measured tables wait as the blocks in which they came. Rows in them that a later block supersedes go
    when the table is taken from, or when there are twice as many rows as keys (and more than `COMPACT_AT`).
    """

    def __init__(self) -> None:
        self._rows: dict[Table, dict[Row, Row]] = {table: {} for table in Table if table not in MEASURED}
        self._blocks: dict[Table, list[RowBlock]] = {table: [] for table in MEASURED}
        self._compact_at = dict.fromkeys(MEASURED, COMPACT_AT)

    def __len__(self) -> int:
        in_blocks = sum(len(block) for blocks in self._blocks.values() for block in blocks)
        return in_blocks + sum(map(len, self._rows.values()))

    def clear(self) -> None:
        """Forgets everything: the state that gave these rows was given up and will give them again."""
        self.__init__()  # type: ignore[misc]

    def put(self, table: Table, rows: Iterable[Row]) -> None:
        """Adds rows of one version, which must be at least as high as any here; of measured tables, `Blocks`."""
        if isinstance(rows, Blocks):
            self._put_blocks(table, rows)
            return
        held, width = self._rows[table], _WIDTH[table]
        if table is Table.CAMPAIGNS:
            held.update((key_of(table, row), row) for row in rows)
        else:
            held.update((row[:width], row) for row in rows)

    def _put_blocks(self, table: Table, rows: Blocks) -> None:
        blocks = self._blocks[table]
        blocks.extend(rows.parts)
        if sum(map(len, blocks)) > self._compact_at[table]:
            blocks = self._compact(table)
            self._compact_at[table] = max(COMPACT_AT, 2 * sum(map(len, blocks)))

    def _compact(self, table: Table) -> list[RowBlock]:
        """Of each key the latest row only."""
        blocks = self._blocks[table]
        if len({(block.head, block.effect) for block in blocks}) == len(blocks):
            return blocks  # no two of them can have a key in common
        seen: set[Row] = set()
        kept: list[RowBlock] = []
        for block in reversed(blocks):
            keys = block.keys()
            fresh = [key not in seen for key in keys]
            seen.update(keys)
            kept.append(block if all(fresh) else block.pick(np.array(fresh, dtype=bool)))
        found = self._blocks[table] = [block for block in reversed(kept) if len(block)]
        return found

    def take(self, table: Table, limit: int) -> Sequence[Row]:
        """Up to `limit` rows of a table; they stay until acknowledged."""
        if table not in MEASURED:
            return list(islice(self._rows[table].values(), limit))
        blocks = self._compact(table)
        taken: list[RowBlock] = []
        room = limit
        for at, block in enumerate(blocks):
            if room <= 0:
                break
            if len(block) > room:
                blocks[at : at + 1] = [block[:room], block[room:]]
            taken.append(blocks[at])
            room -= len(blocks[at])
        return Blocks(taken)

    def acknowledge(self, table: Table, rows: Sequence[Row]) -> None:
        """Forgets these rows, unless their key has changed since they were taken."""
        if isinstance(rows, Blocks):
            gone = set(map(id, rows.parts))
            self._blocks[table] = [block for block in self._blocks[table] if id(block) not in gone]
            return
        held = self._rows[table]
        for row in rows:
            key = key_of(table, row)
            if held.get(key) is row:
                del held[key]

    def oldest_version(self) -> int | None:
        """The lowest version that is still here."""
        return min(map(_version, self._everything()), default=None)

    def since(self, version: int) -> list[Unsaved]:
        """What has a higher version than this, in the order of the versions."""
        return sorted((entry for entry in self._everything() if _version(entry) > version), key=_version)

    def _everything(self) -> Iterable[Unsaved]:
        for table, blocks in self._blocks.items():
            yield from ((table, block) for block in blocks)
        for table, held in self._rows.items():
            yield from ((table, row) for row in held.values())


def _version(entry: Unsaved) -> int:
    row = entry[1]
    version = row.version if isinstance(row, RowBlock) else row[-1]
    assert version is not None, "rows wait with the version of their tick"
    return version
