"""What would have been under other rules or settings: ticks of its own, and a source stage that runs anew.

All partitions go through time together, in steps by the records' own timestamps, for evidence crosses campaigns: what
one forwards another reads at its next step. Recorded verdicts are left out, for they followed the old rules; reviews
stay, for people said them.
"""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from streams.adapters.memory import MemoryRecord
from streams.campaigns import CampaignSettings
from streams.jobs.replay_partition import Emit, PartitionReplay, Range, Recorded
from streams.ports import Batch, History, RawRecord
from streams.rules import Rules
from streams.state.journal import Tick, version_of
from streams.state.outgoing import outgoing
from streams.state.partition import TOPICS, PartitionState
from streams.topics import CAMPAIGNS, EVIDENCE, INPUT_TOPICS, VERDICTS, partition_of
from streams.verdicts import Review, decode_word

STEP_MS: Final = 5_000
"""Of the records' timestamps: live ticks come more often, but none of them decides a count."""
SILENT_STEPS: Final = 6
"""An input from which so many steps brought nothing is told as silent."""
SETTLING_STEPS: Final = 4
"""Behind the last record, for what is on its way between partitions."""
OWN_LOGS: Final = (CAMPAIGNS, EVIDENCE, VERDICTS)
"""Topics whose records are arranged anew."""


class Change(NamedTuple):
    """What is different in this run."""

    rules: Rules
    settings: tuple[CampaignSettings, ...] = ()
    """They hold from the beginning on, in the place of what these campaigns had."""


@dataclass
class OwnLog:
    """A topic-partition that the run itself arranges, in the order of its timestamps."""

    records: list[MemoryRecord] = field(default_factory=list)
    position: int = 0

    def append(self, timestamp_ms: int, key: bytes | None, value: bytes | None) -> None:
        """At the end."""
        self.records.append(MemoryRecord(len(self.records), timestamp_ms, key, value))

    def take(self, before_ms: int) -> list[RawRecord]:
        """Records older than this, from where it was left."""
        begin = self.position
        while self.position < len(self.records) and self.records[self.position].timestamp < before_ms:
            self.position += 1
        return list(self.records[begin : self.position])


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

    def __init__(self, state: PartitionState, replay: PartitionReplay) -> None:
        self.state = state
        self.replay = replay
        self.cursors: dict[str, TimedCursor] = {}
        self.own = {topic: OwnLog() for topic in OWN_LOGS}
        self.quiet = dict.fromkeys(TOPICS, 0)

    async def read(self, before_ms: int) -> int:
        """Applies what is older; returns how many records that was."""
        count = 0
        for topic, cursor in self.cursors.items():
            seen = 0
            async for batch in cursor.before(before_ms):
                self.state.apply(batch)
                seen += len(batch.records)
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


async def what_if(
    history: History,
    recorded: dict[int, Recorded],
    log_epoch: int,
    change: Change,
    wanted: Range,
    emit: Emit,
) -> AsyncGenerator[int]:
    """Runs all partitions; tells after each step how many records it has read."""
    lanes = [
        await _lane(history, p, len(recorded), log_epoch, each, change, wanted, emit) for p, each in recorded.items()
    ]
    try:
        events, now_ms, settling = 0, await _first_ms(lanes), SETTLING_STEPS
        for lane in lanes:  # the rules hold, and what was set before, before the first event
            lane.read_own(now_ms)
            _tick(lane, lanes, now_ms, change.rules)
        while settling:
            now_ms += STEP_MS
            for lane in lanes:
                events += await lane.read(now_ms)
            for lane in lanes:
                _tick(lane, lanes, now_ms, change.rules)
                if len(lane.replay.rows) > 100_000:
                    await lane.replay.flush()
            yield events
            upcoming = [at for lane in lanes for c in lane.cursors.values() if (at := await c.next_ms()) is not None]
            settling = SETTLING_STEPS if upcoming else settling - 1
            if upcoming and min(upcoming) > now_ms + STEP_MS * SILENT_STEPS:  # nobody was there: no steps either
                now_ms = min(upcoming) - STEP_MS
        for lane in lanes:
            await lane.replay.flush()
    finally:
        for lane in lanes:
            for cursor in lane.cursors.values():
                await cursor.close()


def _tick(lane: Lane, lanes: Sequence[Lane], now_ms: int, rules: Rules) -> None:
    state = lane.state
    first = rules if state.seq == 0 else None
    tick = Tick("what-if", state.seq + 1, now_ms, state.positions(), silent=lane.silent(), rules=first)
    output = state.tick(tick)
    version = version_of(state.log_epoch, tick.seq)
    lane.replay.keep(output, version)
    for _, message in outgoing(output, version):
        if message.topic in (EVIDENCE, VERDICTS):
            to = message.partition
            to = partition_of((message.key or b"").decode(), len(lanes)) if to is None else to
            lanes[to].own[message.topic].append(now_ms, message.key, message.value)


async def _first_ms(lanes: Sequence[Lane]) -> int:
    upcoming = [at for lane in lanes for c in lane.cursors.values() if (at := await c.next_ms()) is not None]
    return min(upcoming, default=0) // STEP_MS * STEP_MS


async def _lane(
    history: History,
    partition: int,
    partitions: int,
    log_epoch: int,
    recorded: Recorded,
    change: Change,
    wanted: Range,
    emit: Emit,
) -> Lane:
    state = PartitionState(partition, partitions, log_epoch, change.rules)
    lane = Lane(state, PartitionReplay(history, state, wanted, emit))
    ends = recorded.ticks[-1].tick.applied if recorded.ticks else {}
    starts = {topic: 0 if topic in OWN_LOGS else recorded.starts.get(topic, 0) for topic in TOPICS}
    state.begin_at(starts)
    for topic in TOPICS:
        begin, end = recorded.starts.get(topic, 0), ends.get(topic, 0)
        if topic not in OWN_LOGS:
            lane.cursors[topic] = TimedCursor(history, topic, partition, begin, end)
        elif topic != EVIDENCE:
            async with contextlib.aclosing(history.read(topic, partition, begin, max(begin, end))) as ranges:
                records = [record async for batch in ranges for record in batch.records]
            _arrange(lane.own[topic], topic, records, change, partition, partitions)
    return lane


def _arrange(
    log: OwnLog, topic: str, records: Sequence[RawRecord], change: Change, partition: int, partitions: int
) -> None:
    if topic == VERDICTS:
        for record in records:
            if isinstance(decode_word(record.value), Review):
                log.append(record.timestamp, record.key, record.value)
        return
    replaced = {settings.campaign_id.encode() for settings in change.settings}
    for settings in change.settings:
        if partition_of(settings.campaign_id, partitions) == partition:
            log.append(0, settings.campaign_id.encode(), msgspec.json.encode(settings))
    for record in records:
        if record.key not in replaced:
            log.append(record.timestamp, record.key, record.value)
