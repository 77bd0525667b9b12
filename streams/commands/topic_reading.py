"""Reads a whole topic, partition after partition, up to where it ended when the reading began."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Final

from streams.adapters.kafka_fetch import OffsetOutOfRange, PartitionReader, Record
from streams.errors import BrokerUnavailable
from streams.settings import KafkaSettings

EMPTY_FETCHES: Final = 100
"""A fetch may find nothing although there is something (a broker that starts); so many in a row are an error."""

PlacedRecord = tuple[int, Record]
"""Partition and record."""


@asynccontextmanager
async def whole_topic(settings: KafkaSettings, topic: str) -> AsyncIterator[AsyncIterator[PlacedRecord]]:
    """`async with whole_topic(…) as records: async for partition, record in records: …`

    Records that are appended meanwhile are left out, so that it ends.

    Raises:
        ConfigurationError: the topic is missing, or credentials are refused.
        BrokerUnavailable: no answer.
    """
    reader = PartitionReader(settings, topic)
    await reader.start()
    try:
        async with aclosing(_records(reader, topic)) as records:
            yield records
    finally:
        await reader.stop()


async def _records(reader: PartitionReader, topic: str) -> AsyncGenerator[PlacedRecord]:
    for partition in range(reader.partitions):
        offset, end, empty = await reader.beginning(partition), -1, 0
        while end < 0 or offset < end:
            try:
                fetched = await reader.fetch(partition, offset)
            except OffsetOutOfRange:  # retention has passed meanwhile
                offset = await reader.beginning(partition)
                continue
            end = fetched.high_watermark if end < 0 else end
            for record in fetched.records:
                if record.offset < end:
                    yield partition, record
            empty = 0 if fetched.next_offset > offset else empty + 1
            offset = fetched.next_offset
            if empty >= EMPTY_FETCHES:
                raise BrokerUnavailable(f"{topic}-{partition} ends at {end} but gives nothing from {offset}; try again")
