"""What every journal promises: the one in memory as the ones in Kafka."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from streams.adapters.kafka_journal import KafkaJournal
from streams.adapters.memory import MemoryJournal
from streams.errors import JournalMismatch
from streams.ports import Journal, JournalRecord
from streams.settings import KafkaSettings
from tests.support.brokers import BROKERS, new_topic, settings_of

PARTITIONS = 2


@pytest.fixture(params=["memory", *BROKERS])
def settings(request: pytest.FixtureRequest) -> KafkaSettings | None:
    """Where the journal lives; None: in memory."""
    return None if request.param == "memory" else settings_of(request, request.param)


@pytest.fixture
async def journal(settings: KafkaSettings | None) -> AsyncIterator[Journal]:
    if settings is None:
        yield MemoryJournal()
        return
    journal = KafkaJournal(settings, PARTITIONS, await new_topic(settings, PARTITIONS))
    await journal.start()
    yield journal
    await journal.stop()


async def read_to(journal: Journal, partition: int, from_offset: int, count: int) -> list[JournalRecord]:
    """Reads on until there are `count` records."""
    records: list[JournalRecord] = []
    async with asyncio.timeout(30):
        while len(records) < count:
            records += await journal.read(partition, from_offset)
            from_offset = records[-1].offset + 1 if records else from_offset
    return records


async def test_an_owner_meets_its_own_record_at_the_next_offset(journal: Journal) -> None:
    for offset in range(5):
        await journal.append(0, b"tick %d" % offset)
        assert await journal.read(0, offset) == [JournalRecord(offset, b"tick %d" % offset)]


async def test_a_new_journal_begins_at_zero_and_is_empty(journal: Journal) -> None:
    assert await journal.beginning(0) == 0
    assert list(await journal.read(0, 0)) == []


async def test_reading_at_the_end_returns_nothing(journal: Journal) -> None:
    await journal.append(0, b"tick")
    assert list(await journal.read(0, 1)) == []


async def test_partitions_are_apart(journal: Journal) -> None:
    await journal.append(0, b"zero")
    await journal.append(1, b"one")
    assert await journal.read(0, 0) == [JournalRecord(0, b"zero")]
    assert await journal.read(1, 0) == [JournalRecord(0, b"one")]


async def test_a_long_journal_is_read_whole_and_in_order(journal: Journal) -> None:
    count = 2_500
    await asyncio.gather(*(journal.append(0, b"%d" % number) for number in range(count)))
    records = await read_to(journal, 0, 0, count)
    assert [record.offset for record in records] == list(range(count))
    assert sorted(int(record.value) for record in records) == list(range(count))


async def test_reading_goes_back_and_into_the_middle(journal: Journal) -> None:
    for number in range(4):
        await journal.append(0, b"%d" % number)
    assert [record.offset for record in await read_to(journal, 0, 0, 4)] == [0, 1, 2, 3]
    assert [record.offset for record in await read_to(journal, 0, 2, 2)] == [2, 3]
    assert [record.value for record in await read_to(journal, 0, 1, 3)] == [b"1", b"2", b"3"]


async def test_partitions_are_read_concurrently(journal: Journal) -> None:
    async def own(partition: int) -> list[bytes]:
        values = []
        for offset in range(50):
            await journal.append(partition, b"%d/%d" % (partition, offset))
            values += [record.value for record in await read_to(journal, partition, offset, 1)]
        return values

    zero, one = await asyncio.gather(own(0), own(1))
    assert zero == [b"0/%d" % offset for offset in range(50)]
    assert one == [b"1/%d" % offset for offset in range(50)]


@pytest.mark.parametrize("offset", [2, 1_000_000])
async def test_an_offset_beyond_the_end_is_a_mismatch(journal: Journal, offset: int) -> None:
    await journal.append(0, b"tick")
    with pytest.raises(JournalMismatch):
        await journal.read(0, offset)


async def test_an_offset_before_the_beginning_is_a_mismatch(journal: Journal) -> None:
    await journal.append(0, b"tick")
    with pytest.raises(JournalMismatch):
        await journal.read(0, -1)
