"""One partition's history again: the same ranges, the same ticks, the same pure code; so the same rows.

A replay follows the recorded journal from its beginning, or from a checkpoint whose tick stands in it, until nothing
that it can still read makes a row of the range that is asked for (`Range`). It keeps the latest row of each key, and
only what lies in the range, by effect pane; they go out when there are many, and at the end. So alerts and flags of
the range are told as they stood then: what later ticks made of them (an end, a review) is not.
"""

from bisect import bisect_left
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from operator import attrgetter
from typing import Final, NamedTuple

from streams.adapters.clickhouse_runs import TIMED_BY
from streams.blocks import Blocks, stamped
from streams.jobs.replay_journal import RecordedTick
from streams.ports import History
from streams.records import COLUMNS, Row, Table
from streams.state.dirty import DirtyRows
from streams.state.inputs import Batch
from streams.state.journal import version_of
from streams.state.partition import Output, PartitionState
from streams.topics import INPUT_TOPICS

FLUSH_AT: Final = 100_000
"""Rows of a process that wait for their insertion; beyond it they go out. One takes about 1 KB."""
_TIME: Final = {table: COLUMNS[table].index(name) for table, name in TIMED_BY.items()}

Emit = Callable[[Table, Sequence[Row]], Awaitable[None]]


class Range(NamedTuple):
    """Event time that rows are wanted of, epoch ms: [from_ms, to_ms)."""

    from_ms: int
    to_ms: int

    def holds(self, table: Table, row: Row) -> bool:
        """Whether a row belongs to it."""
        return bool(self.from_ms <= row[_TIME[table]] * 1000 < self.to_ms)

    def part_of(self, table: Table, rows: Sequence[Row]) -> Sequence[Row]:
        """The rows that belong to it."""
        if not isinstance(rows, Blocks):
            return [row for row in rows if self.holds(table, row)]
        assert TIMED_BY[table] == "effect_pane", "a block has one effect pane"
        return Blocks([part for part in rows.parts if self.from_ms <= part.effect * 1000 < self.to_ms])


class Place(NamedTuple):
    """How far a replay has come."""

    journal_offset: int
    wall_ms: int
    events: int


class Cursor:
    """Reads one topic-partition on and on, cut where ticks stand: what is fetched ahead is kept."""

    def __init__(self, history: History, topic: str, partition: int, begin: int, end: int) -> None:
        self._ranges = history.read(topic, partition, begin, end) if begin < end else None
        self._held: Batch | None = None

    async def up_to(self, target: int) -> AsyncIterator[Batch]:
        """The ranges before `target`, from where it was left."""
        while self._ranges is not None:
            batch = self._held or await anext(self._ranges, None)
            self._held = None
            if batch is None:
                return
            if batch.from_offset >= target:
                self._held = batch
                return
            if batch.to_offset > target:
                self._held = _from(batch, target)
                batch = _up_to(batch, target)
            yield batch
            if self._held is not None:
                return

    async def close(self) -> None:
        """Stops fetching."""
        if self._ranges is not None:
            await self._ranges.aclose()


def _from(batch: Batch, offset: int) -> Batch:
    at = bisect_left(batch.records, offset, key=attrgetter("offset"))
    return batch._replace(from_offset=offset, records=batch.records[at:])


def _up_to(batch: Batch, offset: int) -> Batch:
    at = bisect_left(batch.records, offset, key=attrgetter("offset"))
    return batch._replace(to_offset=offset, records=batch.records[:at])


class PartitionReplay:
    """Follows one partition's journal. `state` is empty, or stands at a checkpoint's tick."""

    def __init__(self, history: History, state: PartitionState, wanted: Range, emit: Emit) -> None:
        self.history = history
        self.state = state
        self.wanted = wanted
        self.emit = emit
        self.events = 0
        self.lost = 0
        """Offsets that retention had removed before they were read here."""
        self.rows = DirtyRows()

    async def run(self, ticks: AsyncIterator[RecordedTick], ends: dict[str, int]) -> AsyncGenerator[Place]:
        """Replays these ticks in order; tells how far it has come after each.

        `ends`: how far the last of them has applied every topic. It leaves off where it `is_beyond`.
        """
        cursors = self._cursors(ends)
        try:
            async for recorded in ticks:
                yield await self._follow(recorded, cursors)
                if self.is_beyond(ends):
                    break
            await self.flush()
        finally:
            for cursor in cursors.values():
                await cursor.close()

    def _cursors(self, ends: dict[str, int]) -> dict[str, Cursor]:
        partition, at = self.state.partition, self.state.position
        return {topic: Cursor(self.history, topic, partition, at(topic), end) for topic, end in ends.items()}

    async def _follow(self, recorded: RecordedTick, cursors: dict[str, Cursor]) -> Place:
        for topic, target in recorded.tick.applied.items():
            async for batch in cursors[topic].up_to(target):
                self.events += len(batch.records)
                self.lost += (batch.to_offset - batch.from_offset) if batch.is_lost else 0
                self.state.apply(batch)
        self.keep(self.state.tick(recorded.tick), version_of(self.state.log_epoch, recorded.offset))
        if len(self.rows) > FLUSH_AT:
            await self.flush()
        return Place(recorded.offset, recorded.tick.wall_ms, self.events)

    def keep(self, output: Output, version: int) -> None:
        """Keeps what a tick gave and the range holds."""
        for table, rows in output.rows.items():
            if table in _TIME:
                kept = self.wanted.part_of(table, rows)
                if kept:
                    self.rows.put(table, stamped(kept, version))

    async def flush(self) -> None:
        """Emits what waits."""
        for table in TIMED_BY:
            while rows := self.rows.take(table, FLUSH_AT):
                await self.emit(table, rows)
                self.rows.acknowledge(table, rows)

    def is_beyond(self, ends: dict[str, int]) -> bool:
        """Whether no pane of the range can change any more.

        All its panes are closed, for every input that has something left to read (`ends`), and for what ticks decide.
        """
        pane_ms, to_ms = self.state.rules.report_pane_ms, self.wanted.to_ms
        if self.state.newest_ms() // pane_ms * pane_ms < to_ms:
            return False
        for source, state in self.state.inputs.items():
            is_read = state.position >= ends[INPUT_TOPICS[source]] and state.report.is_clean and state.cohorts.is_clean
            if not is_read and state.newest_ms // pane_ms * pane_ms < to_ms:
                return False
        return True
