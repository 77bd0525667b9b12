"""Reads all inputs with a consumer of our own and puts whole ranges onto the channel, in order with the assignment.

It tracks fetched ranges itself: what a range skips is known. Kafka's committed offsets only inform others.
"""

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

import faust
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from streams.adapters.kafka_client import broker_errors, make_consumer, started, stopped
from streams.adapters.kafka_ends import true_ends
from streams.adapters.kafka_records import bare, offer_bare_records
from streams.agents.items import Assigned, Revoked
from streams.agents.keeper import Keeper
from streams.errors import Unavailable
from streams.settings import Settings
from streams.state.inputs import Batch
from streams.state.partition import TOPICS
from streams.topics import CAMPAIGNS

log = logging.getLogger(__name__)

POLL_MS = 100
GATHER_S = 0.02
"""Between two fetches, while nothing waits."""
SATURATED_S = 0.05
BEHIND_FETCHES = 20
COMMIT_S = 5.0
RETRY_S = 1.0
LEAVE_S = 5.0
"""At shutdown, for leaving the group; without a goodbye, Kafka waits for the session to time out."""


class Source(faust.Service):
    """The consumer of this worker. Assignment by Kafka's group, or all partitions."""

    def __init__(self, settings: Settings, keeper: Keeper, inlet: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings = settings
        self.keeper = keeper
        self.inlet = inlet
        self.records = 0
        self.mine: frozenset[int] | None = None
        """Partitions that this worker is to own; None until Kafka has told."""
        self.fetched_at: dict[TopicPartition, float] = {}
        self._full_fetches = 0
        self._next: dict[TopicPartition, int] = {}
        self._seeks: dict[TopicPartition, int] = {}
        self._consumer: AIOKafkaConsumer | None = None
        keeper.seek = self.seek
        keeper.silent_topics = self.silent_topics
        keeper.is_catching_up = lambda: self.is_behind

    async def on_start(self) -> None:
        """Connects; the assignment follows."""
        kafka = self.settings.kafka
        grouped = kafka.assignment == "group"
        offer_bare_records()
        self._consumer = await started(
            make_consumer(
                kafka,
                value_deserializer=bare,
                group_id=kafka.group_id if grouped else None,
                partition_assignment_strategy=(RangePartitionAssignor,),
                session_timeout_ms=kafka.session_timeout_ms,
                heartbeat_interval_ms=max(200, kafka.session_timeout_ms // 5),
                max_partition_fetch_bytes=2_097_152,
                fetch_max_wait_ms=50,
            ),
            kafka,
        )
        if grouped:
            self._consumer.subscribe(topics=list(TOPICS), listener=_Listener(self))
        else:
            self.add_future(self._take_all())

    async def on_stop(self) -> None:
        """Gives the partitions up in order: the group hears of it at once."""
        try:
            await asyncio.wait_for(stopped(self._consumer), LEAVE_S)
        except TimeoutError:
            log.warning("Kafka did not hear in time that this worker leaves its group")

    async def _take_all(self) -> None:
        everything = [TopicPartition(topic, p) for topic in TOPICS for p in range(self.keeper.config.partitions)]
        assert self._consumer is not None
        self._consumer.assign(everything)
        self._consumer.pause(*everything)
        await self.assigned(everything)
        self._consumer.resume(*everything)

    # Assignment

    async def assigned(self, partitions: Iterable[TopicPartition]) -> None:
        """Has the owners opened, and seeks to where they go on."""
        mine = sorted({tp.partition for tp in partitions})
        self.mine = frozenset(mine)
        if not mine or self._consumer is None:
            return
        all_of = [TopicPartition(topic, p) for topic in TOPICS for p in mine]
        starts, ends = await self._bounds(all_of, mine)
        item = Assigned(
            frozenset(mine),
            {p: {t: starts[TopicPartition(t, p)] for t in TOPICS} for p in mine},
            ends,
        )
        await self.inlet.put(item)
        await item.done.wait()
        for p in self.keeper.owners.keys() & set(mine):
            for topic, offset in self.keeper.owners[p].expected.items():
                self._seek_now(TopicPartition(topic, p), offset)

    async def _bounds(
        self, all_of: list[TopicPartition], mine: list[int]
    ) -> tuple[dict[TopicPartition, int], dict[int, int]]:
        while True:
            try:
                with broker_errors("looking up offsets"):
                    assert self._consumer is not None
                    starts = await self._consumer.beginning_offsets(all_of)
                return starts, await true_ends(self.settings.kafka, CAMPAIGNS, mine)
            except Unavailable as error:
                log.warning("%s; trying again", error)
                await asyncio.sleep(RETRY_S)

    async def revoked(self, partitions: Iterable[TopicPartition]) -> None:
        """Waits until the owners have written their last checkpoints."""
        self.mine = None
        gone = frozenset(tp.partition for tp in partitions)
        if gone:
            item = Revoked(gone)
            await self.inlet.put(item)
            await item.done.wait()
            self._next = {tp: at for tp, at in self._next.items() if tp.partition not in gone}

    @property
    def is_behind(self) -> bool:
        """Whether fetches keep being full: much waits in Kafka. A burst of live traffic is not that."""
        return self._full_fetches > BEHIND_FETCHES // 2

    def seek(self, topic: str, partition: int, offset: int) -> None:
        """Asks for a topic-partition to be read again from an offset."""
        self._seeks[TopicPartition(topic, partition)] = offset

    def _seek_now(self, tp: TopicPartition, offset: int) -> None:
        assert self._consumer is not None
        if tp in self._consumer.assignment():
            self._consumer.seek(tp, offset)
            self._next[tp] = offset
            self.fetched_at[tp] = asyncio.get_running_loop().time()

    def silent_topics(self, partition: int) -> list[str]:
        """Topics of a partition from which nothing has come for a while."""
        before = asyncio.get_running_loop().time() - self.settings.worker.silent_ms / 1000
        return [t for t in TOPICS if self.fetched_at.get(TopicPartition(t, partition), 0.0) < before]

    # Fetching

    @faust.Service.task
    async def pull(self) -> None:
        """Fetches until the service stops; a lost connection is waited out."""
        while not self.should_stop:
            try:
                await self._pull_once()
            except OffsetOutOfRangeError as error:
                await self._beyond_retention(error)
            except (KafkaError, Unavailable) as error:
                log.warning("fetching: %s; trying again", error)
                await self.sleep(RETRY_S)

    async def _pull_once(self) -> None:
        consumer = self._consumer
        if consumer is None or self.keeper.is_saturated or not self._next:
            await self.sleep(SATURATED_S)
            return
        self._follow_owners(consumer)
        fetched = await consumer.getmany(timeout_ms=POLL_MS, max_records=self.settings.worker.max_batch_records)
        now = asyncio.get_running_loop().time()
        is_full = sum(map(len, fetched.values())) >= self.settings.worker.max_batch_records
        self._full_fetches = min(self._full_fetches + 1, BEHIND_FETCHES) if is_full else max(0, self._full_fetches - 1)
        for tp, records in fetched.items():
            if tp in self._next and records:
                self.fetched_at[tp] = now
                self.records += len(records)
                await self._put(tp, records)
        await self._put_what_holds_no_record(consumer)
        if not is_full:  # few large ranges cost much less than many small ones
            await self.sleep(GATHER_S)

    def _follow_owners(self, consumer: AIOKafkaConsumer) -> None:
        for tp, offset in list(self._seeks.items()):
            self._seek_now(tp, offset)
            del self._seeks[tp]
        paused = consumer.paused()
        for tp in consumer.assignment():
            owner = self.keeper.owners.get(tp.partition)
            wanted = owner is not None and owner.wants(tp.topic)
            if wanted and tp in paused:
                consumer.resume(tp)
            elif not wanted and tp not in paused:
                consumer.pause(tp)

    async def _put(self, tp: TopicPartition, records: list[Any]) -> None:
        first = self._next[tp]
        if records[0].offset < first:  # fetched before a seek took hold
            records = [record for record in records if record.offset >= first]
            if not records:
                return
        self._next[tp] = records[-1].offset + 1
        await self.inlet.put(Batch(tp.topic, tp.partition, first, records[-1].offset + 1, records))

    async def _put_what_holds_no_record(self, consumer: AIOKafkaConsumer) -> None:
        """Transaction markers and compacted offsets at the end of what can be read."""
        for tp, at in list(self._next.items()):
            if tp in self._seeks or tp not in consumer.assignment():
                continue
            position = await consumer.position(tp)
            if position > at and self._next.get(tp) == at and tp not in self._seeks:
                self._next[tp] = position
                await self.inlet.put(Batch(tp.topic, tp.partition, at, position, []))

    async def _beyond_retention(self, error: OffsetOutOfRangeError) -> None:
        """Records that retention has removed before they were read: the ledger says how many."""
        assert self._consumer is not None
        tps = [tp for tp in self._next if tp in self._consumer.assignment()]
        starts = await self._consumer.beginning_offsets(tps)
        lost = {tp: start for tp, start in starts.items() if self._next[tp] < start}
        if not lost:
            log.error("fetching: %s; the topics are shorter than what was read: were they created anew?", error)
            await self.sleep(RETRY_S)
        for tp, start in lost.items():
            log.error("%s: offsets %d to %d were removed before they were read", tp, self._next[tp], start)
            await self.inlet.put(Batch(tp.topic, tp.partition, self._next[tp], start, [], is_lost=True))
            self._seek_now(tp, start)

    @faust.Service.task
    async def commit(self) -> None:
        """Tells Kafka's tools how far we are; nothing of ours reads it back."""
        while not self.should_stop:
            await self.sleep(COMMIT_S)
            if self.settings.kafka.assignment != "group" or self._consumer is None:
                continue
            offsets = {
                tp: self.keeper.owners[tp.partition].state.position(tp.topic)
                for tp in self._consumer.assignment()
                if tp.partition in self.keeper.owners
            }
            try:
                if offsets:
                    await self._consumer.commit(offsets)
            except KafkaError as error:
                log.info("committing offsets for others to see: %s", error)

    def highwater(self, topic: str, partition: int) -> int | None:
        """The end of a topic-partition as last heard of, for the lag."""
        tp = TopicPartition(topic, partition)
        if self._consumer is None or tp not in self._consumer.assignment():
            return None
        end = self._consumer.highwater(tp)
        return int(end) if end is not None else None


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Kafka's group tells; the source carries it out before the group goes on."""

    def __init__(self, source: Source) -> None:
        self.source = source

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        await self.source.revoked(revoked)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        await self.source.assigned(assigned)
