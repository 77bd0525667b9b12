"""The terms of generated campaigns: sound, and such that their traffic shows pacing at work."""

import itertools
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
import yaml  # type: ignore[import-untyped]  # has no stubs of its own

from streams.accounts import AccountBalance, SharedBudget, problems_of
from streams.campaigns import CampaignSettings
from streams.campaigns import problems_of as campaign_problems_of
from streams.events import Click, Conversion, Impression, Input, Milestone, Play
from streams.jobs.campaign_files import read_account_file
from streams.jobs.generate import (
    generate,
    generate_accounts,
    generate_campaigns,
    generate_sessions,
    traffic_profile,
)
from streams.jobs.traffic_money import SHARED, SUPPLY_HOURS, supply_of
from streams.signals import SessionState
from streams.stages.decode import Decoder
from streams.state.prices import Tariff, tariff_of
from streams.terms import BillingModel, PacingMode, PacingPeriod

PROFILE = traffic_profile(rate=2_000)
NOON_MS = 1_793_592_000_000  # 2026-11-02 12:00 in Shanghai
HOUR_MS = 3_600_000


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"campaigns": 1},
        {"campaigns": 3},
        {"ctr": 0.0},
        {"cvr": 0.0},
        {"video_share": 0.0},
        {"live_share": 0.0},
        {"rate": 0.001},
        {"rate": 10_000_000, "campaigns": 50},
        {"live_from_hour": 5, "live_to_hour": 5},
    ],
    ids=str,
)
def test_terms_are_sound_for_every_profile(choices: dict[str, object]) -> None:
    profile = traffic_profile(**choices)
    campaigns = generate_campaigns(profile)
    assert [campaign_problems_of(msgspec.to_builtins(campaign)) for campaign in campaigns] == [[]] * len(campaigns)
    for account in generate_accounts(profile, NOON_MS):
        assert problems_of(msgspec.to_builtins(account)) == []


def test_models_modes_languages_and_budgets_are_mixed() -> None:
    campaigns = generate_campaigns(PROFILE)
    models = Counter(campaign.billing.model for campaign in campaigns)
    wanted = {BillingModel.CPM, BillingModel.CPC, BillingModel.CPA, BillingModel.OCPM, BillingModel.PAID_PLAY}
    assert wanted <= models.keys()
    assert all(c.billing.target_cost_micros for c in campaigns if c.billing.model is BillingModel.OCPM)
    assert {campaign.pacing.mode for campaign in campaigns} == {None, *PacingMode}
    assert all((campaign.alerts.language == "zh") is (campaign.currency == "CNY") for campaign in campaigns)
    assert campaigns[0].pacing.period is PacingPeriod.LIVE_SESSION
    daily = [c.budget.daily_micros for c in generate_campaigns(traffic_profile(campaigns=100)) if c.currency == "CNY"]
    known = [micros for micros in daily if micros]
    assert max(known) > 1_000 * min(known)


def test_budgets_follow_the_rate_of_the_traffic() -> None:
    slow, fast = (generate_campaigns(traffic_profile(rate=rate))[1].budget.daily_micros or 0 for rate in (100, 1_000))
    assert fast == pytest.approx(10 * slow, rel=0.1)
    assert min(SUPPLY_HOURS) * 60 < 5 < 24 < max(SUPPLY_HOURS)


def cost(event: object, tariff: Tariff | None) -> int:
    """Of one event by a plain reading of the tariff, millimicros."""
    if tariff is None:
        return getattr(event, "clearing_price_millimicros", None) or 0
    kinds = {Input.IMPRESSIONS: Impression, Input.CLICKS: Click, Input.PLAYS: Play, Input.CONVERSIONS: Conversion}
    if not isinstance(event, kinds[tariff.source]):
        return 0
    if isinstance(event, Play) and (event.milestone is not Milestone(tariff.kind) or event.loop != 1):
        return 0
    if isinstance(event, Conversion) and event.conversion_type.value != tariff.kind:
        return 0
    return tariff.price_millimicros


