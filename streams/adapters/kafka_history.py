"""What Kafka still holds, for replays and archives: own fetches at exact offsets, in no group, committing nothing.

The next Fetch is under way while the caller computes with the records of the last: the broker works, and its answer
waits in the socket. So there is neither a thread nor a queue, and of each reading at most two answers are in memory.
"""

import asyncio
import struct
from bisect import bisect_left
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from operator import attrgetter
from typing import Any, Final, NamedTuple, TypeVar

import aiokafka.errors as kafka_errors
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED
from aiokafka.record.memory_records import MemoryRecords

from streams.adapters.history_bounds import check_bounds
from streams.adapters.kafka_client import broker_errors
from streams.adapters.kafka_fetch import OffsetOutOfRange, Packed, PartitionReader
from streams.adapters.kafka_records import BareRecords, bare
from streams.errors import BrokerUnavailable, ConfigurationError
from streams.ports import Batch, RawRecord, Span
from streams.settings import KafkaSettings

FETCH_BYTES: Final = 2_097_152
"""Of one answer, unless a single batch is larger."""
SEARCH_BYTES: Final = 8_388_608
MAX_WAIT_MS: Final = 100
PATIENCE_S: Final = 60.0
"""For so long a broker that does not answer is asked again."""
CLOCK_SKEW_MS: Final = 300_000
"""Where a broker answers by append time, a record is looked for from so long before: clocks differ."""
_PAUSE_S: Final = 0.5
_AT_ONCE_MS: Final = 10
"""With 0 Tansu never answers (see `kafka_fetch`)."""
_EMPTY_FETCHES: Final = 100
"""A fetch may find nothing although there is something; so many in a row are an error."""
_HEADER: Final = struct.Struct(">qiibIhiqq")
"""Of a batch: base offset, length, leader epoch, magic, checksum, attributes, last offset delta, first and newest
timestamp."""
_BEFORE_LENGTH: Final = 12
"""Bytes of a batch that its length does not count."""
_CONTROL: Final = 0x20
_LEAST_MAGIC: Final = 2

_offset_of: Final = attrgetter("offset")
T = TypeVar("T")


class _Head(NamedTuple):
    """What the head of a batch tells without decoding it."""

    next_offset: int
    newest_ms: int
    is_control: bool


class KafkaHistory:
    """`streams.ports.History` of a cluster. Opens one connection for each topic, when it is first asked for."""

    def __init__(self, settings: KafkaSettings, *, patience_s: float = PATIENCE_S) -> None:
        self._settings = settings
        self._patience_s = patience_s
        self._readers: dict[str, PartitionReader] = {}
        self._opening = asyncio.Lock()

    async def stop(self) -> None:
        """Closes the connections."""
        readers, self._readers = list(self._readers.values()), {}
        for reader in readers:
            await reader.stop()

    async def partitions(self, topic: str) -> int:
        """How many partitions the topic has.

        Raises:
            ConfigurationError: it is missing, or credentials are refused.
            BrokerUnavailable: nobody answers.
        """
        return (await self._reader(topic)).partitions

    async def span(self, topic: str, partition: int) -> Span:
        """What retention has left, up to the last stable offset."""
        reader = await self._reader(topic)
        while True:
            first = await self._patiently(partial(reader.beginning, partition))
            try:
                fetched = await self._patiently(partial(reader.fetch_committed, partition, first, 1, _AT_ONCE_MS))
            except OffsetOutOfRange:  # retention has passed between the two
                continue
            return Span(first, max(first, fetched.last_stable_offset))

    async def read(self, topic: str, partition: int, from_offset: int, to_offset: int) -> AsyncGenerator[Batch]:
        """Ranges of about `FETCH_BYTES` each, of bare records (offset, timestamp, key, value, headers).

        Raises:
            ConfigurationError: the offsets are in no order or reach beyond what is committed, or the topic has become
                shorter.
            BrokerUnavailable: no answer for `patience_s`.
        """
        reader, span = await self._reader(topic), await self.span(topic, partition)
        check_bounds(topic, partition, from_offset, to_offset, span.next)
        tp = TopicPartition(topic, partition)
        at, ahead = from_offset, _Ahead(lambda offset: self._fetch(reader, partition, offset))
        try:
            while at < to_offset:
                packed = await ahead.take(at)
                if packed is None:  # below what is kept
                    first = min(await self._first_above(reader, tp, at), to_offset)
                    yield Batch(topic, partition, at, first, [], is_lost=True)
                    at = first
                    continue
                end = _heads(packed.data, at)[-1].next_offset
                if end < to_offset:
                    await ahead.begin(end)
                records = _within(_decoded(tp, packed, at), at, to_offset)
                yield Batch(topic, partition, at, min(end, to_offset), records)
                at = end
        finally:
            await ahead.cancel()

    async def offset_at(self, topic: str, partition: int, time_ms: int) -> int:
        """The first committed record of `time_ms` or later, exactly; the end where there is none.

        The broker is asked first. Kafka finds the record by its own timestamp. Tansu answers by the time at which a
        record was appended; so where the timestamp in the answer is not that of the record, the search begins at what
        was appended `CLOCK_SKEW_MS` before, and goes forward over the heads of the batches, which carry their newest
        timestamps (no record is decoded but those of the batch that is found). A producer whose clock is ahead of the
        broker's by more than that can have an earlier such record.
        """
        reader, span = await self._reader(topic), await self.span(topic, partition)
        start = await self._search_start(reader, partition, time_ms)
        if start is None:
            return span.next
        tp = TopicPartition(topic, partition)
        at = max(start, span.first)
        while at < span.next:
            packed = await self._fetch(reader, partition, at, SEARCH_BYTES)
            if packed is None:
                at = await self._first_above(reader, tp, at)
                continue
            heads = _heads(packed.data, at)
            if any(head.newest_ms >= time_ms and not head.is_control for head in heads):
                records = _within(_decoded(tp, packed, at), at, span.next)
                found = next((record.offset for record in records if record.timestamp >= time_ms), None)
                if found is not None:
                    return found
            at = heads[-1].next_offset
        return span.next

    async def _search_start(self, reader: PartitionReader, partition: int, time_ms: int) -> int | None:
        """An offset that no record of `time_ms` or later lies before; None: there is no such record."""
        exact = await self._patiently(lambda: reader.offset_for_time(partition, time_ms))
        if exact is not None and await self._is_by_record(reader, partition, exact.offset, exact.timestamp):
            return exact.offset
        before = await self._patiently(lambda: reader.offset_for_time(partition, max(0, time_ms - CLOCK_SKEW_MS)))
        if before is None:
            return None
        is_trusted = await self._is_by_record(reader, partition, before.offset, before.timestamp)
        return None if exact is None and is_trusted else before.offset

    async def _is_by_record(self, reader: PartitionReader, partition: int, offset: int, timestamp: int) -> bool:
        """Whether a broker's answer names the timestamp that the record itself has."""
        try:
            fetched = await self._patiently(lambda: reader.fetch(partition, offset, 1))
        except OffsetOutOfRange:
            return False
        return bool(fetched.records) and fetched.records[0][:2] == (offset, timestamp)

    async def _reader(self, topic: str) -> PartitionReader:
        async with self._opening:
            if topic not in self._readers:
                reader = PartitionReader(self._settings, topic)
                await reader.start()
                self._readers[topic] = reader
            return self._readers[topic]

    async def _fetch(
        self, reader: PartitionReader, partition: int, offset: int, max_bytes: int = FETCH_BYTES
    ) -> Packed | None:
        """At least one batch; None where retention has passed the offset."""
        for _ in range(_EMPTY_FETCHES):
            try:
                packed = await self._patiently(
                    lambda: reader.fetch_committed(partition, offset, max_bytes, MAX_WAIT_MS)
                )
            except OffsetOutOfRange:
                return None
            if _heads(packed.data, offset):
                return packed
            if await self._patiently(lambda: reader.beginning(partition)) > offset:  # Tansu answers with nothing
                return None
        raise BrokerUnavailable(f"partition {partition} gives nothing from offset {offset} on; try again")

    async def _first_above(self, reader: PartitionReader, tp: TopicPartition, offset: int) -> int:
        first = await self._patiently(lambda: reader.beginning(tp.partition))
        if first <= offset:
            raise ConfigurationError(
                f"{tp.topic}-{tp.partition} has become shorter than {offset}; if the topic was created anew, "
                "begin again, with worker.log_epoch raised"
            )
        return first

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Asks, and again while no broker answers: a long replay outlives a broker's restart."""
        clock = asyncio.get_running_loop().time
        give_up = clock() + self._patience_s
        while True:
            try:
                return await ask()
            except BrokerUnavailable:
                if clock() >= give_up:
                    raise
            await asyncio.sleep(_PAUSE_S)


