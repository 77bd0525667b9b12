"""Helpers for tests that run on more than one broker."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.adapters.kafka_admin import TopicPlan, create_topics
from streams.adapters.kafka_client import make_consumer, started, stopped
from streams.adapters.kafka_fetch import PartitionReader, Record
from streams.settings import KafkaSettings

EMBEDDED = "embedded"
APACHE = "apache"
BROKERS = [EMBEDDED, pytest.param(APACHE, marks=pytest.mark.kafka)]
"""To parametrise the fixture `broker` with."""


def settings_of(request: pytest.FixtureRequest, kind: str) -> KafkaSettings:
    """Settings that reach the broker of this kind, started if need be. Not for async fixtures: no loop may run."""
    settings: KafkaSettings = request.getfixturevalue("apache_kafka" if kind == APACHE else "embedded_broker").settings
    return settings


async def new_topic(settings: KafkaSettings, partitions: int = 2, **config: str) -> str:
    """Creates a topic of its own for one test; dots in configuration names are written as underscores."""
    name = f"test-{uuid.uuid4().hex}"
    plan = TopicPlan(name, partitions, {field.replace("_", "."): value for field, value in config.items()})
    await create_topics(settings, [plan])
    return name


async def everything_in(settings: KafkaSettings, topic: str, partition: int) -> list[Record]:
    """All records of a partition, up to its high watermark."""
    reader = PartitionReader(settings, topic)
    await reader.start()
    try:
        records: list[Record] = []
        offset = await reader.beginning(partition)
        while True:
            fetched = await reader.fetch(partition, offset)
            records += fetched.records
            offset = fetched.next_offset
            if offset >= fetched.high_watermark:
                return records
    finally:
        await reader.stop()


@asynccontextmanager
async def consumer_at(settings: KafkaSettings, tp: TopicPartition, offset: int) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer of ours, assigned to one partition and standing at an offset."""
    consumer = await started(make_consumer(settings, fetch_max_wait_ms=50), settings)
    try:
        consumer.assign([tp])
        consumer.seek(tp, offset)
        yield consumer
    finally:
        await stopped(consumer)
