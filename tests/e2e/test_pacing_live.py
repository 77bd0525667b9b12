"""Pacing on the embedded system: controls reflect what was spent, through a SIGKILL, and rows explain them."""

import asyncio
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streams.adapters.kafka_outbox import KafkaOutbox
from streams.commands.topic_reading import whole_topic
from streams.jobs.embedded import EmbeddedSystem
from streams.ports import Outgoing
from streams.settings import KafkaSettings
from streams.signals import Control, RateReason
from streams.topics import CAMPAIGNS, PACING
from tests.support.worker_process import until
from tests.support.zones import zone_at_noon

CPM_MICROS = 50_000_000
DAILY_MICROS = 3_000_000
"""Sixty impressions at that price."""
BATCH = 5
SETTINGS: dict[str, Any] = {
    "currency": "CNY",
    "time_zone": zone_at_noon(),  # a budget spent in a day's last half hour is pacing's aim, and not told
    "billing": {"model": "cpm", "price_micros": CPM_MICROS},
    "pacing": {"mode": "as_soon_as_possible"},
}


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def put(outbox: KafkaOutbox, campaign: str, budget: dict[str, int]) -> None:
    document = {"campaign_id": campaign, **SETTINGS, "budget": budget}
    await outbox.publish([Outgoing(CAMPAIGNS, None, campaign.encode(), msgspec.json.encode(document))])


async def show(outbox: KafkaOutbox, campaign: str, serial: int) -> None:
    """A batch of impressions, now."""
    at = now_ms()
    values = [
        msgspec.json.encode({"event_id": f"{campaign}-{serial}-{n}", "event_time_ms": at, "campaign_id": campaign})
        for n in range(BATCH)
    ]
    await outbox.publish([Outgoing("ads.impressions", None, campaign.encode(), value, at) for value in values])


async def controls_of(kafka: KafkaSettings, campaign: str) -> list[Control]:
    """In the order in which a consumer keeps them: by sequence."""
    found = []
    async with whole_topic(kafka, PACING) as records:
        async for _, record in records:
            control = msgspec.json.decode(record.value, type=Control)
            if control.campaign_id == campaign:
                found.append(control)
    return sorted(found, key=lambda control: control.sequence)


@pytest.mark.slow
async def test_controls_follow_the_spend_and_stop_it_through_a_kill(tmp_path: Path) -> None:
    async with EmbeddedSystem(tmp_path, settings={"DELIVERY__ENABLED": "false"}) as system:
        outbox = KafkaOutbox(system.kafka)
        await outbox.start()
        await put(outbox, "spends", {"daily_micros": DAILY_MICROS})
        await put(outbox, "has-time", {"daily_micros": DAILY_MICROS * 1_000_000})
        serial, killed = 0, False
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            controls = await controls_of(system.kafka, "spends")
            if controls and controls[-1].reason is RateReason.EXHAUSTED:
                break
            if controls and controls[-1].spend_micros > 0 and not killed:
                system.kill_worker()
                await until(lambda: system.restarts == 1)
                killed = True
            for campaign in ("spends", "has-time"):
                await show(outbox, campaign, serial)
            serial += 1
            await asyncio.sleep(0.5)
        await outbox.stop()
        shown = serial * BATCH
        controls = await controls_of(system.kafka, "spends")
        others = await controls_of(system.kafka, "has-time")
        await until_row(system, "spends", controls[-1].spend_micros)
        rows = await system.query(
            "SELECT spend_micros, gross_spend_micros, credited_micros, rate, reason, currency "
            "FROM campaign_pacing WHERE campaign_id = 'spends'"
        )
        alerts = await system.query("SELECT kind FROM alerts WHERE campaign_id = 'spends' AND state = 'firing'")
    assert killed
    last = controls[-1]
    assert (last.rate, last.rate_when_stale, last.reason) == (0.0, 0.0, RateReason.EXHAUSTED)
    assert DAILY_MICROS <= last.spend_micros <= shown * CPM_MICROS // 1_000
    assert others[-1].rate > 0.0
    for found in (controls, others):
        assert len({control.sequence for control in found}) == len({(c.sequence, c.rate) for c in found})
        assert all(0.0 <= c.rate_when_stale <= c.rate <= 1.0 for c in found)
        assert all(c.valid_until_ms > c.decided_ms for c in found)
        assert [c.spend_micros for c in found] == sorted(c.spend_micros for c in found)
    (row,) = rows
    assert row[0] == row[1] - row[2] == last.spend_micros
    assert row[3:] == [0, "exhausted", "CNY"] or tuple(row[3:]) == (0, "exhausted", "CNY")
    assert {kind for (kind,) in alerts} & {"exhausted", "exhausted_early"}


async def until_row(system: EmbeddedSystem, campaign: str, spend_micros: int) -> None:
    """Until ClickHouse has the last row and the alert."""
    asked = (
        f"SELECT count() FROM campaign_pacing WHERE campaign_id = '{campaign}' AND spend_micros >= {spend_micros}",
        f"SELECT count() FROM alerts WHERE campaign_id = '{campaign}' AND kind LIKE 'exhausted%'",
    )
    deadline = time.monotonic() + 40
    for question in asked:
        while not (await system.query(question))[0][0]:
            assert time.monotonic() < deadline, question
            await asyncio.sleep(0.5)
