"""Creating topics, and the checks whose findings name a remedy."""

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from streams.adapters.embedded_broker import EmbeddedBroker, free_port
from streams.adapters.kafka_admin import (
    Finding,
    check_clock,
    check_kafka,
    clock_skew_ms,
    create_topics,
    describe_cluster,
    partitions_for_worker,
    topic_findings,
    topic_plans,
)
from streams.adapters.kafka_checkpoints import MANIFESTS
from streams.adapters.kafka_client import client_options
from streams.errors import ConfigurationError
from streams.settings import LOOPBACK, KafkaSettings
from streams.topics import (
    ACCOUNTS,
    ALERT_COMMANDS,
    ALERTS,
    CAMPAIGNS,
    CHECKPOINTS,
    CO_PARTITIONED,
    DEAD_LETTERS,
    DELIVERIES,
    EVIDENCE,
    FLAGS,
    JOURNAL,
    PACING,
    SPENDS,
    VERDICTS,
)
from tests.support.apache_kafka import ApacheKafka
from tests.support.brokers import new_topic

SINGLE = {ALERTS, ALERT_COMMANDS, DELIVERIES}
NEEDED = {*CO_PARTITIONED, ACCOUNTS, SPENDS, PACING, FLAGS, CHECKPOINTS, MANIFESTS, DEAD_LETTERS, *SINGLE}


def severities(findings: list[Finding]) -> dict[str, str]:
    return {finding.check: finding.severity for finding in findings}


def test_the_plans_name_every_topic_with_equal_partition_counts() -> None:
    plans = topic_plans(KafkaSettings(partitions=6))
    assert {plan.name for plan in plans} == NEEDED
    assert {plan.partitions for plan in plans if plan.name not in SINGLE} == {6}
    assert {plan.partitions for plan in plans if plan.name in SINGLE} == {1}


def test_spends_are_kept_so_short_that_a_new_agent_is_soon_done_with_them() -> None:
    configs = {plan.name: plan.config for plan in topic_plans(KafkaSettings())}
    assert configs[SPENDS]["retention.ms"] == "3600000"
    assert int(configs[SPENDS]["segment.ms"]) < 3_600_000  # what is still written to is never deleted
    assert configs[ACCOUNTS]["cleanup.policy"] == "compact"


def test_verdicts_are_kept_as_long_as_the_journal_and_evidence_is_bounded_twice() -> None:
    configs = {plan.name: plan.config for plan in topic_plans(KafkaSettings(), journal_retention_ms=5)}
    assert configs[VERDICTS]["retention.ms"] == configs[JOURNAL]["retention.ms"] == "5"
    assert configs[EVIDENCE]["retention.ms"] == configs[FLAGS]["retention.ms"] == str(7 * 86_400_000)
    assert configs[EVIDENCE]["retention.bytes"] == str(16 * 1024**3)
    assert {EVIDENCE, VERDICTS} <= set(CO_PARTITIONED)


def test_alerts_spread_over_partitions_are_an_error_for_they_could_not_be_grouped() -> None:
    findings = topic_findings({**dict.fromkeys(NEEDED, 4), **dict.fromkeys(SINGLE, 1), ALERTS: 4}, NEEDED)
    assert ("error", "more than one partition: ads.alerts") in {(f.severity, f.detail) for f in findings}


def test_every_missing_topic_is_named_with_the_remedy() -> None:
    findings = topic_findings({CAMPAIGNS: 4}, {CAMPAIGNS, JOURNAL, DEAD_LETTERS})
    assert findings[0].severity == "error"
    assert JOURNAL in findings[0].detail
    assert DEAD_LETTERS in findings[0].detail
    assert "kafka.create_topics" in (findings[0].remedy or "")


def test_unequal_partition_counts_are_an_error_that_lists_them() -> None:
    findings = topic_findings({**dict.fromkeys(NEEDED, 4), **dict.fromkeys(SINGLE, 1), CAMPAIGNS: 3}, NEEDED)
    assert severities(findings) == {"topics": "ok", "partitions": "error"}
    assert f"{CAMPAIGNS} 3" in findings[1].detail