class _Ahead:
    """At most one fetch that is under way before it is asked for."""

    def __init__(self, fetch: Callable[[int], Awaitable[Packed | None]]) -> None:
        self._fetch = fetch
        self._offset = -1
        self._task: asyncio.Task[Packed | None] | None = None

    async def begin(self, offset: int) -> None:
        """Sends the request: what the broker answers waits in the socket."""
        self._offset = offset
        self._task = asyncio.ensure_future(self._fetch(offset))
        await asyncio.sleep(0)

    async def take(self, offset: int) -> Packed | None:
        """The answer for this offset."""
        task, self._task = self._task, None
        if task is not None and self._offset == offset:
            return await task
        return await self._fetch(offset)

    async def cancel(self) -> None:
        """Forgets what is under way."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _heads(data: bytes, offset: int) -> list[_Head]:
    """The heads of the whole batches that reach beyond `offset`."""
    found, position = [], 0
    while position + _HEADER.size <= len(data):
        base, length, _, magic, _, attributes, last_delta, _, newest_ms = _HEADER.unpack_from(data, position)
        position += _BEFORE_LENGTH + length
        if position > len(data):
            break
        if magic < _LEAST_MAGIC:
            raise ConfigurationError("the topic holds batches older than Kafka 0.11; copy it into a new topic first")
        if base + last_delta >= offset:
            found.append(_Head(base + last_delta + 1, newest_ms, bool(attributes & _CONTROL)))
    return found


def _decoded(tp: TopicPartition, packed: Packed, offset: int) -> list[Any]:
    """The committed records of an answer; those of the first batch may lie before `offset`."""
    with broker_errors(f"reading {tp.topic}-{tp.partition}"):
        if packed.aborted:
            data = MemoryRecords(packed.data)
            return list(BareRecords(tp, data, packed.aborted, offset, None, bare, True, READ_COMMITTED))
        records: list[Any] = []
        batches = MemoryRecords(packed.data)
        while batches.has_next():
            batch = batches.next_batch()
            if not batch.validate_crc():
                raise kafka_errors.CorruptRecordException("a batch fails its checksum")
            if not batch.is_control_batch:
                records.extend(batch)
        return records


def _within(records: list[Any], from_offset: int, to_offset: int) -> list[RawRecord]:
    """Those of [from_offset, to_offset)."""
    if records and (records[0].offset < from_offset or records[-1].offset >= to_offset):
        first, last = (bisect_left(records, at, key=_offset_of) for at in (from_offset, to_offset))
        return records[first:last]
    return records
