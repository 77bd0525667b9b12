"""The full pipeline (decode, de-duplication, panes, ticks, checkpoints, ClickHouse) against a plain Faust agent."""

import asyncio
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.probes import restart_caught_up_s, visible_ms
from bench.state_costs import bytes_per_campaign_key, bytes_per_dedupe_id, cost_ratio
from bench.workload import Workload, produce
from streams.adapters.kafka_outbox import KafkaOutbox
from streams.jobs.embedded import EmbeddedSystem
from streams.ports import Outgoing
from tests.support.apache_kafka import why_not

Figures = dict[str, float | int]
DENSE_PER_S = 120_000.0
"""Event time as dense as the rate measured."""
SPARSE_EVENTS_PER_KEY = 5
FAUST_EVENTS = 30_000


async def run(quick: bool) -> Figures:
    """All figures of this benchmark, from one run; `quick`: in about a minute, from a tenth of it."""
    dense = 400_000 if quick else 4_000_000
    sparse = 50_000 if quick else 1_000_000
    figures: Figures = {}
    figures["pipeline_events_per_s"] = await pipeline(Workload(dense, DENSE_PER_S))
    figures["pipeline_sparse_events_per_s"] = await pipeline(sparse_workload(sparse))
    figures["plain_faust_events_per_s"] = await plain_faust(FAUST_EVENTS // (5 if quick else 1))
    figures["ratio_to_plain_faust"] = figures["pipeline_events_per_s"] / figures["plain_faust_events_per_s"]
    figures.update(await visible_ms(20_000.0, 5.0 if quick else 60.0))
    if why_not() is None and not quick:
        figures.update(await visible_ms(20_000.0, 60.0, on_kafka=True))
    figures["restart_caught_up_s"] = await restart_caught_up_s(10_000.0, 4.0 if quick else 12.0)
    figures["bytes_per_dedupe_id"] = bytes_per_dedupe_id(250_000 if quick else 1_000_000)
    figures["bytes_per_campaign_key"] = bytes_per_campaign_key(250 if quick else 1_000)
    figures["cost_ratio_10x_campaigns"] = cost_ratio(1_000, 10_000, rounds=1 if quick else 3)
    return figures


def sparse_workload(events: int) -> Workload:
    """About five events to a pane key: 5,000 creatives in panes of 10 s, each input a key of its own."""
    return Workload(events, per_second=1_000 * 5 * SPARSE_EVENTS_PER_KEY / 10.0)


async def fill(system: EmbeddedSystem, chunks: Iterable[list[Outgoing]]) -> int:
    """Puts a workload into the topics; returns the number of records."""
    outbox = KafkaOutbox(system.kafka)
    await outbox.start()
    count = 0
    try:
        for chunk in chunks:
            await outbox.publish(chunk)
            count += len(chunk)
    finally:
        await outbox.stop()
    return count


async def pipeline(
    workload: Workload, settings: dict[str, str] | None = None, campaigns: Sequence[Outgoing] = ()
) -> float:
    """Events per second, from the worker being ready until every row is acknowledged.

    `settings` are the worker's; `campaigns` are records that come before all others.
    """
    with tempfile.TemporaryDirectory() as directory:
        async with EmbeddedSystem(Path(directory), settings=settings, with_worker=False) as system:
            await fill(system, [list(campaigns)])
            count = await fill(system, produce(workload))
            await system.run_worker()
            started = time.monotonic()
            status = await system.until_drained(count)
            seconds = time.monotonic() - started
            consumed = sum(entries["consumed"] for entries in status["ledger"].values())
            assert consumed == count, f"{consumed} of {count} records were consumed"
            return count / seconds


async def plain_faust(events: int) -> float:
    """The same counting as a plain Faust agent does it: one event at a time into a Faust table."""
    with tempfile.TemporaryDirectory() as directory:
        async with EmbeddedSystem(Path(directory), with_worker=False) as system:
            count = await fill(system, produce(Workload(events, DENSE_PER_S)))
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bench.plain_faust", system.broker.bootstrap_servers, str(count), directory),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            try:
                out, _ = await asyncio.wait_for(child.communicate(), 300)
            finally:
                if child.returncode is None:
                    child.kill()
            found = re.search(r"events_per_s=([\d.]+)", out.decode(errors="replace"))
            assert found, "plain Faust ended without counting"
            return float(found.group(1))
