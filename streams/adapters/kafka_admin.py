"""The topics: what they must look like, creating them, and checks whose findings each name a remedy.

A worker refuses to start on what `partitions_for_worker` finds; `doctor` prints what `check_kafka` finds.
"""

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import aiokafka.errors as kafka_errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.adapters.kafka_checkpoints import MANIFESTS, barrier_record
from streams.adapters.kafka_client import (
    RAISED,
    broker_errors,
    client_options,
    create_remedy,
    make_producer,
    mapped,
    started,
    stopped,
)
from streams.errors import CampaignStreamsError, ConfigurationError
from streams.settings import KafkaSettings
from streams.topics import (
    ACCOUNTS,
    ALERT_COMMANDS,
    ALERTS,
    ALLOWANCES,
    CAMPAIGNS,
    CHECKPOINTS,
    CO_PARTITIONED,
    DEAD_LETTERS,
    DELIVERIES,
    EVIDENCE,
    FLAGS,
    INPUT_TOPICS,
    JOURNAL,
    PACING,
    SESSIONS,
    SPENDS,
    VERDICTS,
)

DAY_MS = 86_400_000
JOURNAL_RETENTION_MS = 30 * DAY_MS
DEAD_LETTERS_RETENTION_MS = 30 * DAY_MS
INPUT_RETENTION_BYTES = 16 * 1024**3
"""Inputs are bounded by size for each partition, not by age: Kafka judges age by the records' own timestamps, and
would delete loaded history, whose timestamps are those of its events, within minutes."""
DELIVERY_RETENTION_MS = {ALERTS: 7 * DAY_MS, ALERT_COMMANDS: 30 * DAY_MS, DELIVERIES: 7 * DAY_MS}
"""One partition each: whoever is given them tells of all alerts, so that those of one cause are one message."""
CLOCK_SKEW_LIMIT_MS = 1_000
_EVERYTHING = "-1"
_APPEARS_WITHIN_S = 10.0
_SKEW_SAMPLES = 3  # the first waits for metadata
_LOG_APPEND_TIME = 1


class TopicPlan(NamedTuple):
    """How one topic is to be created."""

    name: str
    partitions: int
    config: Mapping[str, str]


class Finding(NamedTuple):
    """What one check found. `remedy` is None when all is well."""

    check: str
    """What was looked at: broker, topics, partitions or clock."""
    severity: Literal["ok", "warning", "error"]
    detail: str
    remedy: str | None = None


class Cluster(NamedTuple):
    """What the brokers say of themselves."""

    brokers: tuple[str, ...]
    """host:port of each."""
    topics: Mapping[str, int]
    """Partition count of every topic."""


def topic_plans(
    settings: KafkaSettings,
    *,
    journal_retention_ms: int = JOURNAL_RETENTION_MS,
    input_retention_bytes: int = INPUT_RETENTION_BYTES,
    dead_letters_retention_ms: int = DEAD_LETTERS_RETENTION_MS,
) -> tuple[TopicPlan, ...]:
    """Every topic that the system needs, with `settings.partitions` partitions each, but those of delivery.

    ads.campaigns keeps every version for ever (compaction would lose the older ones); checkpoints and manifests are
    compacted; the journal must outlive the oldest checkpoint that anybody may want to replay from.
    """
    kept = {"cleanup.policy": "delete", "retention.ms": _EVERYTHING, "retention.bytes": _EVERYTHING}
    inputs = {**kept, "retention.bytes": str(input_retention_bytes)}
    compacted = {"cleanup.policy": "compact", "segment.ms": str(3_600_000), "segment.bytes": str(64 * 1024**2)}
    configs: dict[str, Mapping[str, str]] = {
        **dict.fromkeys(INPUT_TOPICS.values(), inputs),
        CAMPAIGNS: kept,
        SESSIONS: kept,
        ALLOWANCES: {**kept, "retention.ms": str(7 * DAY_MS)},
        # read like an input, so kept for an outage; every click stands in it once for each kind of source
        EVIDENCE: {**inputs, "retention.ms": str(7 * DAY_MS)},
        # reviews decide what counts: whoever recovers or replays needs them as long as the journal
        VERDICTS: {**kept, "retention.ms": str(journal_retention_ms)},
        FLAGS: {**kept, "retention.ms": str(7 * DAY_MS)},
        ACCOUNTS: compacted,
        # absolute, and repeated every few seconds: whoever begins to read should not have a day to catch up with
        SPENDS: {**kept, "retention.ms": str(3_600_000), "segment.ms": str(600_000)},
        PACING: {**kept, "retention.ms": str(DAY_MS)},
        JOURNAL: {**kept, "retention.ms": str(journal_retention_ms)},
        CHECKPOINTS: compacted,
        # the brokers' clock on each record lets `check_clock` measure the skew
        MANIFESTS: {**compacted, "message.timestamp.type": "LogAppendTime"},
        DEAD_LETTERS: {**kept, "retention.ms": str(dead_letters_retention_ms)},
    }
    plans = [TopicPlan(name, settings.partitions, config) for name, config in configs.items()]
    plans += [TopicPlan(n, 1, {**kept, "retention.ms": str(length)}) for n, length in DELIVERY_RETENTION_MS.items()]
    return tuple(plans)


