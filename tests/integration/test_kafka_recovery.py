"""Restarts, retention and compaction of a real broker: what was acknowledged is there, and nothing hangs."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition

from streams.adapters.kafka_checkpoints import KafkaCheckpointStore
from streams.adapters.kafka_client import client_options
from streams.adapters.kafka_journal import KafkaJournal
from streams.adapters.kafka_outbox import KafkaOutbox
from streams.errors import JournalMismatch, Unavailable
from streams.ports import Outgoing
from streams.settings import KafkaSettings
from tests.support.apache_kafka import ApacheKafka, started_or_skipped
from tests.support.brokers import everything_in, new_topic

pytestmark = pytest.mark.kafka

BEFORE, AFTER = 50, 50


@pytest.fixture(scope="module")
def restarted_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheKafka]:
    """A node for this module, whose tests restart it and leave it running."""
    kafka = started_or_skipped(tmp_path_factory.mktemp("restarted") / "data")
    yield kafka
    kafka.stop()


async def insist(action: Callable[[], Awaitable[None]]) -> None:
    """What every caller of a port does: waits and calls again."""
    while True:
        try:
            return await action()
        except Unavailable:
            await asyncio.sleep(0.1)


async def number_while(kafka: ApacheKafka, publish: Callable[[int], Awaitable[None]]) -> None:
    """Publishes numbers in order; the broker is killed in between and comes back while the next is under way."""
    for number in range(BEFORE):
        await publish(number)
    kafka.kill()
    waiting = asyncio.create_task(insist(lambda: publish(BEFORE)))
    await asyncio.sleep(0.2)
    kafka.spawn()
    async with asyncio.timeout(120):
        await waiting
        for number in range(BEFORE + 1, BEFORE + AFTER):
            await insist(lambda number=number: publish(number))  # type: ignore[misc]


async def test_a_journal_outlives_the_broker(restarted_kafka: ApacheKafka) -> None:
    settings = restarted_kafka.settings
    journal = KafkaJournal(settings, 1, await new_topic(settings, partitions=1))
    await journal.start()
    await number_while(restarted_kafka, lambda number: journal.append(0, b"%d" % number))
    values: list[int] = []
    offset = 0
    async with asyncio.timeout(60):
        while not values or values[-1] != BEFORE + AFTER - 1:
            for record in await journal.read(0, offset):
                values.append(int(record.value))
                offset = record.offset + 1
    await journal.stop()
    assert sorted(set(values)) == list(range(BEFORE + AFTER))
    assert values == sorted(values)  # the one under way may stand there twice, but nothing overtakes


async def test_an_outbox_outlives_the_broker(restarted_kafka: ApacheKafka) -> None:
    settings = restarted_kafka.settings
    topic = await new_topic(settings, partitions=1)
    outbox = KafkaOutbox(settings)
    await outbox.start()
    await number_while(restarted_kafka, lambda number: outbox.publish([Outgoing(topic, 0, None, b"%d" % number)]))
    await outbox.stop()
    values = [int(record.value or b"") for record in await everything_in(settings, topic, 0)]
    assert sorted(set(values)) == list(range(BEFORE + AFTER))
    assert values == sorted(values)


async def test_an_orderly_restart_loses_no_manifest(restarted_kafka: ApacheKafka) -> None:
    settings = restarted_kafka.settings
    store = KafkaCheckpointStore(settings, await new_topic(settings), await new_topic(settings))
    await store.start()
    place = await store.put(0, "1:1/panes", b"panes")
    await store.put_manifest(0, "1:1", b"manifest")
    restarted_kafka.stop()
    restarted_kafka.spawn()
    found: list[tuple[str, bytes]] = []

    async def look() -> None:
        found[:] = await store.manifests(0)

    async with asyncio.timeout(120):
        await insist(look)
        assert found == [("1:1", b"manifest")]
        assert await store.get(0, "1:1/panes", place) == b"panes"
    await store.stop()


async def _forget_before(settings: KafkaSettings, topic: str, offset: int) -> None:
    admin = AIOKafkaAdminClient(**client_options(settings))
    await admin.start()
    await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=offset)})
    await admin.close()


async def test_a_tick_that_retention_has_passed_is_a_mismatch(apache_kafka: ApacheKafka) -> None:
    settings = apache_kafka.settings
    topic = await new_topic(settings, partitions=1)
    journal = KafkaJournal(settings, 1, topic)
    await journal.start()
    for number in range(5):
        await journal.append(0, b"%d" % number)
    await _forget_before(settings, topic, 3)
    assert await journal.beginning(0) == 3
    with pytest.raises(JournalMismatch, match=r"worker\.log_epoch"):
        await journal.read(0, 2)
    assert [record.offset for record in await journal.read(0, 3)] == [3, 4]
    await journal.stop()


async def _until_compacted(settings: KafkaSettings, topic: str, store: KafkaCheckpointStore, gone: bytes) -> None:
    """Keeps the log rolling until the cleaner has removed every record of a key."""
    number = 0
    async with asyncio.timeout(120):
        while any((record.key or b"").startswith(gone) for record in await everything_in(settings, topic, 0)):
            number += 1
            await store.put(0, f"filler/{number}", b".")
            await store.put_manifest(0, f"filler/{number}", b".")
            await asyncio.sleep(0.2)


async def test_places_and_manifests_hold_after_compaction(apache_kafka: ApacheKafka) -> None:
    settings = apache_kafka.settings
    compacted = {"cleanup_policy": "compact", "segment_ms": "100", "delete_retention_ms": "0"}
    compacted |= {"min_cleanable_dirty_ratio": "0.001", "max_compaction_lag_ms": "200"}
    segments, manifests = await new_topic(settings, **compacted), await new_topic(settings, **compacted)
    store = KafkaCheckpointStore(settings, segments, manifests)
    await store.start()
    await store.put(0, "1:1/old", b"old" * 100_000)
    place = await store.put(0, "1:1/kept", b"kept" * 300_000)
    await store.put_manifest(0, "old", b"old")
    await store.put_manifest(0, "kept", b"kept")
    await store.delete(0, ["1:1/old", "old"])
    await _until_compacted(settings, segments, store, b"1:1/old\0")
    await _until_compacted(settings, manifests, store, b"old\0")

    assert await store.get(0, "1:1/kept", place) == b"kept" * 300_000
    fresh = KafkaCheckpointStore(settings, segments, manifests)
    await fresh.start()
    kept = [manifest for manifest in await fresh.manifests(0) if not manifest[0].startswith("filler")]
    assert kept == [("kept", b"kept")]
    assert "1:1/old" not in await fresh.segments(0)
    await fresh.stop()
    await store.stop()
