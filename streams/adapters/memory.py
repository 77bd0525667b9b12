"""Fakes of the ports that ship: for simulation, tests and embedding. They pass the contract tests of the real ones.

Nothing here awaits, sleeps or needs an event loop, so a deterministic scheduler can drive them.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from operator import attrgetter
from typing import NamedTuple

from streams.adapters.history_bounds import check_bounds, missing_topic
from streams.errors import CorruptCheckpoint, JournalMismatch
from streams.ports import Batch, JournalRecord, Outgoing, Span
from streams.topics import partition_of

MAX_READ_RECORDS = 1_000
DEFAULT_PARTITIONS = 4


class MemoryRecord(NamedTuple):
    """A `streams.ports.RawRecord`."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


class OffsetOutOfRange(Exception):
    """The log does not hold this offset."""


_offset = attrgetter("offset")


class MemoryLog:
    """Topics as Kafka keeps them: partitions of records at rising offsets, with gaps and a beginning that moves."""

    def __init__(self) -> None:
        self._records: defaultdict[tuple[str, int], list[MemoryRecord]] = defaultdict(list)
        self._beginning: defaultdict[tuple[str, int], int] = defaultdict(int)
        self._end: defaultdict[tuple[str, int], int] = defaultdict(int)

    def append(
        self, topic: str, partition: int, value: bytes | None, *, key: bytes | None = None, timestamp_ms: int = 0
    ) -> int:
        """Appends and returns the record's offset."""
        place = (topic, partition)
        offset = self._end[place]
        self._records[place].append(MemoryRecord(offset, timestamp_ms, key, value))
        self._end[place] = offset + 1
        return offset

    def skip(self, topic: str, partition: int, offsets: int = 1) -> None:
        """Leaves offsets without records, as transaction markers and compaction do."""
        self._end[topic, partition] += offsets

    def trim(self, topic: str, partition: int, before_offset: int) -> None:
        """Retention: forgets everything below `before_offset` (at most up to the end)."""
        place = (topic, partition)
        self._beginning[place] = min(max(self._beginning[place], before_offset), self._end[place])
        self._records[place] = [r for r in self._records[place] if r.offset >= self._beginning[place]]

    def partitions(self, topic: str) -> int:
        """One more than the highest partition that has held anything."""
        return max((partition + 1 for name, partition in self._end if name == topic), default=0)

    def beginning(self, topic: str, partition: int) -> int:
        """The first offset that is kept."""
        return self._beginning[topic, partition]

    def end(self, topic: str, partition: int) -> int:
        """The offset behind the last: the high watermark."""
        return self._end[topic, partition]

    def read(
        self, topic: str, partition: int, from_offset: int, max_records: int = MAX_READ_RECORDS
    ) -> list[MemoryRecord]:
        """Up to `max_records` records at or after `from_offset`.

        Raises:
            OffsetOutOfRange: it lies before the beginning or beyond the end.
        """
        place = (topic, partition)
        if not self._beginning[place] <= from_offset <= self._end[place]:
            raise OffsetOutOfRange(f"{topic}-{partition} holds {self._beginning[place]} to {self._end[place]}")
        records = self._records[place]
        first = bisect_left(records, from_offset, key=_offset)
        return records[first : first + max_records]


class MemoryHistory:
    """`streams.ports.History` over a `MemoryLog`."""

    def __init__(self, log: MemoryLog, max_records: int = MAX_READ_RECORDS) -> None:
        self.log = log
        self._max_records = max_records

    async def partitions(self, topic: str) -> int:
        """How many partitions the topic has.

        Raises:
            ConfigurationError: nothing was ever appended to it.
        """
        return self.log.partitions(topic) or missing_topic(topic)

    async def span(self, topic: str, partition: int) -> Span:
        """From the beginning, which `trim` moves, to the end."""
        return Span(self.log.beginning(topic, partition), self.log.end(topic, partition))

    async def read(self, topic: str, partition: int, from_offset: int, to_offset: int) -> AsyncGenerator[Batch]:
        """Ranges of at most `max_records` records.

        Raises:
            ConfigurationError: the offsets are in no order, or reach beyond the end.
        """
        check_bounds(topic, partition, from_offset, to_offset, self.log.end(topic, partition))
        at = from_offset
        while at < to_offset:
            first = self.log.beginning(topic, partition)
            if at < first:
                end = min(first, to_offset)
                yield Batch(topic, partition, at, end, [], is_lost=True)
            else:
                found = self.log.read(topic, partition, at, self._max_records)
                records = [record for record in found if record.offset < to_offset]
                is_rest = len(records) < len(found) or len(found) < self._max_records
                end = to_offset if is_rest else records[-1].offset + 1
                yield Batch(topic, partition, at, end, list(records))
            at = end

    async def offset_at(self, topic: str, partition: int, time_ms: int) -> int:
        """The first offset whose record is of `time_ms` or later; the end where none is."""
        at = self.log.beginning(topic, partition)
        while found := self.log.read(topic, partition, at):
            for record in found:
                if record.timestamp >= time_ms:
                    return record.offset
            at = found[-1].offset + 1
        return self.log.end(topic, partition)


