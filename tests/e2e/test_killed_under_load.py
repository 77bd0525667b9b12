"""The embedded system, its worker killed again and again under load."""

import asyncio
from pathlib import Path
from random import Random

import pytest

from streams.jobs.embedded import EmbeddedSystem
from tests.support.live_events import LiveLoad
from tests.support.seeds import seed_of
from tests.support.totals import as_applied, assert_equal_to_oracle, read_directory, read_logs, summary, until_drained
from tests.support.worker_process import until

KILLS = 10
RATE = 1_500.0
SOON_REPORTED = {"RULES": '{"report_every_ms": 1000}'}


@pytest.mark.slow
async def test_ten_kills_under_load_change_no_number(tmp_path: Path) -> None:
    seed = seed_of("ten kills")
    async with EmbeddedSystem(tmp_path, settings=SOON_REPORTED) as system:
        load = LiveLoad(system.kafka, seed, RATE)
        traffic = asyncio.create_task(load.run())
        await _kill_again_and_again(system, Random(seed))
        load.stop()
        await traffic
        await until_drained(system.kafka, [system.status])
        assert system.restarts == KILLS
        await system.stop_worker()
        stored = await asyncio.to_thread(read_directory, tmp_path / "clickhouse")
        logs = as_applied(await read_logs(system.kafka, load.expected, log_epoch=system.log_epoch))
        truth = await assert_equal_to_oracle(system.kafka, stored, logs)
    print(summary(truth))
    assert sum(summary(truth).values()) > KILLS * RATE


async def _kill_again_and_again(system: EmbeddedSystem, rng: Random) -> None:
    """Soon after a start (it still recovers), or when it has worked for a while."""
    for kill in range(KILLS):
        await until(lambda: system.worker_pid is not None)
        await asyncio.sleep(rng.uniform(0.2, 4.0))
        if rng.random() < 0.6:
            await system.until_ready()
            await asyncio.sleep(rng.uniform(0.0, 1.5))
        system.kill_worker()
        await until(lambda kill=kill: system.restarts == kill + 1)
