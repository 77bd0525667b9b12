"""Mistakes at a start, and a broker that dies: one line of what is wrong and what to do, exit code 2, no traceback."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.adapters.embedded_broker import EmbeddedBroker, free_port
from streams.adapters.kafka_admin import create_topics, topic_plans
from streams.settings import LOOPBACK
from tests.support.clickhouse_http import ClickHouseHttp
from tests.support.worker_process import environment, worker_settings

TIMEOUT_S = 90
OPERATING_ERROR = 2

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    """A broker with the system's topics."""
    broker = EmbeddedBroker()
    asyncio.run(broker.start())
    asyncio.run(create_topics(broker.settings))
    yield broker
    asyncio.run(broker.stop())


def _settings(directory: Path, broker: EmbeddedBroker, **more: str) -> dict[str, str]:
    own = {"WORKER__WEB_PORT": str(free_port()), "WORKER__CHECKPOINT_STORE": "directory"}
    return worker_settings(directory, broker.settings, f"chdb://{directory / 'clickhouse'}", **own) | more


def _complaint(directory: Path, settings: dict[str, str]) -> str:
    """What the worker says last before it ends."""
    done = subprocess.run(
        [sys.executable, "-m", "streams.cli", "worker"],
        cwd=directory,
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == OPERATING_ERROR, done.stderr[-3000:]
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("campaign-streams: "), last
    return last


def test_a_wrong_broker_address_is_told_with_its_setting(tmp_path: Path, broker: EmbeddedBroker) -> None:
    nobody = f"{LOOPBACK}:{free_port()}"
    complaint = _complaint(tmp_path, _settings(tmp_path, broker, KAFKA__BOOTSTRAP_SERVERS=nobody))
    assert nobody in complaint
    assert "kafka.bootstrap_servers" in complaint


@pytest.mark.parametrize("missing", ["ads.clicks", "ads.journal"])
def test_a_missing_topic_is_named_with_the_way_to_create_it(tmp_path: Path, missing: str) -> None:
    complaint = _with_topics(tmp_path, {missing: None})
    assert f"missing topics: {missing};" in complaint
    assert "kafka.create_topics" in complaint


def test_a_topic_with_another_partition_count_is_refused_with_all_counts(tmp_path: Path) -> None:
    complaint = _with_topics(tmp_path, {"ads.clicks": 3})
    assert "ads.clicks 3" in complaint
    assert "ads.impressions 4" in complaint
    assert "same number of partitions" in complaint


def _with_topics(directory: Path, changed: dict[str, int | None]) -> str:
    """What a worker says where some topics have another count (None: where they are missing)."""
    broker = EmbeddedBroker()
    asyncio.run(broker.start())
    try:
        counted = [(plan, changed.get(plan.name, plan.partitions)) for plan in topic_plans(broker.settings)]
        plans = [plan._replace(partitions=count) for plan, count in counted if count is not None]
        asyncio.run(create_topics(broker.settings, plans))
        return _complaint(directory, _settings(directory, broker))
    finally:
        asyncio.run(broker.stop())


@pytest.mark.parametrize(
    ("dsn", "remedy"),
    [
        ("postgres://127.0.0.1/ads", "must begin with chdb://, clickhouse:// or clickhouses://"),
        ("chdb://", "needs a directory"),
        ("clickhouse://127.0.0.1:port/ads", "the port is no number"),
    ],
)
def test_a_wrong_dsn_is_told_with_what_is_wrong_in_it(
    tmp_path: Path, broker: EmbeddedBroker, dsn: str, remedy: str
) -> None:
    complaint = _complaint(tmp_path, _settings(tmp_path, broker, CLICKHOUSE__DSN=dsn))
    assert "clickhouse.dsn" in complaint
    assert remedy in complaint


def test_a_refused_password_is_told_and_not_shown(tmp_path: Path, broker: EmbeddedBroker) -> None:
    with ClickHouseHttp(tmp_path / "clickhouse", user="ads", password="right") as clickhouse:
        wrong = clickhouse.dsn().replace("right", "mistaken")
        complaint = _complaint(tmp_path, _settings(tmp_path, broker, CLICKHOUSE__DSN=wrong))
    assert "check user, password and rights in clickhouse.dsn" in complaint
    assert "mistaken" not in complaint


def test_a_taken_web_port_is_told_with_its_setting(tmp_path: Path, broker: EmbeddedBroker) -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        complaint = _complaint(tmp_path, _settings(tmp_path, broker, WORKER__WEB_PORT=port))
    assert port in complaint
    assert "worker.web_port" in complaint


def test_a_misspelt_setting_is_told_by_its_path(tmp_path: Path, broker: EmbeddedBroker) -> None:
    complaint = _complaint(tmp_path, _settings(tmp_path, broker, WORKER__TICK_MS="fast"))
    assert "worker.tick_ms" in complaint


def test_a_demo_whose_broker_is_killed_ends_with_one_line(tmp_path: Path) -> None:
    """As for want of memory: it keeps every record."""
    demo = subprocess.Popen(
        [sys.executable, "-m", "streams.cli", "demo", "--json", "--data-dir", str(tmp_path / "data")],
        cwd=tmp_path,
        env=environment({}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert demo.stderr is not None
    try:
        begun = next(line for line in demo.stderr if "console at" in line)
        (broker_pid,) = [pid for pid in _children(demo.pid) if b"tansu" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(broker_pid, signal.SIGKILL)
        _, said = demo.communicate(timeout=TIMEOUT_S)
    finally:
        demo.kill()
        demo.wait()
    assert begun
    assert demo.returncode == OPERATING_ERROR, said
    assert said.strip().splitlines()[-1].startswith("campaign-streams: the embedded broker has ended")
    assert "Traceback" not in said


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