class MemoryJournal:
    """`streams.ports.Journal` in memory."""

    _TOPIC = "journal"

    def __init__(self) -> None:
        self.log = MemoryLog()

    async def beginning(self, partition: int) -> int:
        """The first offset that can still be read."""
        return self.log.beginning(self._TOPIC, partition)

    async def append(self, partition: int, value: bytes) -> None:
        """Appends."""
        self.log.append(self._TOPIC, partition, value)

    async def read(self, partition: int, from_offset: int) -> Sequence[JournalRecord]:
        """Some records at or after `from_offset`, in order; none at the end (it does not wait).

        Raises:
            JournalMismatch: `from_offset` lies before the beginning or beyond the end.
        """
        try:
            records = self.log.read(self._TOPIC, partition, from_offset)
        except OffsetOutOfRange as error:
            raise JournalMismatch(f"{error}, not {from_offset}; start from an empty checkpoint store") from error
        return [JournalRecord(record.offset, record.value or b"") for record in records]

    def trim(self, partition: int, before_offset: int) -> None:
        """Retention passes."""
        self.log.trim(self._TOPIC, partition, before_offset)

    def end(self, partition: int) -> int:
        """The offset that the next append gets."""
        return self.log.end(self._TOPIC, partition)


class MemoryCheckpointStore:
    """`streams.ports.CheckpointStore` in memory. `data` and `named` may be tampered with to simulate damage."""

    def __init__(self) -> None:
        self.data: dict[tuple[int, str], bytes] = {}
        """Segments by partition and key."""
        self.named: dict[int, dict[str, bytes]] = defaultdict(dict)
        """Manifests by partition and key, oldest first."""

    async def put(self, partition: int, key: str, data: bytes) -> str:
        """Stores a segment; its place is its size in bytes."""
        self.data[partition, key] = data
        return str(len(data))

    async def get(self, partition: int, key: str, place: str) -> bytes:
        """The segment's bytes.

        Raises:
            CorruptCheckpoint: it is not there, or of another size.
        """
        data = self.data.get((partition, key))
        if data is None or str(len(data)) != place:
            raise CorruptCheckpoint(f"segment {key} is missing or not whole; an older checkpoint is tried")
        return data

    async def put_manifest(self, partition: int, key: str, data: bytes) -> None:
        """Stores a manifest."""
        self.named[partition][key] = data

    async def manifests(self, partition: int) -> Sequence[tuple[str, bytes]]:
        """Every manifest (key, bytes) not deleted, oldest first."""
        return list(self.named[partition].items())

    async def delete(self, partition: int, keys: Sequence[str]) -> None:
        """Forgets segments or manifests; unknown keys are ignored."""
        for key in keys:
            self.data.pop((partition, key), None)
            self.named[partition].pop(key, None)

    async def segments(self, partition: int) -> Sequence[str]:
        """Keys of all segments that are not deleted, oldest first."""
        return [key for owner, key in self.data if owner == partition]


class MemoryOutbox:
    """`streams.ports.Outbox` in memory: records go to a `MemoryLog`, which others may read."""

    def __init__(self, log: MemoryLog | None = None, partitions: int = DEFAULT_PARTITIONS) -> None:
        self.log = log or MemoryLog()
        self._partitions = partitions
        self._calls = 0

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        """Appends every message, in order per partition."""
        self._calls += 1
        for message in messages:
            self.log.append(
                message.topic,
                self._partition_of(message),
                message.value,
                key=message.key,
                timestamp_ms=message.timestamp_ms or 0,
            )

    def _partition_of(self, message: Outgoing) -> int:
        if message.partition is not None:
            return message.partition
        if message.key is None:
            return self._calls % self._partitions
        return partition_of(message.key.decode(errors="surrogateescape"), self._partitions)
