"""Topics, and the one partitioner that all producers share."""

import pytest
from aiokafka.partitioner import DefaultPartitioner

from streams.events import Input
from streams.topics import (
    ALLOWANCES,
    CAMPAIGNS,
    CHECKPOINTS,
    CO_PARTITIONED,
    DEAD_LETTERS,
    EVIDENCE,
    INPUT_TOPICS,
    JOURNAL,
    SESSIONS,
    VERDICTS,
    partition_of,
)


def murmur2(data: bytes) -> int:
    """Kafka's hash (org.apache.kafka.common.utils.Utils.murmur2), written out again: 32 bits, not negative."""
    mask, mixed = 0xFFFFFFFF, 0x5BD1E995
    found = (0x9747B28C ^ len(data)) & mask
    whole = len(data) // 4 * 4
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * mixed & mask
        k = (k ^ (k >> 24)) * mixed & mask
        found = (found * mixed & mask) ^ k
    if len(data) > whole:
        found = (found ^ int.from_bytes(data[whole:], "little")) * mixed & mask
    found = (found ^ (found >> 13)) * mixed & mask
    return (found ^ (found >> 15)) & 0x7FFFFFFF


KEYS = ["", "c", "c1", "abc", "abcd", "campaign-2821", "双十一", "x" * 128, "\U0001f6d2"]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("partitions", [1, 3, 4, 64])
def test_a_key_goes_where_javas_partitioner_puts_it(key: str, partitions: int) -> None:
    assert partition_of(key, partitions) == murmur2(key.encode()) % partitions


@pytest.mark.parametrize(("data", "expected"), [(b"21", -973932308), (b"foobar", -790332482), (b"abc", 479470107)])
def test_the_hash_is_kafkas(data: bytes, expected: int) -> None:
    """The values of Kafka's own UtilsTest."""
    assert murmur2(data) == expected & 0x7FFFFFFF


def test_a_producer_with_the_libraries_default_agrees() -> None:
    choose = DefaultPartitioner()
    assert [choose(key.encode(), list(range(7)), list(range(7))) for key in KEYS] == [partition_of(k, 7) for k in KEYS]


def test_keys_are_spread_over_all_partitions() -> None:
    assert {partition_of(f"c{n}", 8) for n in range(200)} == set(range(8))


def test_topics_have_the_names_that_are_stated() -> None:
    assert {source: f"ads.{source.value}" for source in Input} == INPUT_TOPICS
    assert (CAMPAIGNS, JOURNAL, CHECKPOINTS, DEAD_LETTERS) == (
        "ads.campaigns",
        "ads.journal",
        "ads.checkpoints",
        "ads.dead-letters",
    )


def test_inputs_settings_and_journal_have_equal_partitions() -> None:
    assert set(CO_PARTITIONED) == {*INPUT_TOPICS.values(), CAMPAIGNS, SESSIONS, ALLOWANCES, EVIDENCE, VERDICTS, JOURNAL}
