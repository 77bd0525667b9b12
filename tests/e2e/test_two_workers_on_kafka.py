"""Apache Kafka with everything that a production week brings, within a minute: workers that join, leave, die and
freeze, a broker that restarts, transactions that are aborted. ClickHouse over HTTP, checkpoints in Kafka."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest

from streams.adapters.kafka_admin import create_topics
from tests.support.apache_kafka import ApacheKafka
from tests.support.clickhouse_http import ClickHouseHttp
from tests.support.events import EVENT_TOPICS
from tests.support.live_events import ABORTED, COMMITTED, MOST_RECORDS, LiveLoad, TransactionalLoad
from tests.support.seeds import seed_of
from tests.support.totals import as_applied, assert_equal_to_oracle, read_logs, read_rows, summary, until_drained
from tests.support.transaction_log import assert_only_committed, fates_in
from tests.support.worker_process import WorkerProcess, worker_settings

RATE = 800.0
NOTICED_AFTER = {"KAFKA__SESSION_TIMEOUT_MS": "3000"}


@asynccontextmanager
async def _workers(directory: Path, names: str, settings: dict[str, str]) -> AsyncIterator[list[WorkerProcess]]:
    workers = [WorkerProcess(directory / name, settings) for name in names]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.close()


@pytest.mark.kafka
@pytest.mark.slow
async def test_workers_and_broker_come_and_go_and_no_number_changes(
    tmp_path: Path, own_apache_kafka: ApacheKafka
) -> None:
    seed = seed_of("two workers")
    kafka = own_apache_kafka.settings
    await create_topics(kafka)
    with ClickHouseHttp(tmp_path / "clickhouse") as clickhouse:
        settings = worker_settings(tmp_path, kafka, clickhouse.dsn(), **NOTICED_AFTER)
        async with _workers(tmp_path, "abc", settings) as workers:
            load, transactions = LiveLoad(kafka, seed, RATE), TransactionalLoad(kafka, seed)
            async with asyncio.TaskGroup() as traffic:
                traffic.create_task(load.run())
                traffic.create_task(transactions.run())
                left = await _come_and_go(workers, own_apache_kafka, Random(seed))
                load.stop()
                transactions.stop()
            await until_drained(kafka, [worker.status for worker in left])
            for worker in left:
                assert await worker.terminate() == 0, worker.output()[-3000:]
        stored = await asyncio.to_thread(read_rows, clickhouse.dsn())
    logs = as_applied(await read_logs(kafka, load.expected))
    truth = await assert_equal_to_oracle(kafka, stored, logs)
    print(summary(truth), f"{transactions.committed} committed, {transactions.aborted} aborted")
    fates = await fates_in(kafka, EVENT_TOPICS)
    assert_only_committed(fates, logs.records)
    assert {*transactions.promised} <= {*fates.committed.values(), *fates.aborted.values()}
    assert _values(fates.committed, COMMITTED)
    assert _values(fates.aborted, ABORTED)
    against_its_word = [*_values(fates.committed, ABORTED), *{*transactions.promised} - {*fates.committed.values()}]
    assert len(against_its_word) <= 2 * MOST_RECORDS, "the broker errs about transactions that its stop meets, only"
    assert summary(truth)["no_record"] > transactions.committed + transactions.aborted


def _values(records: Mapping[tuple[str, int, int], bytes | None], holding: bytes) -> list[bytes | None]:
    return [value for value in records.values() if holding in (value or b"")]


async def _come_and_go(workers: list[WorkerProcess], broker: ApacheKafka, rng: Random) -> list[WorkerProcess]:
    """Returns the workers that run in the end."""
    first, second, third = workers
    first.start()
    await first.until_owning(4)
    second.start()
    await second.until_owning(2)
    await asyncio.sleep(rng.uniform(1, 3))
    first.kill()
    third.start()
    await third.until_owning(2)
    await asyncio.sleep(rng.uniform(0, 2))
    third.pause()
    await second.until_owning(4)
    third.resume()  # it wakes up with partitions that it has lost
    await third.until_owning(2)
    await second.until_owning(2)
    await asyncio.to_thread(rng.choice([broker.stop, broker.kill]))
    await asyncio.sleep(rng.uniform(0, 2))
    broker.spawn()
    await asyncio.to_thread(broker.wait_ready)
    await asyncio.sleep(rng.uniform(1, 3))
    assert await second.terminate() == 0, second.output()[-3000:]
    await third.until_owning(4)
    first.start()
    await first.until_owning(2)
    await asyncio.sleep(rng.uniform(1, 3))
    return [first, third]
