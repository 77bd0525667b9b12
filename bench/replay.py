"""What a worker has processed, replayed: by one process, by two, against the live pipeline; in one run.

`live_events_per_s`: from the worker being ready until every row has been acknowledged. `replay_events_per_s`: from the
replay's first process starting until its rows are in; on the same records, the same broker and the same ClickHouse.

Twelve partitions, as the runbook advises: of four, one holds 43% of the standard workload, and two processes could not
be more than 1.75 times as fast as one.

`live_visible_ms_…`: from an event being published to a reader seeing its row, at 2,000 events/s on the embedded
broker: with the worker alone; with replays beside it, one after the other, each of one process and with an embedded
engine of its own; and, to tell what of that is the machine's sharing, with as many processes that only compute.

Six million events: two processes take 20 s, of which what a replay takes to begin and to end is a twentieth or two.

Figures of one process and of two are medians of `PAIRS` replays each, in turn, and the ratio is that of the pairs.
Only the first pair's rows are kept beside the live ones, and compared.

`one_process_cores`, `two_process_cores`: processor time of the command, its processes and the broker, for each second
of the replay. Of two cores 2.0 is all that there is: then the processes wait for a core, and not for each other.

`archive_…`: the same from a Parquet archive of these topics. Where the topics are replayed the broker works beside the
processes; here two processes have the two cores to themselves, but for the command that inserts their rows.

`parent_peak_mb`, `process_peak_mb`: the most resident memory of the command, and of the largest of its processes.
"""

import asyncio
import contextlib
import itertools
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench.memory import Peaks, cpu_s
from bench.pipeline import DENSE_PER_S, Figures, fill
from bench.probes import Pump, probed, share_of
from bench.workload import Workload, produce
from streams.adapters.clickhouse_runs import ClickHouseRuns
from streams.adapters.embedded_broker import EmbeddedBroker
from streams.adapters.kafka_outbox import KafkaOutbox
from streams.jobs.embedded import EmbeddedSystem
from streams.jobs.replay_compare import rows_differing
from streams.settings import ClickHouseSettings

PARTITIONS = 12
LIVE_PER_S = 2_000.0
PAIRS = 3
CLICKHOUSE = "CAMPAIGN_STREAMS_CLICKHOUSE__DSN"
WHOLE = ("--from", "2020-01-01", "--to", "2100-01-01")


async def run(quick: bool) -> Figures:
    """All figures of this benchmark, from one run."""
    events = 300_000 if quick else 6_000_000
    with tempfile.TemporaryDirectory() as directory:
        async with EmbeddedSystem(Path(directory), partitions=PARTITIONS, with_worker=False) as system:
            count = await fill(system, produce(Workload(events, DENSE_PER_S, partitions=PARTITIONS)))
            await system.run_worker()
            began = time.monotonic()
            await system.until_drained(count)
            live = count / (time.monotonic() - began)
            await system.stop_worker()
            pairs = 1 if quick else PAIRS
            ours = await compared(system, pairs, "", ())
            archived = await from_archive(system, pairs, Path(directory) / "archive")
            differing = await asyncio.to_thread(differences, system)
    latency = await visible_beside(200_000 if quick else 400_000, 10.0 if quick else 30.0)
    return {
        "live_events_per_s": live,
        "replay_events_per_s": ours["events_per_s"],
        "replay_to_live": ours["events_per_s"] / live,
        "two_process_ratio": ours["ratio"],
        "one_process_cores": ours["one_cores"],
        "two_process_cores": ours["two_cores"],
        "rows": ours["rows"],
        "parent_peak_mb": ours["parent_peak_mb"],
        "process_peak_mb": ours["process_peak_mb"],
        "rows_differing": differing,
        **archived,
        **latency,
    }


async def from_archive(system: EmbeddedSystem, pairs: int, archive: Path) -> Figures:
    """Replays of an archive of what stands in the topics, by one process and by two."""
    await told(system, "archive", "--to", str(archive), "--raw", "--json")
    found = await compared(system, pairs, "archived-", ("--archive", str(archive)))
    return {
        "archive_replay_events_per_s": found["events_per_s"],
        "archive_two_process_ratio": found["ratio"],
        "archive_one_process_cores": found["one_cores"],
        "archive_two_process_cores": found["two_cores"],
    }


async def compared(system: EmbeddedSystem, pairs: int, prefix: str, more: Sequence[str]) -> Figures:
    """Replays by one process and by two, in turn. Each pair but the first writes into an engine of its own."""
    ones, twos = [], []
    for pair in range(pairs):
        own = {} if pair == 0 else {CLICKHOUSE: f"chdb://{system.directory.resolve() / f'{prefix}pair-{pair}'}"}
        ones.append(await replayed(system, f"{prefix}one", 1, more, own))
        twos.append(await replayed(system, f"{prefix}two", 2, more, own))
    return {
        "events_per_s": median(one["events_per_s"] for one in ones),
        "ratio": median(two["events_per_s"] / one["events_per_s"] for one, two in zip(ones, twos, strict=True)),
        "one_cores": median(one["cores"] for one in ones),
        "two_cores": median(two["cores"] for two in twos),
        "rows": ones[0]["rows"],
        "parent_peak_mb": max(each["parent_peak_mb"] for each in (*ones, *twos)),
        "process_peak_mb": max(each["process_peak_mb"] for each in (*ones, *twos)),
    }


