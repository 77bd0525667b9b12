"""Reaching Kafka, and what is said when it cannot be reached."""

from pathlib import Path

import pytest
from aiokafka.errors import KafkaTimeoutError, TopicAuthorizationFailedError
from pydantic import SecretStr

from streams.adapters.embedded_broker import EmbeddedBroker, free_port
from streams.adapters.kafka_client import answers, client_options, make_producer, mapped, started, stopped
from streams.adapters.kafka_journal import KafkaJournal
from streams.adapters.kafka_outbox import MAX_RECORD_BYTES, KafkaOutbox
from streams.errors import BrokerUnavailable, ConfigurationError
from streams.ports import Outgoing
from streams.settings import LOOPBACK, KafkaSettings
from tests.support.apache_kafka import ApacheKafka
from tests.support.brokers import everything_in, new_topic


async def test_nobody_at_the_address_is_unavailable_and_the_message_names_the_setting() -> None:
    settings = KafkaSettings(bootstrap_servers=f"{LOOPBACK}:{free_port()}")
    with pytest.raises(BrokerUnavailable, match=r"kafka\.bootstrap_servers"):
        await started(make_producer(settings), settings)
    assert not await answers(settings)


async def test_a_certificate_file_that_is_not_there_is_named() -> None:
    settings = KafkaSettings(security_protocol="SSL", ssl_cafile=Path("no-such.pem"))
    with pytest.raises(ConfigurationError, match=r"kafka\.ssl_cafile names no-such\.pem"):
        client_options(settings)


async def test_a_file_that_is_no_certificate_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("not a certificate")
    settings = KafkaSettings(security_protocol="SSL", ssl_cafile=tmp_path / "ca.pem")
    with pytest.raises(ConfigurationError, match="PEM"):
        client_options(settings)


async def test_the_password_is_handed_over_but_not_shown() -> None:
    settings = KafkaSettings(
        security_protocol="SASL_PLAINTEXT", sasl_username="ads", sasl_password=SecretStr("secret-word")
    )
    assert client_options(settings)["sasl_plain_password"] == "secret-word"
    assert "secret-word" not in repr(settings)


def test_refused_rights_name_the_remedy() -> None:
    error = mapped(TopicAuthorizationFailedError("ads.journal"), "appending")
    assert isinstance(error, ConfigurationError)
    assert "ACLs" in str(error)
    assert not error.retriable


def test_a_time_out_is_retriable() -> None:
    assert mapped(KafkaTimeoutError(), "appending").retriable


async def test_a_broker_without_producer_ids_names_the_setting(embedded_broker: EmbeddedBroker) -> None:
    settings = embedded_broker.settings.model_copy(update={"idempotent_producer": True})
    with pytest.raises(ConfigurationError, match=r"kafka\.idempotent_producer = false"):
        await started(make_producer(settings), settings)


async def test_a_missing_journal_is_a_configuration_error_and_is_not_created(broker: KafkaSettings) -> None:
    for _ in range(2):  # a look-up that creates the topic would let the second pass
        with pytest.raises(ConfigurationError, match=r"topic no\.such\.journal is missing; create"):
            await KafkaJournal(broker, 4, "no.such.journal").start()


async def test_a_journal_with_another_partition_count_is_refused(broker: KafkaSettings) -> None:
    with pytest.raises(ConfigurationError, match="2 partitions and the inputs 4"):
        await KafkaJournal(broker, 4, await new_topic(broker, partitions=2)).start()


async def test_records_that_no_broker_takes_are_refused_before_they_are_sent(broker: KafkaSettings) -> None:
    topic = await new_topic(broker)
    outbox = KafkaOutbox(broker)
    await outbox.start()
    fits = Outgoing(topic, 0, None, b"." * MAX_RECORD_BYTES)
    with pytest.raises(ConfigurationError, match="split or leave it out"):
        await outbox.publish([fits, Outgoing(topic, 0, None, b"." * (MAX_RECORD_BYTES + 1))])
    with pytest.raises(ConfigurationError, match="has 2 partitions, no partition 2"):
        await outbox.publish([Outgoing(topic, 2, None, b"")])
    assert await everything_in(broker, topic, 0) == []
    await outbox.publish([fits])
    assert len(await everything_in(broker, topic, 0)) == 1
    await outbox.stop()


@pytest.mark.kafka
async def test_tls_and_a_password_lead_in(apache_kafka: ApacheKafka) -> None:
    settings = apache_kafka.secure_settings
    topic = await new_topic(settings)
    outbox = KafkaOutbox(settings)
    await outbox.start()
    await outbox.publish([Outgoing(topic, 0, None, b"secret")])
    await outbox.stop()
    assert [record.value for record in await everything_in(settings, topic, 0)] == [b"secret"]


@pytest.mark.kafka
async def test_a_wrong_password_is_a_configuration_error(apache_kafka: ApacheKafka) -> None:
    settings = apache_kafka.secure_settings.model_copy(update={"sasl_password": SecretStr("wrong")})
    with pytest.raises(ConfigurationError, match=r"kafka\.sasl_password"):
        await started(make_producer(settings), settings)


@pytest.mark.kafka
async def test_a_certificate_of_an_unknown_authority_is_a_configuration_error(apache_kafka: ApacheKafka) -> None:
    settings = apache_kafka.secure_settings.model_copy(update={"ssl_cafile": None})
    with pytest.raises(ConfigurationError, match=r"kafka\.ssl_"):
        await started(make_producer(settings), settings)


@pytest.mark.kafka
async def test_an_idempotent_producer_is_what_real_kafka_gets(apache_kafka: ApacheKafka) -> None:
    settings = apache_kafka.settings
    assert settings.idempotent_producer
    await stopped(await started(make_producer(settings), settings))
