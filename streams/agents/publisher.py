"""Takes unacknowledged rows from the owners to ClickHouse, in large blocks, until they are acknowledged."""

import asyncio
import logging

from streams.agents.keeper import Keeper
from streams.errors import Unavailable
from streams.ports import RowSink
from streams.records import Row, Table
from streams.state.owner import Owner

log = logging.getLogger(__name__)

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

    async def flush(self) -> bool:
        """Inserts what is dirty now, table by table; returns whether all of it was acknowledged."""
        for table in Table:
            taken = self._take(table)
            while taken:
                if not await self._insert(table, taken):
                    return False
                full = sum(len(rows) for _, rows in taken) >= self.max_rows
                taken = self._take(table) if full else []
        for owner in list(self.keeper.owners.values()):
            oldest = owner.dirty.oldest_version()
            self.keeper.visible.acknowledged(owner.partition, oldest, self.keeper.clock.now_ms())
        return True

    def _take(self, table: Table) -> list[tuple[Owner, list[Row]]]:
        taken, room = [], self.max_rows
        for owner in self.keeper.owners.values():
            rows = owner.dirty.take(table, room)
            if rows:
                taken.append((owner, rows))
                room -= len(rows)
            if room <= 0:
                break
        return taken

    async def _insert(self, table: Table, taken: list[tuple[Owner, list[Row]]]) -> bool:
        rows = [row for _, part in taken for row in part]
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
