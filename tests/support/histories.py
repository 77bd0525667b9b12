"""One log, written the same way into memory and brokers, so that their histories can be held against each other."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from streams.adapters.kafka_client import client_options, make_producer, started, stopped
from streams.adapters.kafka_ends import true_ends
from streams.adapters.memory import MemoryLog
from streams.ports import History, RawRecord
from streams.settings import KafkaSettings

TOPIC = "ads.clicks"


class Put(NamedTuple):
    """A record in partition 0."""

    timestamp: int
    value: bytes | None = b"v"
    key: bytes | None = None


class Hole(NamedTuple):
    """Offsets that hold no committed record; at least 2 (on Kafka: an aborted transaction and its marker)."""

    offsets: int


Step = Put | Hole


def in_memory(steps: Sequence[Step], log: MemoryLog | None = None) -> MemoryLog:
    """The steps, in partition 0 of `TOPIC`."""
    log = log or MemoryLog()
    for step in steps:
        if isinstance(step, Hole):
            log.skip(TOPIC, 0, step.offsets)
        else:
            log.append(TOPIC, 0, step.value, key=step.key, timestamp_ms=step.timestamp)
    return log


async def on_broker(settings: KafkaSettings, topic: str, steps: Sequence[Step]) -> None:
    """The steps, in partition 0 of `topic`."""
    producer = await started(make_producer(settings), settings)
    try:
        runs: list[list[Put]] = [[]]
        for step in steps:
            if isinstance(step, Put):
                runs[-1].append(step)
                continue
            await _send(producer, topic, runs[-1])
            runs.append([])
            await _abort(settings, topic, step.offsets - 1)
        await _send(producer, topic, runs[-1])
    finally:
        await stopped(producer)


async def _send(producer: AIOKafkaProducer, topic: str, steps: Sequence[Put]) -> None:
    sent = [
        await producer.send(topic, step.value, key=step.key, partition=0, timestamp_ms=step.timestamp) for step in steps
    ]
    for each in sent:
        await each


async def _abort(settings: KafkaSettings, topic: str, records: int) -> None:
    producer = AIOKafkaProducer(**client_options(settings), transactional_id=f"of-{topic}")
    await started(producer, settings)
    begin = await _end(settings, topic)
    try:
        await producer.begin_transaction()
        for _ in range(records):
            await producer.send_and_wait(topic, b"aborted", partition=0, timestamp_ms=1)
        await producer.abort_transaction()
        await _until_marked(settings, topic, begin + records + 1)
    finally:
        await stopped(producer)


async def _end(settings: KafkaSettings, topic: str) -> int:
    return (await true_ends(settings, topic, [0]))[0]


async def _until_marked(settings: KafkaSettings, topic: str, end: int) -> None:
    """The coordinator writes the marker a little after it has answered."""
    async with asyncio.timeout(30):
        while True:
            if await _end(settings, topic) >= end:
                return
            await asyncio.sleep(0.01)


async def forget_before(settings: KafkaSettings, topic: str, offset: int) -> None:
    """What retention does, at once."""
    admin = AIOKafkaAdminClient(**client_options(settings))
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=offset)})
    finally:
        await admin.close()


Plain = tuple[int, int, bytes | None, bytes | None]


def plain(record: RawRecord) -> Plain:
    """What a record is, whatever holds it."""
    return record.offset, record.timestamp, record.key, record.value


class Told(NamedTuple):
    """What a history told of a range."""

    records: list[Plain]
    lost: list[tuple[int, int]]


async def told(history: History, topic: str, from_offset: int, to_offset: int, partition: int = 0) -> Told:
    """Reads a range, and checks that the ranges adjoin and hold what they say."""
    found, lost, at = Told([], []), [], from_offset
    async for batch in history.read(topic, partition, from_offset, to_offset):
        assert (batch.topic, batch.partition, batch.from_offset) == (topic, partition, at)
        assert batch.to_offset > at
        offsets = [record.offset for record in batch.records]
        assert offsets == sorted(set(offsets))
        assert all(at <= offset < batch.to_offset for offset in offsets)
        assert not (batch.is_lost and offsets)
        if batch.is_lost:
            lost.append((at, batch.to_offset))
        found.records.extend(map(plain, batch.records))
        at = batch.to_offset
    assert at == to_offset
    return Told(found.records, _joined(lost))


def _joined(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for begin, end in ranges:
        if joined and joined[-1][1] == begin:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((begin, end))
    return joined
