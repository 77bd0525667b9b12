"""Bare records: who asks gets what the reader made, with all that a raw record has; others notice nothing."""

from collections.abc import Callable
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import ConsumerRecord

from streams.adapters.kafka_records import BareRecords, bare, offer_bare_records

COUNT = 5


def fetched(kind: type[fetcher.PartitionRecords], deserializer: Callable[..., Any] | None, offset: int = 0) -> Any:
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1_000_000)
    for n in range(COUNT):
        builder.append(n, 1_000 + n, b"k%d" % n, b"v%d" % n if n else None, [])
    records = MemoryRecords(bytes(builder.build()))
    return kind(TopicPartition("t", 0), records, None, offset, None, deserializer, True, 1)


def fields(records: list[Any]) -> list[tuple[Any, ...]]:
    return [(record.offset, record.timestamp, record.key, record.value) for record in records]


@pytest.mark.parametrize("offset", [0, 3])
def test_bare_records_have_the_fields_of_aiokafkas_own(offset: int) -> None:
    plain = list(fetched(fetcher.PartitionRecords, None, offset))
    found = fetched(BareRecords, bare, offset)
    records = list(found)
    assert fields(records) == fields(plain)
    assert len(records) == COUNT - offset
    assert not any(isinstance(record, ConsumerRecord) for record in records)
    assert found.next_fetch_offset == COUNT


def test_a_consumer_that_did_not_ask_gets_aiokafkas_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "PartitionRecords", fetcher.PartitionRecords)
    offer_bare_records()
    assert all(isinstance(record, ConsumerRecord) for record in fetched(fetcher.PartitionRecords, None))


def test_reading_stops_where_the_caller_stops_and_goes_on_there() -> None:
    found = fetched(BareRecords, bare)
    for record in found:
        if record.offset == 1:
            break
    assert found.next_fetch_offset == 2
    assert [record.offset for record in found] == [2, 3, 4]
    assert next(found, None) is None
