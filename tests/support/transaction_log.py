"""Which transactional records happened: the markers in the partitions' logs say it, whatever their producer was told.

Written apart from every reader of committed records, for it is what those are checked against. The log decides, and
not the producer: Apache Kafka 4.3.1, stopped while it ended a transaction of aiokafka's, has lost the markers of two
partitions, after it had acknowledged the abort; the next transaction's marker then committed these records for all.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from aiokafka.record.control_record import ABORT_MARKER, ControlRecord
from aiokafka.record.memory_records import MemoryRecords

from streams.adapters.kafka_fetch import PartitionReader
from streams.settings import KafkaSettings
from tests.support.events import RawRecord

FETCH_BYTES: Final = 8_388_608


class Fates(NamedTuple):
    """Values of transactional records by topic, partition and offset."""

    committed: dict[tuple[str, int, int], bytes | None]
    aborted: dict[tuple[str, int, int], bytes | None]


async def fates_in(kafka: KafkaSettings, topics: Iterable[str]) -> Fates:
    """The fate of each transactional record up to the last stable offset."""
    fates = Fates({}, {})
    for topic in topics:
        reader = PartitionReader(kafka, topic)
        await reader.start()
        try:
            for partition in range(kafka.partitions):
                await _judge(reader, topic, partition, fates)
        finally:
            await reader.stop()
    return fates


async def _judge(reader: PartitionReader, topic: str, partition: int, fates: Fates) -> None:
    undecided: dict[int, dict[tuple[str, int, int], bytes | None]] = {}
    offset, end = await reader.beginning(partition), None
    while end is None or offset < end:
        packed = await reader.fetch_committed(partition, offset, FETCH_BYTES, 100)
        end = packed.last_stable_offset
        batches = MemoryRecords(packed.data)
        while batches.has_next():
            batch = batches.next_batch()
            offset = batch.next_offset
            if batch.is_control_batch:
                is_abort = ControlRecord.parse(next(batch).key) == ABORT_MARKER
                decided = fates.aborted if is_abort else fates.committed
                decided.update(undecided.pop(batch.producer_id, {}))
            elif batch.is_transactional:
                held = undecided.setdefault(batch.producer_id, {})
                held.update({(topic, partition, record.offset): record.value for record in batch})
    assert not undecided, f"{topic}-{partition}: a transaction without an end lies before the last stable offset"


def assert_only_committed(fates: Fates, records: Iterable[RawRecord]) -> None:
    """What was read holds every committed transactional record, and none that was aborted."""
    read = {(record.topic, record.partition, record.offset) for record in records}
    assert not read & fates.aborted.keys(), "a record of an aborted transaction was read"
    assert read >= fates.committed.keys(), "a record of a committed transaction was not read"
