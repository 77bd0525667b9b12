"""Where a topic's partitions really end: a fetch tells, where a broker's look-up of the latest offset may be wrong."""

from collections.abc import Iterable

from streams.adapters.kafka_fetch import PartitionReader
from streams.settings import KafkaSettings


async def true_ends(settings: KafkaSettings, topic: str, partitions: Iterable[int]) -> dict[int, int]:
    """The high watermark by partition, from the answer to a fetch.

    Raises:
        BrokerUnavailable: no answer in time.
    """
    reader = PartitionReader(settings, topic)
    await reader.start()
    try:
        ends = {}
        for partition in partitions:
            start = await reader.beginning(partition)
            ends[partition] = (await reader.fetch(partition, start, max_bytes=1)).high_watermark
        return ends
    finally:
        await reader.stop()
