"""What the source relies on in aiokafka and the brokers: pinned here, so that an upgrade that changes it is noticed."""

import asyncio
from collections.abc import Iterable

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import OffsetOutOfRangeError

from streams.adapters.embedded_broker import EmbeddedBroker
from streams.adapters.kafka_client import client_options, make_consumer, started, stopped
from streams.adapters.kafka_outbox import KafkaOutbox
from streams.ports import Outgoing
from streams.settings import KafkaSettings
from tests.support.apache_kafka import ApacheKafka
from tests.support.brokers import consumer_at, new_topic

SESSION_TIMEOUT_MS = 2_000


class Member(ConsumerRebalanceListener):
    """One consumer of a group, and the partitions that it was told to hold."""

    def __init__(self, settings: KafkaSettings, group: str, topics: list[str], changed: asyncio.Event) -> None:
        self._changed = changed
        self.held: set[TopicPartition] = set()
        self._settings = settings
        self._topics = topics
        self._consumer = make_consumer(
            settings,
            group_id=group,
            session_timeout_ms=SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=SESSION_TIMEOUT_MS // 5,
            partition_assignment_strategy=(RangePartitionAssignor,),
        )

    async def join(self) -> None:
        await started(self._consumer, self._settings)
        self._consumer.subscribe(topics=self._topics, listener=self)

    async def leave(self) -> None:
        await stopped(self._consumer)

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        self.held -= set(revoked)
        self._changed.set()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self.held |= set(assigned)
        self._changed.set()


async def until(changed: asyncio.Event, members: list[Member], counts: list[int]) -> None:
    async with asyncio.timeout(60):
        while [len(member.held) for member in members] != counts:
            changed.clear()
            await changed.wait()


async def test_two_members_of_a_group_share_the_partitions_of_co_partitioned_topics(broker: KafkaSettings) -> None:
    topics = [await new_topic(broker, partitions=4), await new_topic(broker, partitions=4)]
    changed = asyncio.Event()
    first, second = (Member(broker, f"group-{topics[0]}", topics, changed) for _ in range(2))
    await first.join()
    await until(changed, [first], [8])
    await second.join()
    await until(changed, [first, second], [4, 4])
    assert {tp.partition for tp in first.held} & {tp.partition for tp in second.held} == set()
    await second.leave()
    await until(changed, [first], [8])
    await first.leave()


@pytest.mark.kafka
async def test_a_position_that_the_broker_does_not_hold_raises_again_and_again(apache_kafka: ApacheKafka) -> None:
    tp = TopicPartition(await new_topic(apache_kafka.settings), 0)
    async with consumer_at(apache_kafka.settings, tp, 5) as consumer:
        for _ in range(2):
            with pytest.raises(OffsetOutOfRangeError) as raised:
                await consumer.getmany(timeout_ms=10_000)
            assert raised.value.args == ({tp: 5},)
        consumer.seek(tp, 0)
        assert await consumer.getmany(timeout_ms=100) == {}


async def test_a_position_beyond_the_end_shows_in_the_high_watermark(embedded_broker: EmbeddedBroker) -> None:
    settings = embedded_broker.settings
    tp = TopicPartition(await new_topic(settings), 0)
    async with consumer_at(settings, tp, 5) as consumer:
        async with asyncio.timeout(10):
            while consumer.highwater(tp) is None:
                assert await consumer.getmany(timeout_ms=100) == {}
        assert consumer.highwater(tp) == 0


async def _transactions(settings: KafkaSettings, topic: str) -> None:
    """Offsets 0 to 2 committed, 3 the marker, 4 and 5 aborted, 6 the marker, 7 committed, 8 the marker."""
    options = {**client_options(settings), "transactional_id": f"of-{topic}"}
    producer = await started(AIOKafkaProducer(**options), settings)
    for values, outcome in (([b"0", b"1", b"2"], "commit"), ([b"4", b"5"], "abort"), ([b"7"], "commit")):
        await producer.begin_transaction()
        for value in values:
            await producer.send_and_wait(topic, value, partition=0)
        await (producer.commit_transaction() if outcome == "commit" else producer.abort_transaction())
    await stopped(producer)


async def _polls(consumer: AIOKafkaConsumer, tp: TopicPartition, until_position: int) -> list[list[int]]:
    """Offsets of each poll that returned some, until the consumer stands at a position."""
    polls = []
    async with asyncio.timeout(20):
        while await consumer.position(tp) < until_position:
            fetched = await consumer.getmany(timeout_ms=100, max_records=2)
            polls += [[record.offset for record in records] for records in fetched.values()]
    return polls


@pytest.mark.kafka
async def test_positions_pass_over_markers_and_aborted_records(apache_kafka: ApacheKafka) -> None:
    settings = apache_kafka.settings
    tp = TopicPartition(await new_topic(settings), 0)
    await _transactions(settings, tp.topic)
    async with consumer_at(settings, tp, 0) as consumer:
        assert await _polls(consumer, tp, until_position=9) == [[0, 1], [2, 7]]
        assert await consumer.position(tp) == consumer.highwater(tp) == 9


@pytest.mark.kafka
async def test_old_records_stay_in_topics_that_keep_by_size(apache_kafka: ApacheKafka) -> None:
    """Kafka judges age by the records' own timestamps: a topic of seven days deletes loaded history at once."""
    settings = apache_kafka.settings
    by_age = await new_topic(settings, retention_ms=str(7 * 86_400_000))
    by_size = await new_topic(settings, retention_ms="-1", retention_bytes=str(2**30))
    outbox = KafkaOutbox(settings)
    await outbox.start()
    await outbox.publish([Outgoing(topic, 0, None, b"2013", 1_370_000_000_000) for topic in (by_age, by_size)])
    await outbox.stop()
    async with consumer_at(settings, TopicPartition(by_age, 0), 0) as consumer, asyncio.timeout(60):
        tps = [TopicPartition(topic, 0) for topic in (by_age, by_size)]
        starts = dict.fromkeys(tps, 0)
        while starts[tps[0]] == 0:
            starts = await consumer.beginning_offsets(tps)
        assert starts == {tps[0]: 1, tps[1]: 0}
