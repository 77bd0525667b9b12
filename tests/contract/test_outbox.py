"""What every outbox promises, and the one partitioner that all producers share."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest
from aiokafka import TopicPartition
from aiokafka.partitioner import DefaultPartitioner, murmur2
from aiokafka.record.memory_records import MemoryRecords

from streams.adapters.kafka_fetch import PartitionReader
from streams.adapters.kafka_outbox import KafkaOutbox
from streams.adapters.memory import MemoryOutbox
from streams.ports import Outbox, Outgoing, RawRecord
from streams.settings import KafkaSettings
from streams.topics import partition_of
from tests.support.brokers import BROKERS, consumer_at, everything_in, new_topic, settings_of

PARTITIONS = 3
YEAR_2023_MS = 1_672_531_200_000

Read = Callable[[int], Awaitable[Sequence[RawRecord]]]


@pytest.fixture(params=["memory", *BROKERS])
def settings(request: pytest.FixtureRequest) -> KafkaSettings | None:
    """Where the outbox delivers; None: in memory."""
    return None if request.param == "memory" else settings_of(request, request.param)


@pytest.fixture
async def topic(settings: KafkaSettings | None) -> str:
    keep = {"retention_ms": "-1", "message_timestamp_before_max_ms": str(2**62)}
    return await new_topic(settings, PARTITIONS, **keep) if settings else "alerts"


@pytest.fixture
async def outbox(settings: KafkaSettings | None) -> AsyncIterator[Outbox]:
    if settings is None:
        yield MemoryOutbox(partitions=PARTITIONS)
        return
    outbox = KafkaOutbox(settings)
    await outbox.start()
    yield outbox
    await outbox.stop()


@pytest.fixture
def read(settings: KafkaSettings | None, topic: str, outbox: Outbox) -> Read:
    """Everything that has arrived in a partition."""

    async def read_partition(partition: int) -> Sequence[RawRecord]:
        if settings is not None:
            return await everything_in(settings, topic, partition)
        assert isinstance(outbox, MemoryOutbox)
        return outbox.log.read(topic, partition, 0, max_records=10**6)

    return read_partition


async def test_nothing_is_published_at_once(outbox: Outbox, topic: str, read: Read) -> None:
    await outbox.publish([])
    assert [list(await read(partition)) for partition in range(PARTITIONS)] == [[], [], []]


async def test_a_record_arrives_with_its_key_value_and_timestamp(outbox: Outbox, topic: str, read: Read) -> None:
    await outbox.publish([Outgoing(topic, 1, b"key", b"value", YEAR_2023_MS + 7)])
    (record,) = await read(1)
    assert (record.offset, record.key, record.value) == (0, b"key", b"value")
    assert record.timestamp == YEAR_2023_MS + 7


async def test_a_tombstone_arrives_as_one(outbox: Outbox, topic: str, read: Read) -> None:
    await outbox.publish([Outgoing(topic, 0, b"key", None)])
    assert [(record.key, record.value) for record in await read(0)] == [(b"key", None)]


async def test_records_keep_their_order_in_each_partition(outbox: Outbox, topic: str, read: Read) -> None:
    messages = [Outgoing(topic, number % PARTITIONS, None, b"%d" % number + b"." * 300) for number in range(9_000)]
    await outbox.publish(messages[:5_000])
    await outbox.publish(messages[5_000:])
    for partition in range(PARTITIONS):
        numbers = [int((record.value or b"").rstrip(b".")) for record in await read(partition)]
        assert numbers == list(range(partition, 9_000, PARTITIONS))


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
async def test_batches_are_compressed_as_the_settings_say_and_every_codec_is_read(
    broker: KafkaSettings, codec: str
) -> None:
    """As producers of the platform send them: no codec is one that a worker cannot read."""
    settings = broker.model_copy(update={"compression_type": codec})
    topic, values = await new_topic(settings, 1), [b"%d" % number + b"." * 300 for number in range(500)]
    outbox = KafkaOutbox(settings)
    await outbox.start()
    await outbox.publish([Outgoing(topic, 0, None, value) for value in values])
    await outbox.stop()
    assert await codecs_in(settings, topic) == {codec}
    assert [record.value for record in await everything_in(settings, topic, 0)] == values
    async with consumer_at(settings, TopicPartition(topic, 0), 0) as consumer:
        read: list[bytes | None] = []
        while len(read) < len(values):
            for records in (await consumer.getmany(timeout_ms=100)).values():
                read += [record.value for record in records]
    assert read == values


async def codecs_in(settings: KafkaSettings, topic: str) -> set[str]:
    """How the batches of a topic's first partition are compressed."""
    reader, found = PartitionReader(settings, topic), set[str]()
    await reader.start()
    batches = MemoryRecords((await reader.fetch_committed(0, 0, 8_388_608, 100)).data)
    while batches.has_next():
        found.add(("none", "gzip", "snappy", "lz4", "zstd")[batches.next_batch().compression_type])
    await reader.stop()
    return found


async def test_keys_choose_the_partition_that_the_topics_module_says(outbox: Outbox, topic: str, read: Read) -> None:
    keys = [f"campaign-{number}" for number in range(200)]
    await outbox.publish([Outgoing(topic, None, key.encode(), b"") for key in keys])
    for partition in range(PARTITIONS):
        arrived = {(record.key or b"").decode() for record in await read(partition)}
        assert arrived == {key for key in keys if partition_of(key, PARTITIONS) == partition}


async def test_records_without_key_or_partition_arrive_somewhere(outbox: Outbox, topic: str, read: Read) -> None:
    for number in range(6):
        await outbox.publish([Outgoing(topic, None, None, b"%d" % number)])
    arrived = [record.value for partition in range(PARTITIONS) for record in await read(partition)]
    assert sorted(value for value in arrived if value) == [b"%d" % number for number in range(6)]


def test_our_partitioner_is_aiokafkas_on_a_thousand_keys() -> None:
    partitions = list(range(12))
    for number in range(1_000):
        key = f"campaign/{number * 7_919}:鑑"
        assert partition_of(key, 12) == DefaultPartitioner()(key.encode(), partitions, partitions)


@pytest.mark.parametrize(
    ("key", "java"),
    [("21", -973932308), ("foobar", -790332482), ("a-little-bit-long-string", -985981536)],
)
def test_the_hash_is_that_of_javas_published_examples(key: str, java: int) -> None:
    assert murmur2(key.encode()) == java % 2**32
    assert partition_of(key, 7) == (java & 0x7FFFFFFF) % 7
