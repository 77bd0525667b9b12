"""ClickHouse is not there at the first start; later it does not answer for long, and the worker is killed meanwhile."""

import asyncio
import os
from pathlib import Path
from random import Random
from typing import Any

import pytest

from streams.jobs.embedded import EmbeddedSystem
from tests.support.clickhouse_http import ClickHouseHttp
from tests.support.live_events import LiveLoad
from tests.support.seeds import seed_of
from tests.support.totals import as_applied, assert_equal_to_oracle, read_logs, read_rows, summary, until_drained

RATE = 500.0
OUTAGE_S = 60.0 if os.environ.get("LONG") else 16.0
"""LONG=1 makes it a minute."""
TIMEOUT_CODE = 159  # TIMEOUT_EXCEEDED: the server's own word that it is too busy


@pytest.mark.slow
async def test_clickhouse_away_at_start_and_for_long_with_a_kill_inside_changes_no_number(tmp_path: Path) -> None:
    seed = seed_of("outage")
    rng = Random(seed)
    with ClickHouseHttp(tmp_path / "clickhouse") as clickhouse:
        clickhouse.refuse()
        settings = {"RULES": '{"report_every_ms": 1000}', "CLICKHOUSE__DSN": clickhouse.dsn()}
        async with EmbeddedSystem(tmp_path / "system", settings=settings) as system:
            load = LiveLoad(system.kafka, seed, RATE)
            traffic = asyncio.create_task(load.run())
            await _until(system, lambda status: _consumed(status) > 0 and not status["sink_up"])
            clickhouse.refuse(False)
            await _until(system, lambda status: status["inserted_rows"] > 0)
            await asyncio.sleep(rng.uniform(0, 1))
            await _outage(system, clickhouse, rng)
            await _until(system, lambda status: bool(status["sink_up"]) and status["inserted_rows"] > 0)
            load.stop()
            await traffic
            await until_drained(system.kafka, [system.status])
            assert system.restarts == 1
            await system.stop_worker()
            stored = await asyncio.to_thread(read_rows, clickhouse.dsn())
            logs = as_applied(await read_logs(system.kafka, load.expected))
            truth = await assert_equal_to_oracle(system.kafka, stored, logs)
    print(summary(truth))
    assert sum(summary(truth).values()) > OUTAGE_S * RATE / 2


async def _outage(system: EmbeddedSystem, clickhouse: ClickHouseHttp, rng: Random) -> None:
    """Insertions fail, before or after they took effect; then nothing is answered; then it limps back."""
    clickhouse.cut_after(count=1, match="INSERT")
    clickhouse.fail(TIMEOUT_CODE, count=1, match="INSERT")
    clickhouse.cut_before(count=1, match="INSERT")
    await _until(system, lambda status: status["insertion_errors"] > 0)
    clickhouse.refuse()
    before_the_kill_s = OUTAGE_S * rng.uniform(0.3, 0.6)
    before = await _until(system, lambda status: not status["sink_up"] and status["dirty_rows"] > 0)
    await asyncio.sleep(before_the_kill_s)
    during = await _until(system, lambda status: True)
    assert not during["sink_up"]
    assert _consumed(during) > _consumed(before), "input stopped with the sink"
    system.kill_worker()
    await asyncio.sleep(OUTAGE_S - before_the_kill_s)
    status = await _until(system, lambda status: len(status["partitions"]) == system.partitions)
    assert status["dirty_rows"] > 0, "rows that nobody has acknowledged are forgotten"
    clickhouse.cut_after(count=1, match="INSERT")
    clickhouse.refuse(False)


def _consumed(status: dict[str, Any]) -> int:
    return sum(entries["consumed"] for entries in status["ledger"].values())


async def _until(system: EmbeddedSystem, holds: Any) -> dict[str, Any]:
    status = None
    for _ in range(1200):
        status = await system.status()
        if status is not None and holds(status):
            return status
        await asyncio.sleep(0.05)
    raise AssertionError(f"still not so: {status and {k: v for k, v in status.items() if k != 'campaigns'}}")
