"""An operator's story: a producer ships a schema mistake for an hour, and every event of it counts in the end, once."""

import asyncio
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec
import pytest

from streams.adapters.clock import SystemClock
from streams.adapters.embedded_broker import EmbeddedBroker
from streams.adapters.kafka_admin import create_topics
from streams.adapters.kafka_outbox import KafkaOutbox
from streams.ports import Outgoing
from streams.records import COLUMNS, Table
from streams.settings import KafkaSettings
from streams.topics import partition_of
from tests.e2e.test_replay import command
from tests.support.clickhouse_http import ClickHouseHttp
from tests.support.oracle import Oracle
from tests.support.seeds import seed_of
from tests.support.totals import Stored, assert_rows, ends_of, read_logs, read_rows, until_drained
from tests.support.worker_process import WorkerProcess, worker_settings

HOUR_MS: Final = 3_600_000
STEP_MS: Final = 15_000
CAMPAIGNS: Final = ("c1", "c2", "c3", "c4", "c5")
MEND: Final = """
name = "app 7.2: its clock in seconds, its prices in fen, its buttons by another name"
[[events]]
input = "clicks"
when = { app_version = "7.2" }
[events.fields]
event_time_ms = { column = "ts", time = "epoch_s" }
click_type = { column = "click_type", values = { btn = "button", "*" = "other" } }
clearing_price_millimicros = { column = "price_fen", unit = "fen" }
"""


class Producer:
    """Three hours of impressions and clicks, in the order of their time; in the second hour its clicks are mistaken."""

    def __init__(self, seed: int, now_ms: int) -> None:
        self.messages: list[Outgoing] = []
        self.mistaken: dict[bytes | None, str] = {}
        """By value, the reason for which it is rejected."""
        self.clicks: Counter[str] = Counter()
        self.spend_fen: Counter[str] = Counter()
        rng = Random(seed)
        begin_ms = (now_ms - 3 * HOUR_MS) // 1000 * 1000
        for number, at_ms in enumerate(range(begin_ms, begin_ms + 3 * HOUR_MS, STEP_MS)):
            campaign, price = rng.choice(CAMPAIGNS), rng.randrange(1, 50)
            both = {"campaign_id": campaign, "currency": "CNY"}
            shown = {"event_id": f"i{number}", "event_time_ms": at_ms, "clearing_price_millimicros": 10**7, **both}
            self._send("ads.impressions", campaign, at_ms, shown)
            click = {"event_id": f"c{number}", "impression_id": f"i{number}", **both}
            self.clicks[campaign] += 1
            self.spend_fen[campaign] += 1 + price
            if begin_ms + HOUR_MS <= at_ms < begin_ms + 2 * HOUR_MS:
                wrong = {**click, "app_version": "7.2", "ts": at_ms // 1000, "click_type": "btn", "price_fen": price}
                self.mistaken[self._send("ads.clicks", campaign, at_ms, wrong)] = "unknown_value"
            else:
                right = {"event_time_ms": at_ms, "click_type": "button", "clearing_price_millimicros": price * 10**7}
                self._send("ads.clicks", campaign, at_ms, {**click, **right})

    def _send(self, topic: str, campaign: str, at_ms: int, document: dict[str, Any]) -> bytes:
        value = msgspec.json.encode(document)
        self.messages.append(Outgoing(topic, partition_of(campaign, 4), campaign.encode(), value, at_ms))
        return value


@pytest.mark.slow
async def test_a_producer_s_mistake_is_mended_and_its_events_count_once(tmp_path: Path) -> None:
    mend = tmp_path / "mend.toml"
    mend.write_text(MEND)
    producer = Producer(seed_of("mistake"), SystemClock().now_ms())
    wrong = len(producer.mistaken)
    async with EmbeddedBroker() as broker:
        kafka = broker.settings
        await create_topics(kafka)
        with ClickHouseHttp(tmp_path / "clickhouse") as server:
            more = {"KAFKA__ASSIGNMENT": "all", "WORKER__CHECKPOINT_STORE": "directory"}
            settings = worker_settings(tmp_path, kafka, server.dsn(), **more)
            worker = WorkerProcess(tmp_path, settings)
            try:
                await worker.start().until_owning(4)
                await publish(kafka, producer.messages)
                before = await drained(kafka, worker, server.dsn(), producer)
                assert counted(before) == sum(producer.clicks.values()) - wrong

                listed = msgspec.json.decode(await command(settings, "dead-letters", "list", "--json"))
                assert listed["summary"] == [
                    {"topic": "ads.clicks", "reason": "unknown_value", "letters": wrong, "redriven": 0}
                ]
                redrive = ("dead-letters", "redrive", "--topic", "clicks")
                mended = (*redrive, "--mend", str(mend))
                assert f"{wrong} records sent again" in await command(settings, *mended)
                after = await drained(kafka, worker, server.dsn(), producer)
                assert_counted_once(after, producer)

                assert "0 records sent again" in await command(settings, *redrive, "--mend", str(mend))
                assert f"{wrong} records sent again" in await command(
                    settings, *redrive, "--mend", str(mend), "--again"
                )
                assert_counted_once(await drained(kafka, worker, server.dsn(), producer), producer)
                status = await worker.status()
                assert status is not None
                assert status["ledger"]["clicks"]["duplicate"] == wrong
                assert await worker.terminate() == 0
            finally:
                worker.close()


async def publish(kafka: KafkaSettings, messages: list[Outgoing]) -> None:
    outbox = KafkaOutbox(kafka)
    await outbox.start()
    try:
        await outbox.publish(messages)
    finally:
        await outbox.stop()


async def drained(kafka: KafkaSettings, worker: WorkerProcess, dsn: str, producer: Producer) -> Stored:
    """What is stored once everything is read: exactly what the topics' records come to.

    Seen while nothing comes: a worker also tells other partitions how far it has read, now and then.
    """
    while True:
        ends = await ends_of(kafka)
        await until_drained(kafka, [worker.status])
        stored, logs = await asyncio.to_thread(read_rows, dsn), await read_logs(kafka, producer.mistaken)
        if await ends_of(kafka) == ends:
            assert_rows(stored, Oracle(logs).truth())
            return stored


def counted(stored: Stored) -> int:
    return sum(int(row[-1]) for row in stored.campaign_totals)


def assert_counted_once(stored: Stored, producer: Producer) -> None:
    """By campaign, just what the producer meant."""
    assert {row[0]: row[-1] for row in stored.campaign_totals} == dict(producer.clicks)
    spent: Counter[str] = Counter()
    campaign, money = (COLUMNS[Table.PANES].index(name) for name in ("campaign_id", "spend_millimicros"))
    for row in stored.tables[Table.PANES]:
        spent[row[campaign]] += row[money]
    assert spent == {name: fen * 10**7 for name, fen in producer.spend_fen.items()}
