"""One partition on its way through time in a what-if: what it reads up to a time, and what it arranges itself.

Settings, evidence and verdicts are the run's own: settings because they may be replaced, evidence and verdicts because
they follow the rules. Of the recorded ones only those stay that were told before the checkpoints at which the lanes
begin, and reviews, for people said them. When each of them is in force `replay_notices` says.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import AsyncIterator
from operator import attrgetter
from typing import Final, NamedTuple

from streams.jobs.replay_notices import ALL_READ, EVER_MS, Applied, Heads, Kept, Notices
from streams.jobs.replay_partition import PartitionReplay
from streams.ports import Batch, History
from streams.rules import Rules
from streams.state.journal import Tick, version_of
from streams.state.outgoing import outgoing
from streams.state.partition import TOPICS, PartitionState
from streams.topics import CAMPAIGNS, EVIDENCE, INPUT_TOPICS, VERDICTS, partition_of

SILENT_STEPS: Final = 6
"""An input from which so many steps brought nothing is told as silent."""
OWN_LOGS: Final = (CAMPAIGNS, EVIDENCE, VERDICTS)
"""Topics whose records are arranged anew."""

_offset_of: Final = attrgetter("offset")


class Letter(NamedTuple):
    """What one partition's tick tells another."""

    sender: int
    to: int
    topic: str
    timestamp_ms: int
    key: bytes | None
    value: bytes | None


class SavedLane(NamedTuple):
    """What a lane knows besides its state."""

    own: dict[str, tuple[int, int | None, list[Kept]]]
    begins: dict[str, int]
    place: int
    quiet: dict[str, int]
    lost: int


class TimedCursor:
    """Reads a topic-partition up to a time: up to its first record that is not older."""

    def __init__(self, history: History, topic: str, partition: int, begin: int, end: int) -> None:
        self._ranges = history.read(topic, partition, begin, end) if begin < end else None
        self._held: Batch | None = None
        self._bare: deque[Batch] = deque()
        """Ranges before the next record that hold none: markers, and what retention has removed."""

    async def next_ms(self) -> int | None:
        """Timestamp of the next record; None at the end."""
        while self._held is None:
            batch = await anext(self._ranges, None) if self._ranges is not None else None
            if batch is None:
                return None
            if batch.records:
                self._held = batch
            else:
                self._bare.append(batch)
        return self._held.records[0].timestamp

    async def head(self) -> int:
        """Offset of the next record; `ALL_READ` at the end."""
        if await self.next_ms() is None:
            return ALL_READ
        assert self._held is not None
        return self._held.records[0].offset

    async def before(self, at_ms: int, below: int = ALL_READ) -> AsyncIterator[Batch]:
        """Ranges of records older than this, and below an offset; those without records before the next one, too."""
        while True:
            first = await self.next_ms()
            while self._bare:
                yield self._bare.popleft()
            if first is None or first >= at_ms:
                return
            batch = self._held
            assert batch is not None
            end = len(batch.records)
            if batch.records[-1].offset >= below:
                end = bisect_left(batch.records, below, key=_offset_of)
            cut = next((at for at in range(end) if batch.records[at].timestamp >= at_ms), end)
            if cut == 0:
                return
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


class Lane:
    """One partition on its way through time."""

    def __init__(
        self,
        replay: PartitionReplay,
        rules: Rules,
        cursors: dict[str, TimedCursor],
        notices: Notices,
        begins: dict[str, int],
        ends: dict[str, int],
        place: int,
        quiet: dict[str, int] | None = None,
    ) -> None:
        """`cursors`: of the inputs. `ends`: how far every topic is read.

        `begins`: where recorded topics that the run arranges are read from. `place`: versions of its rows, and
        sequences of what it tells, go on from it.
        """
        self.replay = replay
        self.rules = rules
        self.state: PartitionState = replay.state
        self.cursors = cursors
        self.notices = notices
        self.begins = begins
        self.ends = ends
        self.place = place
        self.quiet = quiet or dict.fromkeys(TOPICS, 0)
        self._letters: list[Letter] = []
        """What ticks within the running step have told."""

    async def begin(self, now_ms: int) -> int:
        """Applies what is in force before any event; returns how many records that was."""
        return await self.notices.take(await self._heads(), now_ms)

    async def read(self, before_ms: int) -> int:
        """Applies what is older; returns how many records that was. Where settings come in between, it ticks."""
        seen = dict.fromkeys(self.cursors, 0)
        count = 0
        while True:
            ahead = self.notices.settings_ahead()
            await self._read_inputs(before_ms, ahead, seen)
            if ahead is None or not await self._has_older(before_ms):
                break
            await self._read_inputs(EVER_MS, ahead, seen)  # what live had counted before them
            count += self.notices.take_settings()
            count += await self.notices.take(await self._heads(), before_ms)
            self._letters += self._ticked(before_ms)
        for topic, found in seen.items():
            self.quiet[topic] = 0 if found else self.quiet[topic] + 1
        return count + sum(seen.values()) + await self.notices.take(await self._heads(), before_ms)

    async def _read_inputs(self, before_ms: int, behind: Applied | None, seen: dict[str, int]) -> None:
        """What is older than a time, and stands before a recorded tick."""
        for topic, cursor in self.cursors.items():
            below = ALL_READ if behind is None else behind.get(topic, 0)
            async for batch in cursor.before(before_ms, below):
                self.state.apply(batch)
                if batch.records:
                    seen[topic] += len(batch.records)
                    self.notices.read[topic] = batch.records[-1].offset + 1
                self.replay.lost += (batch.to_offset - batch.from_offset) if batch.is_lost else 0

    async def _has_older(self, at_ms: int) -> bool:
        first = await self.upcoming_ms()
        return first is not None and first < at_ms

    async def _heads(self) -> Heads:
        return {topic: await cursor.head() for topic, cursor in self.cursors.items()}

    def silent(self) -> tuple[str, ...]:
        """Inputs from which nothing has come for a while."""
        return tuple(topic for topic in INPUT_TOPICS.values() if self.quiet[topic] >= SILENT_STEPS)

    def tick(self, now_ms: int) -> list[Letter]:
        """Ticks, keeps its rows, and returns what the step tells partitions (itself too)."""
        letters, self._letters = [*self._letters, *self._ticked(now_ms)], []
        return letters

    def _ticked(self, now_ms: int) -> list[Letter]:
        state, letters = self.state, []
        changed = self.rules if state.seq == 0 or state.rules != self.rules else None
        tick = Tick("what-if", state.seq + 1, now_ms, state.positions(), silent=self.silent(), rules=changed)
        output = state.tick(tick)
        self.place += 1
        version = version_of(state.log_epoch, self.place)
        self.replay.keep(output, version)
        for _, message in outgoing(output, version):
            if message.topic in (EVIDENCE, VERDICTS):
                to = message.partition
                to = partition_of((message.key or b"").decode(), state.partitions) if to is None else to
                letters.append(Letter(state.partition, to, message.topic, now_ms, message.key, message.value))
        return letters

    async def upcoming_ms(self) -> int | None:
        """Timestamp of the next event; None: everything is read."""
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
        own = {topic: log.snapshot() for topic, log in self.notices.own.items()}
        return SavedLane(own, self.begins, self.place, self.quiet, self.lost)

    @property
    def lost(self) -> int:
        """Offsets that retention had removed before they were read."""
        return self.replay.lost + self.notices.lost

    async def close(self) -> None:
        """Stops fetching."""
        for cursor in self.cursors.values():
            await cursor.close()
        await self.notices.close()
