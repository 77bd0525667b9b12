"""From a record's append to the control that reflects it: a real broker, a worker, and a consumer beside them.

A probe is an impression of a campaign whose spend it raises by a known amount; it is reflected in the first control
whose spend is at least that. Times start before the record is sent, so they are a little too long.

Where the time goes: until the tick that decided (reading, backlog, and waiting for the campaign's turn), and from then
on (the journal's round trip, the tick's work, the control's way).
"""

import asyncio
import tempfile
import time
from pathlib import Path

import msgspec
from aiokafka import TopicPartition

from bench.probes import Pump
from streams.adapters.kafka_client import make_consumer, started, stopped
from streams.adapters.kafka_outbox import KafkaOutbox
from streams.events import Input
from streams.jobs.embedded import EmbeddedSystem
from streams.ports import Outgoing
from streams.signals import Control
from streams.topics import CAMPAIGNS, INPUT_TOPICS, PACING

PROBES = 20
"""Campaigns that are probed in turn."""
PAUSE_S = 0.37
"""Between two probes: no multiple of a tick or of a look."""
PRICE_MICROS = 1_000_000
"""Per mille: an impression costs a thousandth."""
WAIT_S = 30.0


async def control_ms(rate: float, seconds: float, campaigns: int = 1_000) -> dict[str, float]:
    """Probes under load: `rate` events/s of the standard workload, whose first `campaigns` are paced too.

    A probe that is never answered counts with the time that it was waited for.
    """
    with tempfile.TemporaryDirectory() as directory:
        async with EmbeddedSystem(Path(directory), settings={"DELIVERY__ENABLED": "false"}) as system:
            outbox = KafkaOutbox(system.kafka)
            await outbox.start()
            names = [f"probe-{n:02d}" for n in range(PROBES)]
            await outbox.publish([paced(name) for name in [*names, *(f"c{n:05d}" for n in range(campaigns))]])
            pump = Pump(outbox, rate)
            load, started_at = asyncio.create_task(pump.run()), time.monotonic()
            sent: dict[tuple[str, int], float] = {}
            waits: list[float] = []
            undecided: list[float] = []
            watcher = asyncio.create_task(_watch(system, sent, waits, undecided))
            await asyncio.sleep(5.0)
            await _probe(outbox, names, sent, seconds)
            deadline = time.monotonic() + WAIT_S
            while sent and time.monotonic() < deadline:  # noqa: ASYNC110 - another task empties it
                await asyncio.sleep(0.1)
            pump.stopping = True
            await load
            lasted = time.monotonic() - started_at
            watcher.cancel()
            await outbox.stop()
    waits = sorted([*waits, *((time.monotonic() - began) * 1000 for began in sent.values())])
    undecided.sort()
    return {
        "control_ms_p50": _at(waits, 0.5),
        "control_ms_p99": _at(waits, 0.99),
        "control_until_decided_ms_p50": _at(undecided, 0.5),
        "control_until_decided_ms_p99": _at(undecided, 0.99),
        "control_probes": len(waits),
        "control_probes_unanswered": len(sent),
        "control_load_events_per_s": pump.sent / lasted,
    }


def _at(ordered: list[float], share: float) -> float:
    return ordered[round((len(ordered) - 1) * share)] if ordered else 0.0


def paced(campaign: str) -> Outgoing:
    """Settings under which a campaign is paced, by a budget that it will not reach."""
    document = {
        "campaign_id": campaign,
        "currency": "CNY",
        "billing": {"model": "cpm", "price_micros": PRICE_MICROS},
        "budget": {"daily_micros": 10**12},
    }
    return Outgoing(CAMPAIGNS, None, campaign.encode(), msgspec.json.encode(document))


async def _probe(outbox: KafkaOutbox, names: list[str], sent: dict[tuple[str, int], float], seconds: float) -> None:
    shown = dict.fromkeys(names, 0)
    ends, turn = time.monotonic() + seconds, 0
    while time.monotonic() < ends:
        name = names[turn % len(names)]
        turn += 1
        shown[name] += 1
        at = time.time_ns() // 1_000_000
        value = f'{{"event_id":"{name}-{shown[name]}","event_time_ms":{at},"campaign_id":"{name}"}}'.encode()
        sent[name, shown[name] * PRICE_MICROS // 1000] = time.monotonic()
        await outbox.publish([Outgoing(INPUT_TOPICS[Input.IMPRESSIONS], None, name.encode(), value, at)])
        await asyncio.sleep(PAUSE_S)


async def _watch(
    system: EmbeddedSystem, sent: dict[tuple[str, int], float], waits: list[float], undecided: list[float]
) -> None:
    """Follows ads.pacing as an ad server would."""
    consumer = await started(make_consumer(system.kafka), system.kafka)
    try:
        places = [TopicPartition(PACING, p) for p in range(system.partitions)]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        while True:
            for records in (await consumer.getmany(timeout_ms=50)).values():
                now = time.monotonic()
                for record in records:
                    control = msgspec.json.decode(record.value, type=Control)
                    reached = [key for key in sent if key[0] == control.campaign_id and key[1] <= control.spend_micros]
                    age_ms = time.time_ns() / 1e6 - control.decided_ms
                    for key in reached:
                        waited_ms = (now - sent.pop(key)) * 1000
                        waits.append(waited_ms)
                        undecided.append(max(0.0, waited_ms - age_ms))
    finally:
        await stopped(consumer)
