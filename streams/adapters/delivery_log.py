"""Reads the logs from which the state of delivery is rebuilt, up to where they ended when the reading began."""

from collections.abc import AsyncIterator
from typing import Final

from streams.adapters.kafka_fetch import Fetched, OffsetOutOfRange, PartitionReader, Record
from streams.errors import BrokerUnavailable
from streams.settings import KafkaSettings

EMPTY_FETCHES: Final = 100
"""A fetch may find nothing although there is something (a broker that starts); so many in a row are an error."""


async def records_since(settings: KafkaSettings, topic: str, since_ms: int = 0) -> AsyncIterator[Record]:
    """Records of all partitions appended since about `since_ms`, partition after partition, in order in each.

    Where records begin is found by halving over the records' own timestamps: a look-up by time is not right on every
    broker. Earlier ones may be among them.

    Raises:
        ConfigurationError: the topic is missing, or credentials are refused.
        BrokerUnavailable: no answer.
    """
    reader = PartitionReader(settings, topic)
    await reader.start()
    try:
        for partition in range(reader.partitions):
            async for record in _partition(reader, topic, partition, since_ms):
                yield record
    finally:
        await reader.stop()


async def _partition(reader: PartitionReader, topic: str, partition: int, since_ms: int) -> AsyncIterator[Record]:
    beginning = await reader.beginning(partition)
    end = (await _fetch(reader, partition, beginning, max_bytes=1)).high_watermark
    offset = await _first_since(reader, partition, beginning, end, since_ms) if since_ms > 0 else beginning
    empty = 0
    while offset < end:
        fetched = await _fetch(reader, partition, offset)
        for record in fetched.records:
            if record.offset < end:
                yield record
        empty = 0 if fetched.next_offset > offset else empty + 1
        offset = fetched.next_offset
        if empty >= EMPTY_FETCHES:
            raise BrokerUnavailable(f"{topic}-{partition} ends at {end} but gives nothing from {offset}; try again")


async def _fetch(reader: PartitionReader, partition: int, offset: int, max_bytes: int = 1_048_576) -> Fetched:
    """Also when retention has passed the offset meanwhile."""
    try:
        return await reader.fetch(partition, offset, max_bytes)
    except OffsetOutOfRange:
        return await reader.fetch(partition, await reader.beginning(partition), max_bytes)


async def _first_since(reader: PartitionReader, partition: int, low: int, high: int, since_ms: int) -> int:
    """An offset before which everything is older. Timestamps may be a little out of order: see `records_since`."""
    while low < high:
        middle = (low + high) // 2
        fetched = await _fetch(reader, partition, middle, max_bytes=1)
        if not fetched.records or fetched.records[0].timestamp >= since_ms:
            high = middle
        else:
            low = middle + 1
    return low
