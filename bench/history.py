"""How fast history is read and archived, in one process: from the embedded broker, and from Parquet.

Rates are given by wall clock and by this process's CPU: where cores are shared, or the broker is the slower part, the
first says what this machine gives now and the second what the reading costs.
"""

import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.workload import Workload, produce
from streams.adapters.archive_history import ArchiveHistory
from streams.adapters.embedded_broker import EmbeddedBroker
from streams.adapters.kafka_admin import TopicPlan, create_topics
from streams.adapters.kafka_history import KafkaHistory
from streams.adapters.kafka_outbox import KafkaOutbox
from streams.events import Input
from streams.jobs.archive import Wish, archive
from streams.jobs.identity import Identity
from streams.ports import History
from streams.topics import INPUT_TOPICS

TOPIC = INPUT_TOPICS[Input.IMPRESSIONS]
ROUNDS = 3
KEY = Identity(b"k" * 32, "k1")


async def run(quick: bool) -> dict[str, float]:
    """The figures; the best of some rounds each."""
    events = 200_000 if quick else 1_000_000
    async with EmbeddedBroker() as broker:
        settings = broker.settings
        await create_topics(settings, [TopicPlan(TOPIC, 1, {})])
        outbox = KafkaOutbox(settings)
        await outbox.start()
        records = 0
        for messages in produce(Workload(events, per_second=100_000, partitions=1)):
            impressions = [message for message in messages if message.topic == TOPIC]
            await outbox.publish(impressions)
            records += len(impressions)
        await outbox.stop()
        history = KafkaHistory(settings)
        figures = {"records": float(records), **await _read("broker", lambda: history, records)}
        with TemporaryDirectory() as folder:
            for name, identity, raw in (("raw", Identity(), True), ("pseudonyms", KEY, False)):
                directory = Path(folder) / name
                begun, used = time.perf_counter(), time.process_time()
                await archive(history, Wish(directory, topics=(TOPIC,), raw=raw), identity, 0)
                figures[f"archive_{name}_per_s"] = records / (time.perf_counter() - begun)
                figures[f"archive_{name}_per_cpu_s"] = records / (time.process_time() - used)
            size = sum(path.stat().st_size for path in (Path(folder) / "raw").rglob("*.parquet"))
            figures["archived_bytes_per_record"] = size / records
            figures |= await _read("parquet", lambda: ArchiveHistory(Path(folder) / "raw"), records)
        await history.stop()
    return figures


async def _read(name: str, make: Callable[[], History], expected: int) -> dict[str, float]:
    wall, cpu = [], []
    for _ in range(ROUNDS):
        history = make()
        span = await history.span(TOPIC, 0)
        begun, used, records, touched = time.perf_counter(), time.process_time(), 0, 0
        async for batch in history.read(TOPIC, 0, *span):
            records += len(batch.records)
            # what a pipeline takes of each record, so that lazy ones pay for it here
            touched += sum(chain.from_iterable((r.offset, r.timestamp, len(r.value or b"")) for r in batch.records))
        assert records == expected
        assert touched
        wall.append(records / (time.perf_counter() - begun))
        cpu.append(records / (time.process_time() - used))
    return {f"{name}_records_per_s": max(wall), f"{name}_records_per_cpu_s": max(cpu)}
