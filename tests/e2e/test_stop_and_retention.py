"""SIGTERM ends a worker in order; what retention took while it was away is told, and nothing else changes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from streams.adapters.directory_checkpoints import DirectoryCheckpointStore
from streams.adapters.embedded_broker import EmbeddedBroker
from streams.adapters.kafka_admin import create_topics
from streams.adapters.kafka_checkpoints import KafkaCheckpointStore
from streams.adapters.kafka_client import client_options
from streams.ports import CheckpointStore
from streams.settings import KafkaSettings
from streams.state.checkpoint import decode_manifest
from tests.support.apache_kafka import ApacheKafka
from tests.support.live_events import LiveLoad
from tests.support.oracle import Lost, ticks_of
from tests.support.seeds import seed_of
from tests.support.totals import (
    as_applied,
    assert_equal_to_oracle,
    ends_of,
    read_directory,
    read_journals,
    read_logs,
    summary,
    until_drained,
)
from tests.support.worker_process import WorkerProcess, worker_settings

RATE = 800.0
LOAD_S = 4.0
ENDS_WITHIN_S = 60.0
FEW_TICKS = 3
ONLY_AT_THE_END = {"WORKER__CHECKPOINT_MS": "600000"}
"""The first tick is checkpointed, and then only an orderly end can have written another."""


@asynccontextmanager
async def _worker(directory: Path, kafka: KafkaSettings, **more: str) -> AsyncIterator[WorkerProcess]:
    settings = worker_settings(directory, kafka, f"chdb://{directory / 'clickhouse'}", **more)
    worker = WorkerProcess(directory, settings)
    try:
        yield worker
    finally:
        worker.close()


async def _loaded(kafka: KafkaSettings, load: LiveLoad, seconds: float = LOAD_S) -> None:
    traffic = asyncio.create_task(load.run())
    await asyncio.sleep(seconds)
    load.stop()
    await traffic


async def _ticks_behind_the_checkpoints(kafka: KafkaSettings, store: CheckpointStore) -> list[int]:
    """How many ticks a restart would have to repeat, by partition."""
    counts = []
    for partition, journal in (await read_journals(kafka)).items():
        manifests = [decode_manifest(data) for _, data in await store.manifests(partition)]
        newest = max(manifest.journal_offset for manifest in manifests)
        counts.append(sum(tick.offset > newest for tick in ticks_of(journal)))
    return counts


@pytest.mark.slow
async def test_sigterm_under_load_ends_in_order_and_the_next_start_goes_on(tmp_path: Path) -> None:
    seed = seed_of("sigterm")
    async with EmbeddedBroker() as broker:
        kafka = broker.settings
        await create_topics(kafka)
        embedded = {"KAFKA__ASSIGNMENT": "all", "WORKER__CHECKPOINT_STORE": "directory", **ONLY_AT_THE_END}
        async with _worker(tmp_path, kafka, **embedded) as worker:
            await worker.start().until_owning(4)
            load = LiveLoad(kafka, seed, RATE)
            traffic = asyncio.create_task(load.run())
            await asyncio.sleep(LOAD_S)
            assert await worker.terminate(ENDS_WITHIN_S) == 0, worker.output()[-3000:]
            store = DirectoryCheckpointStore(tmp_path / "state" / "checkpoints-0")
            assert max(await _ticks_behind_the_checkpoints(kafka, store)) <= FEW_TICKS
            await worker.start().until_owning(4)
            load.stop()
            await traffic
            await until_drained(kafka, [worker.status])
            assert await worker.terminate(ENDS_WITHIN_S) == 0, worker.output()[-3000:]
        stored = await asyncio.to_thread(read_directory, tmp_path / "clickhouse")
        await assert_equal_to_oracle(kafka, stored, as_applied(await read_logs(kafka, load.expected)))


@pytest.mark.kafka
@pytest.mark.slow
async def test_what_retention_takes_before_it_is_read_is_told_and_the_ledger_balances(
    tmp_path: Path, own_apache_kafka: ApacheKafka
) -> None:
    seed = seed_of("retention")
    kafka = own_apache_kafka.settings
    await create_topics(kafka)
    load = LiveLoad(kafka, seed, RATE)
    async with _worker(tmp_path, kafka, **ONLY_AT_THE_END) as worker:
        await worker.start().until_owning(4)
        await _loaded(kafka, load)
        await until_drained(kafka, [worker.status])
        assert await worker.terminate(ENDS_WITHIN_S) == 0, worker.output()[-3000:]
        store = KafkaCheckpointStore(kafka)
        await store.start()
        assert max(await _ticks_behind_the_checkpoints(kafka, store)) <= FEW_TICKS
        await store.stop()
        read_up_to = await ends_of(kafka)
        await _loaded(kafka, load)
        before = await read_logs(kafka, load.expected)
        lost = await _retention_takes(kafka, read_up_to)
        await worker.start().until_owning(4)
        await _loaded(kafka, load, 1.0)
        await until_drained(kafka, [worker.status])
        assert await worker.terminate(ENDS_WITHIN_S) == 0, worker.output()[-3000:]
    after = await read_logs(kafka, load.expected, lost)
    every = {(r.topic, r.partition, r.offset): r for r in (*before.records, *after.records)}
    stored = await asyncio.to_thread(read_directory, tmp_path / "clickhouse")
    truth = await assert_equal_to_oracle(kafka, stored, after._replace(records=list(every.values())))
    print(summary(truth))
    assert summary(truth)["lost_retention"] > 0


async def _retention_takes(kafka: KafkaSettings, read_up_to: dict[tuple[str, int], int]) -> tuple[Lost, ...]:
    """Of a third of the topic-partitions half of what has not been read, of a third all of it, of a third only what
    has been read."""
    taken: dict[tuple[str, int], int] = {}
    for number, (place, end) in enumerate(sorted((await ends_of(kafka)).items())):
        begin = read_up_to[place]
        taken[place] = (begin, (begin + end) // 2, end)[number % 3]
    admin = AIOKafkaAdminClient(**client_options(kafka))
    await admin.start()
    try:
        requests = {TopicPartition(*place): RecordsToDelete(before_offset=to) for place, to in taken.items()}
        await admin.delete_records(requests)
    finally:
        await admin.close()
    return tuple(Lost(*place, read_up_to[place], to) for place, to in taken.items() if to > read_up_to[place])