async def visible_beside(history: int, seconds: float) -> Figures:
    """A live worker's latency alone, beside replays of what it has processed, and beside mere computing."""
    found: Figures = {}
    with tempfile.TemporaryDirectory() as directory:
        async with EmbeddedSystem(Path(directory), partitions=PARTITIONS) as system:
            count = await fill(system, produce(Workload(history, DENSE_PER_S, partitions=PARTITIONS)))
            await system.until_drained(count)
            outbox = KafkaOutbox(system.kafka)
            await outbox.start()
            pump = Pump(outbox, LIVE_PER_S, PARTITIONS)
            load = asyncio.create_task(pump.run())
            await asyncio.sleep(3.0)
            for name, beside in (("alone", nothing), ("beside_replay", replays), ("beside_load", computing)):
                task = asyncio.create_task(beside(system))
                await asyncio.sleep(1.0)
                waits = await probed(system, outbox, seconds, name)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                found[f"live_visible_ms_p50_{name}"] = share_of(waits, 0.5)
                found[f"live_visible_ms_p99_{name}"] = share_of(waits, 0.99)
            pump.stopping = True
            await load
            await outbox.stop()
    return found


async def nothing(system: EmbeddedSystem) -> None:
    """Nobody is beside the worker."""


async def replays(system: EmbeddedSystem) -> None:
    """One replay after the other, until it is cancelled."""
    own = {CLICKHOUSE: f"chdb://{system.directory.resolve() / 'replays'}"}
    for number in itertools.count():
        words = ("-m", "streams.cli", "replay", *WHOLE, "--run", f"beside-{number}")
        async with children([words], system.environment() | own) as (replay,):
            assert await replay.wait() == 0, "a replay beside the worker has failed"


async def computing(system: EmbeddedSystem) -> None:
    """As many processes as a replay has, its command and one more, which want all of their time."""
    async with children([("-c", "while True: pass")] * 2, system.environment()) as started:
        await asyncio.gather(*(child.wait() for child in started))


@contextlib.asynccontextmanager
async def children(
    words: Sequence[Sequence[str]], environment: dict[str, str]
) -> AsyncIterator[list[asyncio.subprocess.Process]]:
    """Processes that end with the block."""
    silent = {"stdout": asyncio.subprocess.DEVNULL, "stderr": asyncio.subprocess.DEVNULL}
    started = [await asyncio.create_subprocess_exec(sys.executable, *each, env=environment, **silent) for each in words]
    try:
        yield started
    finally:
        for child in started:
            if child.returncode is None:
                child.terminate()
        await asyncio.gather(*(child.wait() for child in started))


async def replayed(
    system: EmbeddedSystem, name: str, processes: int, more: Sequence[str], own: dict[str, str]
) -> dict[str, Any]:
    """The summary of one replay by the command line, and what it took of memory and cores. `own`: its environment."""
    asked = ("replay", *WHOLE, "--run", name, "--processes", str(processes), "--json", *more)
    return await told(system, *asked, own=own)


async def told(system: EmbeddedSystem, *arguments: str, own: dict[str, str] | None = None) -> dict[str, Any]:
    """What a command tells as JSON, and what it took of memory and cores."""
    assert isinstance(system.broker, EmbeddedBroker)
    assert system.broker.pid is not None
    broker = system.broker.pid
    began, broker_s = time.monotonic(), cpu_s(broker)
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "streams.cli", *arguments),
        env=system.environment() | (own or {}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with Peaks(child.pid).followed() as peaks:
        out, _ = await asyncio.wait_for(child.communicate(), 1_800)
    assert child.returncode == 0, f"{arguments[0]} ended with {child.returncode}"
    cores = (peaks.cpu_s + cpu_s(broker) - broker_s) / (time.monotonic() - began)
    summary: dict[str, Any] = json.loads(out)
    return {**summary, "cores": cores, "parent_peak_mb": peaks.first, "process_peak_mb": peaks.largest_other}


def differences(system: EmbeddedSystem) -> int:
    """Rows by which the runs differ from the live rows, and from each other; every column is compared."""
    dsn = system.environment()[CLICKHOUSE]
    runs = ClickHouseRuns(ClickHouseSettings.model_validate({"dsn": dsn}))
    runs.open()
    try:
        names = ("one", "two", "archived-one", "archived-two")
        pairs = (*((name, "live") for name in names), ("one", "two"), ("archived-one", "archived-two"))
        found = [rows_differing(runs, runs.find(mine), other) for mine, other in pairs]
    finally:
        runs.close()
    return sum(sum(each.values()) for each in found)
