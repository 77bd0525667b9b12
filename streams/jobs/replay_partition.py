"""One partition's history again: the same ranges, the same ticks, the same pure code; so the same rows.

A replay follows the recorded journal from its beginning, or from a checkpoint whose tick stands in it. It keeps the
latest row of each key, and only what lies in the range that is asked for (`Range`), by effect pane: rows of panes that
are closed go out when there are many, the rest at the end.
"""

import contextlib
from bisect import bisect_left
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from operator import attrgetter
from typing import Final, NamedTuple

from streams.adapters.clickhouse_runs import TIMED_BY
from streams.blocks import Blocks, stamped
from streams.errors import CampaignStreamsError
from streams.ports import History
from streams.records import COLUMNS, Row, Table
from streams.rules import Rules
from streams.state.dirty import DirtyRows
from streams.state.inputs import Batch
from streams.state.journal import Fold, Tick, decode, version_of
from streams.state.partition import Output, PartitionState
from streams.topics import JOURNAL

FLUSH_AT: Final = 100_000
"""Rows that wait for their insertion; beyond it they go out."""
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


class RecordedTick(NamedTuple):
    """A tick that counts, and its place in the journal."""

    offset: int
    tick: Tick


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
    """Follows one partition's journal. `state` is empty, or stands at a checkpoint's tick (`after_offset`)."""

    def __init__(self, history: History, state: PartitionState, wanted: Range, emit: Emit) -> None:
        self.history = history
        self.state = state
        self.wanted = wanted
        self.emit = emit
        self.events = 0
        self.rows = DirtyRows()

    async def run(self, ticks: Sequence[RecordedTick]) -> AsyncIterator[Place]:
        """Replays these ticks in order; tells how far it has come after each."""
        cursors = self._cursors(ticks[-1].tick.applied) if ticks else {}
        try:
            async for place in self._follow(ticks, cursors):
                yield place
            await self.flush()
        finally:
            for cursor in cursors.values():
                await cursor.close()

    def _cursors(self, ends: dict[str, int]) -> dict[str, Cursor]:
        partition, at = self.state.partition, self.state.position
        return {topic: Cursor(self.history, topic, partition, at(topic), end) for topic, end in ends.items()}

    async def _follow(self, ticks: Sequence[RecordedTick], cursors: dict[str, Cursor]) -> AsyncIterator[Place]:
        for recorded in ticks:
            for topic, target in recorded.tick.applied.items():
                async for batch in cursors[topic].up_to(target):
                    self.events += len(batch.records)
                    self.state.apply(batch)
            self.keep(self.state.tick(recorded.tick), version_of(self.state.log_epoch, recorded.offset))
            if len(self.rows) > FLUSH_AT:
                await self.flush()
            yield Place(recorded.offset, recorded.tick.wall_ms, self.events)

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

    @property
    def is_beyond(self) -> bool:
        """Whether every input that has events has passed the range's end: no pane of it can change any more."""
        reached = [state.newest_ms for state in self.state.inputs.values() if state.newest_ms >= 0]
        return bool(reached) and min(reached) >= self.wanted.to_ms


async def recorded_ticks(history: History, partition: int, from_offset: int | None = None) -> "Recorded":
    """The journal's ticks that count, from its beginning or from a tick's place on (that tick left out).

    Raises:
        CampaignStreamsError: the journal's beginning has been removed, and no checkpoint stands before what is left.
    """
    span = await history.span(JOURNAL, partition)
    fold, ticks = Fold(), []
    if from_offset is None and span.first > 0:
        raise CampaignStreamsError(
            f"partition {partition}: the journal begins at offset {span.first}: its beginning has been removed; "
            "replay from an archive that holds it, or from a pinned checkpoint"
        )
    begin = span.first if from_offset is None else from_offset
    async with contextlib.aclosing(history.read(JOURNAL, partition, begin, span.next)) as ranges:
        async for batch in ranges:
            for record in batch.records:
                tick = fold.take(decode(record.value or b""))
                if tick is not None:
                    ticks.append(RecordedTick(record.offset, tick))
    return Recorded(ticks, fold.starts or {})


class Recorded(NamedTuple):
    """A partition's journal, and where its topics began."""

    ticks: list[RecordedTick]
    starts: dict[str, int]


def fresh_state(partition: int, partitions: int, log_epoch: int, recorded: Recorded) -> PartitionState:
    """An empty state that knows what the journal says about poison."""
    state = PartitionState(partition, partitions, log_epoch, Rules())
    state.begin_at(recorded.starts)
    for _, tick in recorded.ticks:
        for topic, offsets in tick.poisoned.items():
            state.poisoned.setdefault(topic, set()).update(offsets)
    return state
