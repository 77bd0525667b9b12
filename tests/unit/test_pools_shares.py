"""Shared budgets and balances: what is allotted to whom, what is refused, and what is told back."""

import msgspec
import pytest

from streams.accounts import AccountBalance, SharedBudget
from streams.events import Reason, Rejected
from streams.signals import Allowance, PoolKind, SpendReport
from streams.stages import pools as module
from streams.stages.pools import HOLD_MS, LAPSE_MS, REPEAT_MS, SETTLE_MS, SILENT_MS, Pools, Refusal, decode_report

DAY = 1_793_548_800_000
"""2026-11-01T16:00Z: midnight in Shanghai."""
NOON = DAY + 12 * 3_600_000
BUDGET = SharedBudget(
    shared_budget_id="s1", advertiser_id="a1", currency="CNY", time_zone="Asia/Shanghai", daily_micros=1_000_000
)
BALANCE = AccountBalance(account_id="b1", currency="CNY", cash_micros=700_000, grant_micros=300_000, as_of_ms=NOON)


class Bench:
    """Pools, and campaigns that report every five seconds and hold what they were told."""

    def __init__(self, *accounts: AccountBalance | SharedBudget) -> None:
        self.pools = Pools()
        self.now = NOON
        self.held: dict[str, Allowance] = {}
        self.sent = 0
        for account in accounts:
            key = account.account_id if isinstance(account, AccountBalance) else account.shared_budget_id
            assert self.pools.take_account(key, account)

    def report(self, campaign: str, **changes: object) -> Refusal | None:
        self.sent += 1
        held = self.held.get(campaign)
        told_back = {"baseline_micros": held.baseline_micros, "baseline_as_of_ms": held.as_of_ms} if held else {}
        fields: dict[str, object] = {
            "campaign_id": campaign,
            "advertiser_id": "a1",
            "currency": "CNY",
            "pool": PoolKind.SHARED_BUDGET,
            "pool_id": "s1",
            "spend_micros": 5_000_000,
            "day_start_ms": DAY,
            "day_spend_micros": 0,
            "demand_micros_per_h": 0,
            "spend_last_hour_micros": 0,
            "at_ms": self.now,
            "sequence": self.sent,
        }
        return self.pools.take_report(SpendReport(**{**fields, **told_back, **changes}), self.now, self.now)  # type: ignore[arg-type]

    def due(self) -> dict[str, Allowance]:
        told = {allowance.campaign_id: allowance for allowance in self.pools.due(self.now)}
        self.held |= told
        return told

    def rounds(self, count: int, reports: dict[str, dict[str, object]]) -> None:
        for _ in range(count):
            self.now += 5_000
            for campaign, changes in reports.items():
                self.report(campaign, **changes)
            self.due()

    def limits(self) -> dict[str, int]:
        return {campaign: allowance.limit_micros for campaign, allowance in self.held.items()}


