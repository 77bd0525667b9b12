"""One partition on its way through time in a what-if: what it reads up to a time, and what it arranges itself.

Settings, evidence and verdicts are the run's own: settings because they may be replaced, evidence and verdicts because
they follow the rules. Of the recorded ones only those stay that were told before the checkpoints at which the lanes
begin, and reviews, for people said them.
"""

from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import Final, NamedTuple

from streams.adapters.memory import MemoryRecord
from streams.jobs.replay_partition import PartitionReplay
from streams.ports import Batch, History, RawRecord
from streams.rules import Rules
from streams.state.journal import Tick, version_of
from streams.state.outgoing import outgoing
from streams.state.partition import TOPICS, PartitionState
from streams.topics import CAMPAIGNS, EVIDENCE, INPUT_TOPICS, VERDICTS, partition_of

SILENT_STEPS: Final = 6
"""An input from which so many steps brought nothing is told as silent."""
OWN_LOGS: Final = (CAMPAIGNS, EVIDENCE, VERDICTS)
"""Topics whose records are arranged anew."""


class Letter(NamedTuple):
    """What one partition's tick tells another."""

    sender: int
    to: int
    topic: str
    timestamp_ms: int
    key: bytes | None
    value: bytes | None


Kept = tuple[int, bytes | None, bytes | None]
"""Timestamp, key and value of a record that was told in the run."""


class SavedLane(NamedTuple):
    """What a lane knows besides its state."""

    own: dict[str, tuple[int, int | None, list[Kept]]]
    begins: dict[str, int]
    place: int
    quiet: dict[str, int]
    lost: int


class OwnLog:
    """A topic-partition that the run itself arranges: what was recorded and stays, and what is told in the run."""

    def __init__(self, position: int, recorded: Iterable[RawRecord] = (), told: Iterable[Kept] = ()) -> None:
        self.position = position
        """Offset of the next record, as the state counts them."""
        self.recorded_from: int | None = None
        """Offset behind the last recorded one that was taken; None: none was."""
        self._recorded = deque(recorded)
        self._told: deque[Kept] = deque(told)

    def append(self, timestamp_ms: int, key: bytes | None, value: bytes | None) -> None:
        """Something is told."""
        self._told.append((timestamp_ms, key, value))

    def take(self, before_ms: int) -> list[RawRecord]:
        """Records older than this, from where it was left: recorded ones first."""
        found: list[RawRecord] = []
        while self._recorded and self._recorded[0].timestamp < before_ms:
            record = self._recorded.popleft()
            self.recorded_from = record.offset + 1
            found.append(MemoryRecord(self.position + len(found), record.timestamp, record.key, record.value))
        while self._told and self._told[0][0] < before_ms:
            timestamp_ms, key, value = self._told.popleft()
            found.append(MemoryRecord(self.position + len(found), timestamp_ms, key, value))
        self.position += len(found)
        return found

    def snapshot(self) -> tuple[int, int | None, list[Kept]]:
        """Plain values, without what is recorded: that is read again."""
        return self.position, self.recorded_from, list(self._told)


class TimedCursor:
    """Reads a topic-partition up to a time: up to its first record that is not older."""

    def __init__(self, history: History, topic: str, partition: int, begin: int, end: int) -> None:
        self._ranges = history.read(topic, partition, begin, end) if begin < end else None
        self._held: Batch | None = None

    async def next_ms(self) -> int | None:
        """Timestamp of the next record; None at the end."""
        while self._held is None or not self._held.records:
            batch = await anext(self._ranges, None) if self._ranges is not None else None
            if batch is None:
                return None
            self._held = batch if self._held is None else _joined(self._held, batch)
        return self._held.records[0].timestamp

    async def before(self, at_ms: int) -> AsyncIterator[Batch]:
        """Ranges of records older than this."""
        while (first := await self.next_ms()) is not None and first < at_ms:
            batch = self._held
            assert batch is not None
            cut = next((at for at, r in enumerate(batch.records) if r.timestamp >= at_ms), len(batch.records))
            if cut == len(batch.records):
                self._held = None
                yield batch
                continue
            offset = batch.records[cut].offset
            self._held = batch._replace(from_offset=offset, records=batch.records[cut:])
            yield batch._replace(to_offset=offset, records=batch.records[:cut])

    async def close(self) -> None:
        """Stops fetching."""
        if self._ranges is not None:
            await self._ranges.aclose()