async def describe_cluster(settings: KafkaSettings) -> Cluster:
    """Brokers and topics; creates nothing.

    Raises:
        BrokerUnavailable, ConfigurationError: see `streams.adapters.kafka_client.started`.
    """
    admin = await _admin(settings)
    try:
        return await _described(admin)
    finally:
        await stopped(admin)


async def create_topics(settings: KafkaSettings, plans: Sequence[TopicPlan] | None = None) -> tuple[str, ...]:
    """Creates what is missing of `plans` (default: `topic_plans`); returns the names created, when all can be seen.

    Raises:
        ConfigurationError: the broker refuses (replication factor, rights, policy).
        BrokerUnavailable: it does not answer.
    """
    admin = await _admin(settings)
    try:
        present = (await _described(admin)).topics
        missing = [plan for plan in plans or topic_plans(settings) if plan.name not in present]
        if missing:
            await _create(admin, missing, settings.replication_factor)
            await _until_seen(admin, [plan.name for plan in missing])
        return tuple(plan.name for plan in missing)
    finally:
        await stopped(admin)


async def partitions_for_worker(settings: KafkaSettings, *, extra: Collection[str] = ()) -> int:
    """What a worker does at start: creates topics if it may, then insists. Returns the partition count.

    Raises:
        ConfigurationError: every missing topic and every wrong count in one message, with the remedy.
        BrokerUnavailable: the broker does not answer.
    """
    if settings.create_topics:
        await create_topics(settings)
    cluster = await describe_cluster(settings)
    findings = topic_findings(cluster.topics, {plan.name for plan in topic_plans(settings)} | set(extra))
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        raise ConfigurationError("; ".join(f"{finding.detail}; {finding.remedy}" for finding in errors))
    return cluster.topics[JOURNAL]


def topic_findings(present: Mapping[str, int], needed: Collection[str]) -> list[Finding]:
    """Compares the topics that exist (name to partition count) with those needed. Pure."""
    missing = sorted(set(needed) - set(present))
    findings = [Finding("topics", "ok", f"{len(needed)} topics are present")]
    if missing:
        detail = f"missing topics: {', '.join(missing)}"
        findings = [Finding("topics", "error", detail, create_remedy(missing))]
    split = [topic for topic in DELIVERY_RETENTION_MS if present.get(topic, 1) > 1]
    if split:
        remedy = "create them anew with one partition: one process must see all alerts to group them"
        findings.append(Finding("partitions", "error", f"more than one partition: {', '.join(split)}", remedy))
    counts = {topic: present[topic] for topic in (*CO_PARTITIONED, CHECKPOINTS, MANIFESTS) if topic in present}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{topic} {count}" for topic, count in counts.items())
        remedy = "give all of them the same number of partitions (create them anew; a topic in use cannot change)"
        findings.append(Finding("partitions", "error", f"unequal partition counts: {listed}", remedy))
    elif counts:
        findings.append(Finding("partitions", "ok", f"{next(iter(counts.values()))} partitions each"))
    return findings