def settled(*accounts: AccountBalance | SharedBudget, **reports: dict[str, object]) -> Bench:
    """After the settling time, with every campaign reporting all the while."""
    bench = Bench(*accounts)
    bench.rounds(SETTLE_MS // 5_000 + 1, reports)
    return bench


def test_nothing_is_told_before_the_pool_has_been_listened_to() -> None:
    bench = Bench(BUDGET)
    bench.report("c1")
    assert bench.due() == {}
    bench.now += SETTLE_MS - 5_000
    bench.report("c1")
    assert bench.due() == {}
    bench.now += 5_000
    assert bench.due().keys() == {"c1"}


def test_a_shared_budget_is_divided_evenly_where_nothing_is_known() -> None:
    bench = settled(BUDGET, c1={}, c2={}, c3={"day_spend_micros": 100_000})
    assert bench.limits() == {"c1": 300_000, "c2": 300_000, "c3": 400_000}
    assert {allowance.left_micros for allowance in bench.held.values()} == {900_000}
    assert {allowance.pool_micros for allowance in bench.held.values()} == {1_000_000}
    assert {allowance.day_start_ms for allowance in bench.held.values()} == {DAY}


def test_shares_follow_demand_and_a_campaign_without_an_estimate_can_begin() -> None:
    bench = settled(BUDGET, c1={"demand_micros_per_h": 3_000}, c2={"demand_micros_per_h": 1_000}, c3={})
    limits = bench.limits()
    assert limits["c1"] == pytest.approx(3 * limits["c2"], rel=0.01)
    assert limits["c3"] == pytest.approx(limits["c2"] / 5, rel=0.01)
    assert sum(limits.values()) <= 1_000_000


def test_what_one_campaign_does_not_use_goes_to_another_once_it_has_let_go() -> None:
    bench = settled(BUDGET, c1={}, c2={})
    assert bench.limits() == {"c1": 500_000, "c2": 500_000}
    bench.rounds(60, {"c1": {"demand_micros_per_h": 1}, "c2": {"demand_micros_per_h": 10_000}})
    assert bench.limits()["c2"] > 990_000
    assert sum(bench.limits().values()) <= 1_000_000


def test_what_a_campaign_may_still_hold_is_given_to_nobody() -> None:
    bench = settled(BUDGET, c1={}, c2={})
    first = bench.held["c1"]
    for _ in range(60):  # c1 never sees another allowance
        bench.now += 5_000
        bench.held["c1"] = first
        bench.report("c1", demand_micros_per_h=1)
        bench.report("c2", demand_micros_per_h=10_000)
        bench.due()
        assert bench.held["c2"].limit_micros <= 500_000


def test_a_smaller_budget_is_told_at_once() -> None:
    bench = settled(BUDGET, c1={"day_spend_micros": 200_000}, c2={})
    bench.pools.take_account("s1", msgspec.structs.replace(BUDGET, daily_micros=300_000))
    bench.rounds(1, {"c1": {"day_spend_micros": 200_000}, "c2": {}})
    assert bench.limits() == {"c1": 250_000, "c2": 50_000}


def test_a_campaign_that_falls_silent_keeps_its_spend_and_its_promise_until_it_lapses() -> None:
    bench = settled(BUDGET, c1={"day_spend_micros": 100_000}, c2={})
    held = bench.limits()["c1"]
    bench.rounds(2 * SILENT_MS // 5_000, {"c2": {}})
    assert bench.limits() == {"c1": held, "c2": 1_000_000 - held}
    bench.rounds(LAPSE_MS // 5_000, {"c2": {}})
    assert bench.limits()["c2"] == 900_000


def test_a_new_day_begins_with_the_whole_budget_while_others_are_still_in_the_old_one() -> None:
    bench = settled(BUDGET, c1={"day_spend_micros": 400_000}, c2={"day_spend_micros": 400_000})
    tomorrow = DAY + 86_400_000
    bench.now = tomorrow + 1_000
    bench.rounds(5, {"c1": {"day_start_ms": tomorrow}, "c2": {"day_spend_micros": 450_000}})
    assert bench.held["c1"].day_start_ms == tomorrow
    assert bench.limits()["c1"] == 500_000
    assert bench.held["c2"].day_start_ms == DAY
    assert bench.limits()["c2"] <= 500_000
    bench.rounds(2, {"c1": {"day_start_ms": tomorrow}, "c2": {"day_start_ms": tomorrow}})
    assert bench.limits() == {"c1": 500_000, "c2": 500_000}


def test_a_day_of_25_hours_is_a_day_of_the_budgets_own_zone() -> None:
    budget = msgspec.structs.replace(BUDGET, time_zone="Europe/Berlin")
    begin = 1_792_879_200_000  # 2026-10-24T22:00Z, the day on which the clocks go back
    bench = Bench(budget)
    assert bench.report("c1", day_start_ms=begin) is None
    assert bench.report("c2", day_start_ms=begin + 25 * 3_600_000) is None
    assert bench.report("c3", day_start_ms=begin + 24 * 3_600_000) is Refusal.OTHER_DAY


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"currency": "USD"}, Refusal.OTHER_CURRENCY),
        ({"advertiser_id": "a2"}, Refusal.OTHER_ADVERTISER),
        ({"day_start_ms": DAY + 3_600_000}, Refusal.OTHER_DAY),
        ({"pool_id": "s2"}, Refusal.UNKNOWN_POOL),
        ({"pool": PoolKind.BALANCE}, Refusal.UNKNOWN_POOL),
    ],
)
def test_what_cannot_be_added_up_is_refused_and_counted(changes: dict[str, object], refusal: Refusal) -> None:
    bench = settled(BUDGET, c1={})
    bench.rounds(5, {"c1": {}, "odd": changes})
    assert bench.pools.refused == {refusal: 5}
    assert bench.limits() == {"c1": 1_000_000}


def test_a_report_older_than_one_that_came_before_changes_nothing() -> None:
    bench = settled(BUDGET, c1={"day_spend_micros": 300_000}, c2={})
    assert bench.report("c1", day_spend_micros=1, sequence=1) is Refusal.STALE
    bench.now += REPEAT_MS
    bench.report("c2")
    assert bench.due() == {} or bench.held["c2"].left_micros == 700_000


