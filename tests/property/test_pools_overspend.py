"""No pool is overspent by campaigns that keep within the limits they hold, however late they learn them."""

import copy
import heapq
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.accounts import Account, AccountBalance, SharedBudget
from streams.signals import Allowance, PoolKind, SpendReport
from streams.stages.pools import Pools

DAY = 1_793_548_800_000
BUDGET = SharedBudget(
    shared_budget_id="p", advertiser_id="a", currency="CNY", time_zone="Asia/Shanghai", daily_micros=1_000_000
)
BALANCE = AccountBalance(account_id="p", currency="CNY", cash_micros=900_000, grant_micros=100_000, as_of_ms=DAY)
TOTAL = 1_000_000


class Campaign:
    """Spends what it likes within the limit that it holds, and reports it."""

    def __init__(self, name: str, random: Random, is_shared: bool) -> None:
        self.name = name
        self.random = random
        self.is_shared = is_shared
        self.spend = 0 if is_shared else random.randrange(10**6)
        self.base = self.spend
        self.held: Allowance | None = None
        self.appetite = random.choice([0, 100, 2_000, 30_000])
        self.sent = 0

    def holds(self, allowance: Allowance) -> None:
        if self.held is None or allowance.sequence > self.held.sequence:
            self.held = allowance

    def spends(self) -> None:
        if self.random.random() < 0.02:
            self.appetite = self.random.choice([0, 100, 2_000, 30_000])
        room = self.held.limit_micros - self.spend if self.held else 0
        self.spend += max(0, min(room, self.random.randrange(self.appetite + 1)))

    def report(self, now_ms: int) -> SpendReport:
        self.sent += 1
        return SpendReport(
            campaign_id=self.name,
            advertiser_id="a",
            currency="CNY",
            pool=PoolKind.SHARED_BUDGET if self.is_shared else PoolKind.BALANCE,
            pool_id="p",
            spend_micros=self.spend,
            day_start_ms=DAY,
            day_spend_micros=self.spend if self.is_shared else 0,
            demand_micros_per_h=self.appetite * self.random.choice([0, 1_500, 2_000]),
            spend_last_hour_micros=0,
            baseline_micros=self.held.baseline_micros if self.held else 0,
            baseline_as_of_ms=self.held.as_of_ms if self.held else 0,
            at_ms=now_ms,
            sequence=self.sent,
        )


class World:
    """Campaigns, the agent, and two topics that delay, reorder and lose."""

    def __init__(self, seed: int, account: Account, campaigns: int, *, most_ms: int, loss: float = 0.0) -> None:
        self.random = Random(seed)
        self.account = account
        is_shared = isinstance(account, SharedBudget)
        self.campaigns = [Campaign(f"c{i}", self.random, is_shared) for i in range(campaigns)]
        self.most_ms, self.loss = most_ms, loss
        self.now = DAY + 1
        self.under_way: list[tuple[int, int, int, Any]] = []
        self.count = 0
        self.start()

    def start(self) -> None:
        """An agent that knows nothing; reports on their way come to it."""
        self.pools = Pools()
        self.pools.take_account("p", self.account)

    @property
    def spent(self) -> int:
        return sum(campaign.spend - campaign.base for campaign in self.campaigns)

    def send(self, what: Any) -> None:
        if self.random.random() >= self.loss:
            self.count += 1
            at = self.now + self.random.randrange(self.most_ms + 1)
            heapq.heappush(self.under_way, (at, self.count, self.now, what))

    def second(self) -> None:
        self.now += 1_000
        while self.under_way and self.under_way[0][0] <= self.now:
            _, _, sent_ms, what = heapq.heappop(self.under_way)
            if isinstance(what, Allowance):
                self.campaigns[int(what.campaign_id[1:])].holds(what)
            else:
                self.pools.take_report(what, sent_ms, self.now)
        for number, campaign in enumerate(self.campaigns):
            campaign.spends()
            if (self.now // 1_000 + number) % 5 == 0:
                self.send(campaign.report(self.now))
        if self.now // 1_000 % 5 == 0:
            for allowance in self.pools.due(self.now):
                self.send(allowance)
        assert self.spent <= TOTAL


seeds = given(seed=st.integers(0, 2**32), campaigns=st.integers(1, 6))
few = settings(max_examples=25, deadline=None)


@few
@seeds
def test_a_shared_budget_is_not_overspent_whatever_is_late_lost_or_out_of_order(seed: int, campaigns: int) -> None:
    world = World(seed, BUDGET, campaigns, most_ms=40_000, loss=0.2)
    for _ in range(600):
        world.second()


@few
@seeds
def test_a_shared_budget_is_not_overspent_when_agents_die_and_start_anew(seed: int, campaigns: int) -> None:
    world = World(seed, BUDGET, campaigns, most_ms=4_000)
    for _ in range(600):
        if world.random.random() < 0.01:
            world.start()
        world.second()


@few
@seeds
def test_a_balance_is_not_overspent_when_allowances_are_seen_within_half_a_minute(seed: int, campaigns: int) -> None:
    world = World(seed, BALANCE, campaigns, most_ms=29_000)
    for _ in range(600):
        world.second()


@few
@seeds
def test_reports_that_come_twice_and_in_another_order_change_nothing(seed: int, campaigns: int) -> None:
    world = World(seed, BUDGET, campaigns, most_ms=3_000)
    for _ in range(60):
        world.second()
    twin = copy.deepcopy(world.pools)
    reports = [c.report(world.now) for _ in range(3) for c in world.campaigns]
    mixed = world.random.sample(reports * 2, 2 * len(reports))
    for pools, arriving in ((world.pools, reports), (twin, mixed)):
        for report in arriving:
            pools.take_report(report, world.now, world.now)
    assert world.pools.due(world.now) == twin.due(world.now)


@pytest.mark.parametrize("account", [BUDGET, BALANCE], ids=["shared_budget", "balance"])
def test_a_campaign_that_wants_all_gets_nearly_all_of_it(account: Account) -> None:
    world = World(7, account, 4, most_ms=2_000)
    for number, campaign in enumerate(world.campaigns):
        campaign.appetite = 2_000 if number == 0 else 0
    for _ in range(1_500):
        world.random.random()
        for campaign in world.campaigns[1:]:
            campaign.appetite = 0
        world.campaigns[0].appetite = 2_000
        world.second()
    assert world.spent > 0.98 * TOTAL