def _joined(empty: Batch, behind: Batch) -> Batch:
    """A range without records, and the one behind it."""
    return behind._replace(from_offset=empty.from_offset) if not empty.is_lost else behind


class Lane:
    """One partition on its way through time."""

    def __init__(
        self,
        replay: PartitionReplay,
        cursors: dict[str, TimedCursor],
        own: dict[str, OwnLog],
        begins: dict[str, int],
        ends: dict[str, int],
        place: int,
        quiet: dict[str, int] | None = None,
    ) -> None:
        """`begins`: where recorded topics that the run arranges are read from. `ends`: how far every topic is read.

        `place`: versions of its rows, and sequences of what it tells, go on from it.
        """
        self.replay = replay
        self.state: PartitionState = replay.state
        self.cursors = cursors
        self.own = own
        self.begins = begins
        self.ends = ends
        self.place = place
        self.quiet = quiet or dict.fromkeys(TOPICS, 0)

    async def read(self, before_ms: int) -> int:
        """Applies what is older; returns how many records that was."""
        count = 0
        for topic, cursor in self.cursors.items():
            seen = 0
            async for batch in cursor.before(before_ms):
                self.state.apply(batch)
                seen += len(batch.records)
                self.replay.lost += (batch.to_offset - batch.from_offset) if batch.is_lost else 0
            self.quiet[topic] = 0 if seen else self.quiet[topic] + 1
            count += seen
        return count + self.read_own(before_ms)

    def read_own(self, before_ms: int) -> int:
        """The same of the topics that the run arranges."""
        count = 0
        for topic, log in self.own.items():
            begin, records = log.position, log.take(before_ms)
            if records:
                self.state.apply(Batch(topic, self.state.partition, begin, log.position, records))
            count += len(records)
        return count

    def silent(self) -> tuple[str, ...]:
        """Inputs from which nothing has come for a while."""
        return tuple(topic for topic in INPUT_TOPICS.values() if self.quiet[topic] >= SILENT_STEPS)

    def tick(self, now_ms: int, rules: Rules, partitions: int) -> list[Letter]:
        """Ticks, keeps its rows, and returns what it tells partitions (itself too)."""
        state, letters = self.state, []
        changed = rules if state.seq == 0 or state.rules != rules else None
        tick = Tick("what-if", state.seq + 1, now_ms, state.positions(), silent=self.silent(), rules=changed)
        output = state.tick(tick)
        self.place += 1
        version = version_of(state.log_epoch, self.place)
        self.replay.keep(output, version)
        for _, message in outgoing(output, version):
            if message.topic in (EVIDENCE, VERDICTS):
                to = message.partition
                to = partition_of((message.key or b"").decode(), partitions) if to is None else to
                letters.append(Letter(state.partition, to, message.topic, now_ms, message.key, message.value))
        return letters

    async def upcoming_ms(self) -> int | None:
        """Timestamp of the next record; None: everything is read."""
        found = [at for cursor in self.cursors.values() if (at := await cursor.next_ms()) is not None]
        return min(found, default=None)

    def is_beyond(self) -> bool:
        """Whether none of its own records can change a row of the range any more."""
        return self.replay.is_beyond(self.ends)

    def stands_in_range(self) -> bool:
        """Whether what it is told makes rows of the range: of the pane of its newest event time."""
        pane_ms, wanted = self.state.rules.report_pane_ms, self.replay.wanted
        return wanted.from_ms <= self.state.newest_ms() // pane_ms * pane_ms < wanted.to_ms

    def saved(self) -> SavedLane:
        """For whoever goes on with it."""
        own = {topic: log.snapshot() for topic, log in self.own.items()}
        return SavedLane(own, self.begins, self.place, self.quiet, self.replay.lost)

    async def close(self) -> None:
        """Stops fetching."""
        for cursor in self.cursors.values():
            await cursor.close()