def test_a_pool_that_is_put_after_the_reports_is_served() -> None:
    bench = settled(c1={})
    assert bench.pools.refused[Refusal.UNKNOWN_POOL] > 0
    bench.pools.take_account("s1", BUDGET)
    assert bench.due().keys() == {"c1"}


def test_a_document_that_is_deleted_or_becomes_another_kind_is_no_pool_any_more() -> None:
    bench = settled(BUDGET, c1={})
    bench.pools.take_account("s1", None)
    assert bench.report("c1") is Refusal.UNKNOWN_POOL
    bench.pools.take_account("s1", msgspec.structs.replace(BALANCE, account_id="s1"))
    assert bench.report("c1") is Refusal.UNKNOWN_POOL
    assert bench.report("c1", pool=PoolKind.BALANCE) is None


def test_an_allowance_is_repeated_now_and_then_but_not_all_the_time() -> None:
    bench = settled(BUDGET, c1={}, c2={})
    told: list[str] = []
    for _ in range(24):
        bench.now += 5_000
        bench.report("c1")
        bench.report("c2")
        told += bench.due()
    assert len(told) == 2 * 24 * 5_000 // REPEAT_MS


def test_sequences_rise_even_when_the_clock_goes_back() -> None:
    bench = settled(BUDGET, c1={})
    bench.rounds(1, {"c1": {}})
    first = bench.held["c1"].sequence
    bench.report("c1", day_spend_micros=900_000)
    bench.pools.take_account("s1", msgspec.structs.replace(BUDGET, daily_micros=2_000_000))
    bench.now -= 2_000
    assert bench.due()["c1"].sequence > first


# Restart


def test_an_agent_that_starts_anew_keeps_to_what_is_out() -> None:
    bench = settled(BUDGET, c1={"demand_micros_per_h": 9_000}, c2={"demand_micros_per_h": 1_000})
    before = bench.limits()
    bench.pools = Pools()
    bench.pools.take_account("s1", BUDGET)
    swapped: dict[str, dict[str, object]] = {"c1": {"demand_micros_per_h": 1_000}, "c2": {"demand_micros_per_h": 9_000}}
    bench.rounds(4, swapped)
    assert bench.limits()["c1"] < before["c1"]
    assert bench.limits()["c2"] == before["c2"]  # until c1 has told that it holds less
    bench.rounds(60, swapped)
    assert bench.limits()["c2"] == pytest.approx(900_000, rel=0.01)