async def check_kafka(settings: KafkaSettings) -> list[Finding]:
    """Broker, topics, partition counts and clock skew. Never raises an operating error: it becomes a finding."""
    try:
        cluster = await describe_cluster(settings)
    except CampaignStreamsError as error:
        what, _, remedy = str(error).rpartition("; ")
        return [Finding("broker", "error", what, remedy)]
    found = [Finding("broker", "ok", f"{len(cluster.brokers)} at {', '.join(cluster.brokers)}")]
    found += topic_findings(cluster.topics, {plan.name for plan in topic_plans(settings)})
    if MANIFESTS in cluster.topics:
        found.append(await check_clock(settings))
    return found


async def check_clock(settings: KafkaSettings, limit_ms: int = CLOCK_SKEW_LIMIT_MS) -> Finding:
    """Appends a tombstone that means nothing to ads.manifests and compares the broker's time of it with ours."""
    try:
        skew_ms = await clock_skew_ms(settings)
    except CampaignStreamsError as error:
        what, _, remedy = str(error).rpartition("; ")
        return Finding("clock", "warning", what, remedy)
    if skew_ms is None:
        return Finding("clock", "ok", "not measurable: the broker does not stamp records with its own time")
    detail = f"the broker's clock is {skew_ms:+d} ms from ours"
    if abs(skew_ms) > limit_ms:
        return Finding("clock", "warning", detail, "synchronise the clocks (NTP) of the brokers and of this machine")
    return Finding("clock", "ok", detail)


async def clock_skew_ms(settings: KafkaSettings, topic: str = MANIFESTS) -> int | None:
    """Broker's time minus ours, ms, to within half a round trip; None where the topic keeps our own timestamps."""
    producer = await started(make_producer(settings), settings)
    try:
        with broker_errors("measuring the clock skew"):
            samples = [await _skew_sample(producer, topic) for _ in range(_SKEW_SAMPLES)]
    finally:
        await stopped(producer)
    return min(samples)[1]  # of the shortest round trip


async def _skew_sample(producer: Any, topic: str) -> tuple[float, int | None]:
    """One append: its round trip, ms, and the broker's time in it minus ours."""
    key, value = barrier_record()
    before_ms = time.time() * 1000
    appended = await producer.send_and_wait(topic, value, key=key, partition=0)
    after_ms = time.time() * 1000
    if appended.timestamp_type != _LOG_APPEND_TIME:
        return after_ms - before_ms, None
    return after_ms - before_ms, round(appended.timestamp - (before_ms + after_ms) / 2)


class _Admin(AIOKafkaAdminClient):  # type: ignore[misc]
    """aiokafka's admin client, stopped like its producer and consumer."""

    async def stop(self) -> None:
        await self.close()


async def _admin(settings: KafkaSettings) -> Any:
    return await started(_Admin(**client_options(settings)), settings)


async def _described(admin: Any) -> Cluster:
    """Asks for all topics: to ask for one by name would create it where brokers create on demand."""
    with broker_errors("describing the cluster"):
        brokers = (await admin.describe_cluster())["brokers"]
        topics = await admin.describe_topics()
    return Cluster(
        tuple(f"{broker['host']}:{broker['port']}" for broker in brokers),
        {topic["topic"]: len(topic["partitions"]) for topic in topics if topic["error_code"] == 0},
    )


async def _create(admin: Any, plans: Sequence[TopicPlan], replication_factor: int) -> None:
    topics = [
        NewTopic(plan.name, plan.partitions, replication_factor, topic_configs=dict(plan.config)) for plan in plans
    ]
    with broker_errors("creating topics"):
        answer = await admin.create_topics(topics)
    for name, code, *message in answer.topic_errors:
        error = kafka_errors.for_code(code)
        if error not in (kafka_errors.NoError, kafka_errors.TopicAlreadyExistsError):
            raise mapped(error(*message), f"creating topic {name}")


async def _until_seen(admin: Any, names: Collection[str]) -> None:
    """A topic exists a little before every broker knows it."""
    deadline = time.monotonic() + _APPEARS_WITHIN_S
    while time.monotonic() < deadline:
        try:
            topics = (await _described(admin)).topics
        except RAISED:
            topics = {}
        if all(topics.get(name) for name in names):
            return
        await asyncio.sleep(0.05)
    raise ConfigurationError(f"topics {', '.join(names)} do not appear after their creation; check the brokers")
