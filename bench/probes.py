"""Latency and restart, measured from outside: a producer, the worker, and a reader of ClickHouse."""

import asyncio
import tempfile
import time
from itertools import chain, islice
from pathlib import Path

from bench.workload import Workload, produce
from streams.adapters.kafka_outbox import KafkaOutbox
from streams.errors import CampaignStreamsError
from streams.events import Input
from streams.jobs.embedded import EmbeddedSystem
from streams.ports import Outgoing
from streams.settings import KafkaSettings
from streams.topics import INPUT_TOPICS
from tests.support.apache_kafka import ApacheKafka

STEP_S = 0.02
"""Between two publications of the load: a producer's linger."""
PROBE_EVERY_S = 0.2
POLL_S = 0.02
ASK_S = 0.1
"""Between two questions to ClickHouse, which runs in the worker's process: asking is a load, too."""


class Pump:
    """Publishes the standard workload at a rate, with event times and timestamps of now."""

    def __init__(self, outbox: KafkaOutbox, rate: float, partitions: int = 4) -> None:
        self.outbox = outbox
        self.rate = rate
        self.partitions = partitions
        self.sent = 0
        self.stopping = False

    async def run(self) -> None:
        """Until `stopping`. Event times follow the wall clock because the workload is as dense as the rate."""
        start_ms = time.time_ns() // 1_000_000
        workload = Workload(100_000_000, self.rate, start_ms=start_ms, max_disorder_ms=2_000, chunk=1_000)
        events = chain.from_iterable(produce(workload._replace(partitions=self.partitions)))
        started = next_at = time.monotonic()
        while not self.stopping:
            due = list(islice(events, int((time.monotonic() - started) * self.rate) - self.sent))
            await self.outbox.publish(due)
            self.sent += len(due)
            next_at = max(next_at + STEP_S, time.monotonic())
            await asyncio.sleep(next_at - time.monotonic())


class _Apache:
    """Apache Kafka as the system's broker."""

    def __init__(self, directory: Path) -> None:
        self._kafka = ApacheKafka(directory)

    @property
    def settings(self) -> KafkaSettings:
        return self._kafka.settings

    @property
    def bootstrap_servers(self) -> str:
        return self._kafka.bootstrap_servers

    async def start(self) -> None:
        self._kafka.start()

    async def stop(self) -> None:
        self._kafka.stop()


async def visible_ms(rate: float, seconds: float, *, on_kafka: bool = False) -> dict[str, float]:
    """From a probe being published to a reader seeing its row, under load. The reader asks every 100 ms.

    On the embedded broker, or on Apache Kafka (one KRaft node on this machine): the embedded one's time for a fetch
    grows with the batches that it holds, 0.6 us each for every partition.
    """
    with tempfile.TemporaryDirectory() as directory:
        broker = _Apache(Path(directory) / "kafka") if on_kafka else None
        async with EmbeddedSystem(Path(directory), broker=broker) as system:
            outbox = KafkaOutbox(system.kafka)
            await outbox.start()
            pump = Pump(outbox, rate)
            load = asyncio.create_task(pump.run())
            await asyncio.sleep(3.0)
            waits = await probed(system, outbox, seconds)
            pump.stopping = True
            await load
            await outbox.stop()
    name = "visible_kafka" if on_kafka else "visible"
    return {
        f"{name}_ms_p50": share_of(waits, 0.5),
        f"{name}_ms_p99": share_of(waits, 0.99),
        f"{name}_probes": len(waits),
        f"{name}_rate_events_per_s": pump.sent / (seconds + 3.0),
    }


async def probed(system: EmbeddedSystem, outbox: KafkaOutbox, seconds: float, prefix: str = "probe") -> list[float]:
    """How long each of the probes of so many seconds took to be visible, ms, sorted. `prefix`: not used before."""
    sent: dict[str, float] = {}
    seen: dict[str, float] = {}
    watcher = asyncio.create_task(_watch(system, sent, seen))
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        await _send_probe(outbox, sent, prefix)
        await asyncio.sleep(PROBE_EVERY_S)
    while len(seen) < len(sent):  # noqa: ASYNC110 - a reader of another process is waited for
        await asyncio.sleep(POLL_S)
    watcher.cancel()
    return sorted((seen[name] - sent[name]) * 1000 for name in sent)


def share_of(waits: list[float], share: float) -> float:
    """The quantile of sorted waits."""
    return waits[round((len(waits) - 1) * share)]


async def _send_probe(outbox: KafkaOutbox, sent: dict[str, float], prefix: str) -> None:
    name, now_ms = f"{prefix}-{len(sent):05d}", time.time_ns() // 1_000_000
    value = f'{{"event_id":"{name}","event_time_ms":{now_ms},"campaign_id":"{name}"}}'.encode()
    started = time.monotonic()
    await outbox.publish([Outgoing(INPUT_TOPICS[Input.IMPRESSIONS], None, name.encode(), value, now_ms)])
    sent[name] = started


async def _watch(system: EmbeddedSystem, sent: dict[str, float], seen: dict[str, float]) -> None:
    while True:
        waiting = [name for name in list(sent) if name not in seen]
        if waiting:
            names = ",".join(f"'{name}'" for name in waiting)
            try:
                rows = await system.query(f"SELECT DISTINCT campaign_id FROM pane_rows WHERE campaign_id IN ({names})")
            except CampaignStreamsError:
                rows = []
            now = time.monotonic()
            for row in rows:
                seen.setdefault(row[0], now)
        await asyncio.sleep(ASK_S)


async def restart_caught_up_s(rate: float, warm_up_s: float = 12.0) -> float:
    """From SIGKILL of the worker under load until it has applied everything sent so far, to within 0.3 s of traffic."""
    with tempfile.TemporaryDirectory() as directory:
        async with EmbeddedSystem(Path(directory)) as system:
            outbox = KafkaOutbox(system.kafka)
            await outbox.start()
            pump = Pump(outbox, rate)
            load = asyncio.create_task(pump.run())
            await asyncio.sleep(warm_up_s)
            killed = time.monotonic()
            system.kill_worker()
            while not await _is_caught_up(system, pump):  # noqa: ASYNC110 - another process is asked
                await asyncio.sleep(POLL_S)
            seconds = time.monotonic() - killed
            pump.stopping = True
            await load
            await outbox.stop()
            return seconds


async def _is_caught_up(system: EmbeddedSystem, pump: Pump) -> bool:
    if system.restarts == 0:
        return False
    status = await system.status()
    if status is None or len(status["partitions"]) < system.partitions or status["recovering"]:
        return False
    consumed = sum(entries["consumed"] for entries in status["ledger"].values())
    return bool(consumed >= pump.sent - 0.3 * pump.rate)
