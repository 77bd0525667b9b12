"""Takes unacknowledged rows from the owners to ClickHouse, in large blocks, until they are acknowledged."""

import asyncio
import logging
from collections.abc import Sequence

from streams.agents.keeper import Keeper
from streams.blocks import joined
from streams.errors import Unavailable
from streams.ports import RowSink
from streams.records import Row, Table
from streams.state.owner import Owner

log = logging.getLogger(__name__)

OTHERS_EVERY_S = 1.0
"""The other tables are inserted into this often: every insertion is a part that ClickHouse must merge."""
PART_ROWS = 5_000
"""Rows of one insertion into a table other than the decision grain's."""
BACK_OFF_S = (0.25, 0.5, 1.0, 2.0, 5.0)


class Publisher:
    """One sink for all partitions."""

    def __init__(self, keeper: Keeper, sink: RowSink, max_rows: int) -> None:
        self.keeper = keeper
        self.sink = sink
        self.max_rows = max_rows
        self.inserted_rows = 0
        self.insertions = 0
        self.errors = 0
        self.last_seconds = 0.0
        self.failures_in_a_row = 0
        self._others_at = -OTHERS_EVERY_S

    async def flush(self, everything: bool = True) -> bool:
        """Inserts what is dirty now; returns whether all of it was acknowledged.

        The decision grain goes first, and again between parts of the other tables: nobody waits for a report. Unless
        `everything` is wanted, the other tables take part about once a second.
        """
        if not await self._insert_all(Table.PANES, self.max_rows):
            return False
        now = asyncio.get_running_loop().time()
        is_time = everything or now - self._others_at >= OTHERS_EVERY_S
        self._others_at = now if is_time else self._others_at
        for table in Table if is_time else ():
            part = min(PART_ROWS, self.max_rows)
            taken = [] if table is Table.PANES else self._take(table, part)
            while taken:
                if not await self._insert(table, taken) or not await self._insert_all(Table.PANES, self.max_rows):
                    return False
                taken = self._take(table, part) if _count(taken) >= part else []
        for owner in list(self.keeper.owners.values()):
            oldest = owner.dirty.oldest_version()
            self.keeper.visible.acknowledged(owner.partition, oldest, self.keeper.clock.now_ms())
        return True

    async def _insert_all(self, table: Table, limit: int) -> bool:
        taken = self._take(table, limit)
        while taken:
            if not await self._insert(table, taken):
                return False
            taken = self._take(table, limit) if _count(taken) >= limit else []
        return True

    def _take(self, table: Table, limit: int) -> list[tuple[Owner, Sequence[Row]]]:
        taken, room = [], min(limit, self.max_rows)
        for owner in self.keeper.owners.values():
            rows = owner.dirty.take(table, room)
            if rows:
                taken.append((owner, rows))
                room -= len(rows)
            if room <= 0:
                break
        return taken

    async def _insert(self, table: Table, taken: list[tuple[Owner, Sequence[Row]]]) -> bool:
        rows = joined([part for _, part in taken])
        started = asyncio.get_running_loop().time()
        try:
            await self.sink.insert(table, rows)
        except Unavailable as error:
            self.failed(error)
            return False
        self.last_seconds = asyncio.get_running_loop().time() - started
        self.failures_in_a_row = 0
        self.insertions += 1
        self.inserted_rows += len(rows)
        for owner, part in taken:
            owner.dirty.acknowledge(table, part)
        return True

    def failed(self, error: Unavailable) -> None:
        """ClickHouse did not acknowledge: rows stay dirty."""
        self.errors += 1
        self.failures_in_a_row += 1
        if self.failures_in_a_row in (1, 10) or self.failures_in_a_row % 60 == 0:
            log.warning("%s; %d rows wait, nothing is lost", error, self.keeper.dirty_rows)

    def pause_s(self) -> float:
        """How long to wait after a failure."""
        return BACK_OFF_S[min(self.failures_in_a_row, len(BACK_OFF_S)) - 1] if self.failures_in_a_row else 0.0


def _count(taken: list[tuple[Owner, Sequence[Row]]]) -> int:
    return sum(len(rows) for _, rows in taken)