def test_a_pool_that_was_silent_is_listened_to_again_first() -> None:
    bench = settled(BUDGET, c1={})
    bench.now += SETTLE_MS
    bench.report("c1", day_spend_micros=1)
    assert bench.due() == {}
    bench.rounds(SETTLE_MS // 5_000, {"c1": {}})
    bench.now += REPEAT_MS - SETTLE_MS
    assert bench.held["c1"].sequence > NOON + 2 * SETTLE_MS


# Balances


def balance(spend: int, **changes: object) -> dict[str, object]:
    return {"pool": PoolKind.BALANCE, "pool_id": "b1", "spend_micros": spend, **changes}


def test_a_balance_is_what_is_left_after_the_spend_since_it_was_stated() -> None:
    bench = settled(BALANCE, c1=balance(5_000_000), c2=balance(9_000_000))
    assert bench.limits() == {"c1": 5_500_000, "c2": 9_500_000}
    bench.rounds(8, {"c1": balance(5_100_000, spend_last_hour_micros=60_000), "c2": balance(9_000_000)})
    told = bench.held["c1"]
    assert (told.left_micros, told.burn_micros_per_h) == (900_000, 60_000)
    assert (told.baseline_micros, told.as_of_ms, told.day_start_ms) == (5_000_000, NOON, None)


def test_baselines_survive_an_agent_because_they_are_told_back() -> None:
    bench = settled(BALANCE, c1=balance(5_000_000))
    bench.rounds(8, {"c1": balance(5_400_000)})
    bench.pools = Pools()
    bench.pools.take_account("b1", BALANCE)
    bench.rounds(8, {"c1": balance(5_600_000)})
    assert bench.held["c1"].left_micros == 400_000
    assert bench.held["c1"].baseline_micros == 5_000_000


def test_a_new_statement_of_the_balance_begins_with_the_spend_of_its_time() -> None:
    bench = settled(BALANCE, c1=balance(5_000_000))
    bench.rounds(2, {"c1": balance(5_400_000)})
    bench.pools.take_account(
        "b1", msgspec.structs.replace(BALANCE, cash_micros=600_000, grant_micros=0, as_of_ms=bench.now + 5_000)
    )
    assert bench.report("c1", **balance(5_400_000)) is Refusal.BEFORE_BALANCE
    bench.rounds(8, {"c1": balance(5_450_000)})
    assert bench.held["c1"].left_micros == 600_000
    assert bench.held["c1"].baseline_micros == 5_450_000


@pytest.mark.parametrize(
    ("as_of", "baseline"),
    [
        (DAY, 5_000_000 - 360_000),  # exactly what the day has spent
        (DAY - 86_400_000, 5_000_000 - 360_000),  # nothing is known of what was before
        (NOON + 20_000 - 1_800_000, 5_000_000 - 60_000),  # half of the last hour
        (NOON + 20_000 - 6 * 3_600_000, 5_000_000 - 180_000),  # half of the day so far
    ],
)
def test_a_balance_stated_after_the_fact_counts_what_was_spent_since(as_of: int, baseline: int) -> None:
    bench = Bench(msgspec.structs.replace(BALANCE, as_of_ms=as_of))
    bench.now = NOON + 15_000
    report = balance(5_000_000, day_spend_micros=360_000, spend_last_hour_micros=120_000)
    bench.rounds(1, {"c1": report})
    bench.rounds(3, {"c1": report})
    assert bench.held["c1"].baseline_micros == pytest.approx(baseline, abs=200)


def test_a_limit_of_a_balance_is_given_to_others_only_half_a_minute_after_it_was_lowered() -> None:
    bench = settled(BALANCE, c1=balance(0), c2=balance(0))
    assert bench.limits() == {"c1": 500_000, "c2": 500_000}
    hungry = {"c1": balance(0, demand_micros_per_h=1), "c2": balance(0, demand_micros_per_h=9_000)}
    bench.rounds(HOLD_MS // 5_000, hungry)
    assert bench.limits()["c2"] == 500_000
    bench.rounds(60, hungry)
    assert bench.limits()["c2"] > 990_000


def test_an_account_that_owes_leaves_nothing() -> None:
    bench = settled(msgspec.structs.replace(BALANCE, cash_micros=-900_000), c1=balance(5_000_000))
    assert (bench.held["c1"].left_micros, bench.held["c1"].limit_micros) == (-600_000, 5_000_000)


# Bounds


def test_pools_and_campaigns_beyond_their_bounds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_POOLS", 2)
    monkeypatch.setattr(module, "MAX_CAMPAIGNS", 3)
    bench = settled(BUDGET, c1={}, c2={}, c3={})
    assert bench.report("c4") is Refusal.TOO_MANY
    assert bench.report("c3", pool_id="s2") is Refusal.TOO_MANY
    assert not bench.pools.take_account("b9", BALANCE)
    assert bench.pools.status() == {"pools": 2, "known_pools": 1, "campaigns": 3}
    assert bench.pools.refused[Refusal.TOO_MANY] == 2


def test_promises_that_are_never_taken_up_are_merged_at_the_highest() -> None:
    bench = settled(BUDGET, c1={}, c2={})
    stuck = bench.held["c1"]
    for round_number in range(400):
        bench.now += 5_000
        bench.held["c1"] = stuck
        bench.report("c1", demand_micros_per_h=1 + 500 * (round_number % 2))
        bench.report("c2", demand_micros_per_h=900)
        bench.due()
        assert bench.held["c2"].limit_micros <= 500_000
    lines = [line for pool in bench.pools._pools.values() for m in pool.members.values() for line in m.lines.values()]
    assert max(len(line.promises) for line in lines) <= module.MAX_PROMISES


def test_what_is_no_report_is_a_value() -> None:
    for raw in (None, b"", b"{", b"[]", b'{"campaign_id":"c"}'):
        assert isinstance(decode_report(raw), Rejected)


@pytest.mark.parametrize("field", ["day_start_ms", "at_ms"])
@pytest.mark.parametrize("value", [-1, 10**18])
def test_a_report_of_no_possible_day_is_rejected_and_harms_nobody(field: str, value: int) -> None:
    document = {
        "campaign_id": "c1",
        "advertiser_id": "a1",
        "currency": "CNY",
        "pool": "shared_budget",
        "pool_id": "s1",
        "spend_micros": 1,
        "day_start_ms": DAY,
        "day_spend_micros": 1,
        "demand_micros_per_h": 0,
        "spend_last_hour_micros": 0,
        "at_ms": NOON,
    }
    assert isinstance(decode_report(msgspec.json.encode(document)), SpendReport)
    assert decode_report(msgspec.json.encode({**document, field: value})) == Rejected(Reason.OUT_OF_RANGE, f"$.{field}")
