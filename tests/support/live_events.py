"""Live traffic for end-to-end tests: the product's own generator, and beside it everything that goes wrong.

The odd records (tests.support.events) are garbage, late, from the future, duplicated, in wrong currencies; they go
straight to chosen topic-partitions. Each topic-partition's log is the truth afterwards: what a retry wrote twice
stands in it twice.
"""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, Final

from aiokafka import AIOKafkaProducer

from streams.adapters.clock import SystemClock
from streams.adapters.kafka_client import client_options
from streams.adapters.kafka_outbox import KafkaOutbox
from streams.jobs.generate import (
    TrafficProfile,
    campaign_messages,
    generate_campaigns,
    run_generator,
    traffic_profile,
)
from streams.jobs.load import publish_patiently
from streams.ports import Outgoing
from streams.settings import KafkaSettings
from tests.support.events import EVENT_TOPICS, SETTINGS_TOPIC, Draft, Mix, Traffic

ODD_EVERY_S: Final = 0.1
GIVE_UP_AFTER_S: Final = 90.0
HEADSTART_MS: Final = 150_000
"""The odd records' clocks begin up to two minutes late, and each its own: they begin that much before now."""
MOST_RECORDS: Final = 12
"""Of one transaction."""
ABORTED: Final = b'"event_id":"aborted-'
COMMITTED: Final = b'"event_id":"tx-'
"""How the ids of events begin whose transaction was aborted, or committed."""


class LiveLoad:
    """Traffic at `rate` events/s into all inputs. `expected` tells, by value, the reason why a record is no event."""

    def __init__(self, kafka: KafkaSettings, seed: int, rate: float, odd_per_s: float = 150.0) -> None:
        self.kafka = kafka
        self.seed = seed
        self.rate = rate
        self.odd_per_s = odd_per_s
        self.expected: dict[bytes | None, str] = {}
        self.sent = 0
        self.stopping = False
        self.runs = 0
        self._rng = Random(f"live {seed}")
        started_ms = SystemClock().now_ms() - HEADSTART_MS
        mix = Mix(late=0.15, garbage=0.1, campaigns=6, step_ms=500, lateness_ms=600_000)
        self._odd = Traffic(self._rng, mix, started_ms)

    async def run(self) -> None:
        """Publishes until `stop`; waits out a broker that does not answer. Each run has events of its own."""
        self.stopping = False
        self.runs += 1
        outbox = KafkaOutbox(self.kafka)
        await outbox.start()
        try:
            profile = self._profile()
            await publish_patiently(outbox, campaign_messages(generate_campaigns(profile)), GIVE_UP_AFTER_S)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._odd_records(outbox))
                generated = await run_generator(
                    profile,
                    self.seed + 1_000 * self.runs,
                    outbox,
                    SystemClock(),
                    rate=self.rate,
                    stop=lambda: self.stopping,
                    give_up_after_s=GIVE_UP_AFTER_S,
                )
                self.stop()
            self.sent += generated.delivered
        finally:
            await outbox.stop()

    def stop(self) -> None:
        """Ends the traffic after the batch under way."""
        self.stopping = True

    @staticmethod
    def _profile() -> TrafficProfile:
        return traffic_profile(
            cycle=False,
            compress=5e-4,
            duplicate_share=0.02,
            out_of_order_share=0.05,
            max_redelivery_ms=8_000,
            live_share=0.0,
            users=2_000,
            campaigns=8,
            ad_units_per_campaign=1,
            creatives_per_ad_unit=2,
        )

    async def _odd_records(self, outbox: KafkaOutbox) -> None:
        while not self.stopping:
            await publish_patiently(outbox, self._odd_batch(), GIVE_UP_AFTER_S)
            await asyncio.sleep(ODD_EVERY_S)

    def _odd_batch(self) -> list[Outgoing]:
        batch = []
        for _ in range(round(self.odd_per_s * ODD_EVERY_S)):
            topic, partition = self._rng.choice(EVENT_TOPICS), self._rng.randrange(self.kafka.partitions)
            batch.append(self._outgoing(topic, partition, self._odd.draft(topic, partition)))
        if self._rng.random() < 0.2:
            partition = self._rng.randrange(min(self.kafka.partitions, self._odd.mix.campaigns))
            draft = self._odd.settings(SystemClock().now_ms(), partition, self.kafka.partitions)
            batch.append(self._outgoing(SETTINGS_TOPIC, partition, draft))
        self.sent += len(batch)
        return batch

    def _outgoing(self, topic: str, partition: int, draft: Draft) -> Outgoing:
        if draft.expected:
            self.expected[draft.value] = draft.expected
        return Outgoing(topic, partition, draft.key, draft.value, draft.timestamp)


class TransactionalLoad:
    """Transactions over several inputs, of which a third is aborted: markers, and records that never happened.

    Aborted events hold `ABORTED`, the others `COMMITTED`. `promised` are the values that were acknowledged and of
    which the broker said that they are committed (see `tests.support.transaction_log` for what that is worth).
    """

    def __init__(self, kafka: KafkaSettings, seed: int) -> None:
        self.kafka = kafka
        self.stopping = False
        self.committed = 0
        self.aborted = 0
        self.failed = 0
        self.promised: list[bytes] = []
        self._rng = Random(f"transactions {seed}")
        mix = Mix(garbage=0, campaigns=6, step_ms=500, lateness_ms=600_000)
        self._traffic = Traffic(self._rng, mix, SystemClock().now_ms() - HEADSTART_MS)

    async def run(self) -> None:
        """Transactions until `stop`; a producer that failed is replaced, under the same transactional id."""
        while not self.stopping:
            producer = AIOKafkaProducer(
                **client_options(self.kafka), transactional_id="e2e", transaction_timeout_ms=10_000
            )
            try:
                await producer.start()
                while not self.stopping:
                    await self._transaction(producer)
                    await asyncio.sleep(0.05)
            except Exception:  # the broker restarts: whatever the client raises, the transaction is void
                self.failed += 1
                await asyncio.sleep(0.5)
            finally:
                await _closed(producer.stop)

    def stop(self) -> None:
        """Ends after the transaction under way."""
        self.stopping = True

    async def _transaction(self, producer: AIOKafkaProducer) -> None:
        is_aborted = self._rng.random() < 0.33
        await producer.begin_transaction()
        sent = [await self._send(producer, ABORTED if is_aborted else COMMITTED) for _ in range(self._size())]
        values = [value for value, _ in sent]
        # What failed is not promised; and what the client still tries to send after an abort (flushing is not enough)
        # would stand outside of any transaction, and be committed with the next one.
        await asyncio.gather(*(acknowledged for _, acknowledged in sent))
        if is_aborted:
            await producer.abort_transaction()
            self.aborted += 1
        else:
            await producer.commit_transaction()
            self.committed += 1
            self.promised += values

    def _size(self) -> int:
        return self._rng.randint(1, MOST_RECORDS)

    async def _send(self, producer: AIOKafkaProducer, id_begins: bytes) -> tuple[bytes, Awaitable[Any]]:
        topic, partition = self._rng.choice(EVENT_TOPICS), self._rng.randrange(self.kafka.partitions)
        draft = self._traffic.draft(topic, partition)
        value = (draft.value or b"").replace(b'"event_id":"', id_begins, 1)
        options = {"key": draft.key, "partition": partition, "timestamp_ms": draft.timestamp}
        return value, await producer.send(topic, value, **options)


async def _closed(stop: Callable[[], Awaitable[None]]) -> None:
    try:
        await asyncio.wait_for(stop(), 10)
    except Exception:  # it failed before, and is given up
        return