def test_an_hours_traffic_spends_about_what_the_budgets_take_it_for() -> None:
    profile = traffic_profile(
        rate=60, duration_ms=HOUR_MS, cycle=False, live_share=0.0, campaigns=4, compress=1e-5, ctr=0.1, cvr=0.2
    )
    campaigns = {campaign.campaign_id: campaign for campaign in generate_campaigns(profile)}
    tariffs = {name: tariff_of(campaign) for name, campaign in campaigns.items()}
    decoders = {source: Decoder(source) for source in Input}
    spent: Counter[str] = Counter()
    for generated in generate(profile, seed=2):
        if generated.key in campaigns and not generated.duplicate:
            event = decoders[generated.input].decode(generated.value)
            spent[generated.key] += cost(event, tariffs[generated.key]) // 1_000
    second = campaigns["c0002"]
    hourly = (second.budget.daily_micros or 0) / SUPPLY_HOURS[0]
    assert spent["c0002"] == pytest.approx(hourly, rel=0.3)
    (shared,) = generate_accounts(profile, NOON_MS)
    together = spent["c0003"] + spent["c0004"]
    assert isinstance(shared, SharedBudget)
    assert together > 0.03 * shared.daily_micros
    assert supply_of(profile).impressions_per_h(profile, 0) > supply_of(profile).impressions_per_h(profile, 3)


def test_two_campaigns_share_a_budget_and_two_an_account_that_fit_them(tmp_path: Path) -> None:
    campaigns = generate_campaigns(PROFILE)
    shared, balance = generate_accounts(PROFILE, NOON_MS)
    assert isinstance(shared, SharedBudget)
    assert isinstance(balance, AccountBalance)
    sharing = [c for c in campaigns if c.budget.shared_budget_id == shared.shared_budget_id]
    assert [campaigns.index(campaign) for campaign in sharing] == list(SHARED)
    assert [c.account_id for c in campaigns if c.account_id] == [balance.account_id] * 2
    assert balance.as_of_ms == NOON_MS
    file = tmp_path / "all.yaml"
    documents = {name: msgspec.to_builtins(list(found)) for name, found in _both(campaigns).items()}
    file.write_text(yaml.safe_dump(documents, allow_unicode=True))
    assert read_account_file(file).problems == []


def _both(campaigns: list[CampaignSettings]) -> dict[str, list[object]]:
    return {"campaigns": list(campaigns), "accounts": list(generate_accounts(PROFILE, NOON_MS))}


def test_the_live_shop_is_a_session_each_evening() -> None:
    sessions = list(itertools.islice(generate_sessions(PROFILE, NOON_MS), 4))
    hours = [datetime.fromtimestamp(s.event_time_ms / 1000, UTC).hour + 8 for s in sessions]
    assert hours == [20, 22, 20, 22]
    assert [s.state for s in sessions] == [SessionState.STARTED, SessionState.ENDED] * 2
    assert sessions[0].live_session_id == sessions[1].live_session_id != sessions[2].live_session_id
    assert sessions[0].planned_end_ms == sessions[1].event_time_ms
    assert {s.campaign_id for s in sessions} == {"c0001"}


def test_a_session_opens_at_once_where_that_is_wanted_and_no_two_overlap() -> None:
    for since_ms in (NOON_MS, NOON_MS + 7 * HOUR_MS, NOON_MS + 9 * HOUR_MS):
        sessions = list(itertools.islice(generate_sessions(PROFILE, since_ms, opens_at_once=True), 6))
        assert sessions[0].event_time_ms == since_ms
        times = [session.event_time_ms for session in sessions]
        assert times == sorted(times)
        assert [s.state for s in sessions] == [SessionState.STARTED, SessionState.ENDED] * 3
        assert all(a.live_session_id == b.live_session_id for a, b in zip(sessions[::2], sessions[1::2], strict=True))


def test_a_run_that_begins_within_the_evening_begins_within_its_session() -> None:
    first = next(generate_sessions(PROFILE, NOON_MS + 9 * HOUR_MS))
    assert (first.event_time_ms, first.state) == (NOON_MS + 9 * HOUR_MS, SessionState.STARTED)
    assert first.planned_end_ms == NOON_MS + 10 * HOUR_MS


def test_without_a_live_shop_there_is_no_session() -> None:
    assert list(generate_sessions(traffic_profile(live_share=0.0), NOON_MS)) == []
    assert generate_campaigns(traffic_profile(live_share=0.0))[0].pacing.period is PacingPeriod.DAY