def test_dead_letters_may_have_any_number_of_partitions() -> None:
    findings = topic_findings({**dict.fromkeys(NEEDED, 4), **dict.fromkeys(SINGLE, 1), DEAD_LETTERS: 1}, NEEDED)
    assert severities(findings) == {"topics": "ok", "partitions": "ok"}


async def test_topics_are_created_once_and_the_worker_learns_the_count() -> None:
    async with EmbeddedBroker() as broker:
        settings = broker.settings.model_copy(update={"partitions": 3})
        with pytest.raises(ConfigurationError, match=r"missing topics: ads\.accounts, .*kafka\.create_topics"):
            await partitions_for_worker(settings)
        assert set((await describe_cluster(settings)).topics) == set()  # to look is not to create
        assert set(await create_topics(settings)) == NEEDED
        assert await create_topics(settings) == ()
        assert await partitions_for_worker(settings) == 3
        assert severities(await check_kafka(settings)) == dict.fromkeys(
            ["broker", "topics", "partitions", "clock"], "ok"
        )


async def test_a_worker_that_may_create_topics_does() -> None:
    async with EmbeddedBroker() as broker:
        settings = broker.settings.model_copy(update={"create_topics": True, "partitions": 2})
        assert await partitions_for_worker(settings) == 2


async def test_a_broker_that_does_not_answer_is_a_finding_not_an_exception() -> None:
    findings = await check_kafka(KafkaSettings(bootstrap_servers=f"{LOOPBACK}:{free_port()}"))
    assert severities(findings) == {"broker": "error"}
    assert "kafka.bootstrap_servers" in (findings[0].remedy or "")


async def _config_of(settings: KafkaSettings, topic: str) -> dict[str, str]:
    admin = AIOKafkaAdminClient(**client_options(settings))
    await admin.start()
    (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    await admin.close()
    return {name: value for name, value, *_ in answer.resources[0][4]}


@pytest.mark.kafka
async def test_real_kafka_keeps_every_version_of_settings_and_compacts_checkpoints(
    own_apache_kafka: ApacheKafka,
) -> None:
    settings = own_apache_kafka.settings
    await create_topics(settings)
    campaigns = await _config_of(settings, CAMPAIGNS)
    assert campaigns["cleanup.policy"] == "delete"
    assert campaigns["retention.ms"] == campaigns["retention.bytes"] == "-1"
    assert (await _config_of(settings, CHECKPOINTS))["cleanup.policy"] == "compact"
    assert (await _config_of(settings, MANIFESTS))["cleanup.policy"] == "compact"
    assert severities(await check_kafka(settings)) == dict.fromkeys(["broker", "topics", "partitions", "clock"], "ok")
    too_far = await check_clock(settings, limit_ms=-1)  # any skew is over it
    assert too_far.severity == "warning"
    assert "NTP" in (too_far.remedy or "")


@pytest.mark.kafka
async def test_more_replicas_than_brokers_is_a_configuration_error(apache_kafka: ApacheKafka) -> None:
    settings = apache_kafka.settings.model_copy(update={"replication_factor": 3})
    with pytest.raises(ConfigurationError, match=r"creating topic .*replication factor.*\[kafka\]"):
        await new_topic(settings)


@pytest.mark.kafka
async def test_the_skew_of_a_broker_on_this_machine_is_less_than_a_round_trip(apache_kafka: ApacheKafka) -> None:
    topic = await new_topic(apache_kafka.settings, message_timestamp_type="LogAppendTime")
    skew_ms = await clock_skew_ms(apache_kafka.settings, topic)
    assert skew_ms is not None
    assert abs(skew_ms) < 10_000  # one clock; the bound is that of a request


async def test_the_skew_is_unknown_where_the_broker_keeps_our_timestamps(embedded_broker: EmbeddedBroker) -> None:
    topic = await new_topic(embedded_broker.settings)
    assert await clock_skew_ms(embedded_broker.settings, topic) is None
