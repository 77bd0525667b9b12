"""What generated campaigns pay and may spend: billing, budgets, pacing and alerts that suit the profile's traffic.

A budget is told as the time that the campaign's traffic takes to spend it, at the mean rate and unthrottled: 20 minutes
of supply are gone in 20 minutes, 48 hours of supply cannot be spent in a day. So at any rate some campaigns run dry and
some are limited by supply, and budgets span more than three orders of magnitude. Everything is a function of the
profile; the seed of the traffic does not touch it.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from streams.accounts import Account, AccountBalance, SharedBudget
from streams.campaigns import CampaignSettings
from streams.jobs.traffic_profile import TrafficProfile
from streams.jobs.traffic_shape import zipf_weights
from streams.signals import LiveSession, SessionState
from streams.terms import (
    Alerting,
    AlertKind,
    Billing,
    BillingModel,
    Budget,
    OverDelivery,
    Pacing,
    PacingMode,
    PacingPeriod,
    QuietHours,
)

HOUR_MS: Final = 3_600_000
SESSION_HOURS: Final = 2
"""How long a session is planned that opens at once."""
SESSION_SUPPLY: Final = 0.6
"""Of what the live shop could spend in its hours."""
SHARED: Final = (2, 3)
"""Campaigns (by index) of one advertiser that share a budget, and have none of their own."""
SHARED_HOURS: Final = 10.0
ON_ACCOUNT: Final = (6, 7)
"""Campaigns of one account, whose balance is put."""
ACCOUNT_HOURS: Final = 30.0
SUPPLY_HOURS: Final = (8.0, 16.0, 36.0, 1 / 30, 12.0, 1 / 3, 20.0, 48.0, 4.0, 24.0)
"""A day's budget in hours of supply, in turn."""
CPM: Final = {"CNY": 18.0, "USD": 4.0, "EUR": 3.5, "JPY": 500.0}
"""Usual price per mille, units of the currency."""
_MODELS: Final = (
    *(BillingModel.OCPM, BillingModel.CPM, BillingModel.PAID_PLAY, BillingModel.CPC),
    *(BillingModel.CLEARING_PRICE, BillingModel.CPA, BillingModel.CPM, BillingModel.CPC),
)
_MODES: Final = (PacingMode.TRAFFIC_SHAPED, PacingMode.EVEN, None, PacingMode.AS_SOON_AS_POSSIBLE)
_PLAYS_3S: Final = 0.55
"""Plays that reach three seconds, per impression of a video (means of the catalogue)."""
_EVENTS_PER_VIDEO: Final = 2.2
_SLACK: Final = 1.3
"""Target cost over the usual cost of a conversion."""


class Supply(NamedTuple):
    """What traffic there is for campaigns, in the mean."""

    requests_per_h: float
    weights: list[float]
    total: float
    """Of the weights."""

    def impressions_per_h(self, profile: TrafficProfile, index: int) -> float:
        """Of the campaign at this rank, outside the live shop's hours."""
        return self.requests_per_h * (1 - profile.organic_share) * self.weights[index] / self.total


def supply_of(profile: TrafficProfile) -> Supply:
    """Estimated from the profile alone, to within some ten per cent."""
    per_request = 1.01 + profile.video_share * _EVENTS_PER_VIDEO + profile.ctr * (1 + 1.5 * profile.cvr)
    weights = zipf_weights(profile.campaigns, profile.campaign_skew)
    return Supply(profile.rate / per_request * 3_600, weights, sum(weights))


def with_money(
    profile: TrafficProfile, supply: Supply, index: int, cpm_micros: float, settings: CampaignSettings
) -> CampaignSettings:
    """The settings with their terms. `cpm_micros` is what the campaign's auctions cost per mille."""
    billing = _billing(profile, index, cpm_micros, settings)
    hourly = supply.impressions_per_h(profile, index) * cpm_micros / 1_000
    period = PacingPeriod.LIVE_SESSION if _is_live(profile, index) else PacingPeriod.DAY
    pacing = Pacing(
        mode=None if period is PacingPeriod.LIVE_SESSION else _MODES[index % len(_MODES)],
        period=period,
        over_delivery=OverDelivery(daily_multiplier_ppm=1_200_000 if index % 7 == 5 else 1_000_000),
    )
    return msgspec.structs.replace(
        settings,
        billing=billing,
        budget=_budget(profile, supply, index, hourly, cpm_micros),
        pacing=pacing,
        alerts=_alerts(settings, index),
    )


def shared_money(profile: TrafficProfile, campaigns: list[CampaignSettings], as_of_ms: int) -> list[Account]:
    """The budget and the account that campaigns share, where the profile has these campaigns."""
    supply = supply_of(profile)
    accounts: list[Account] = []
    if profile.campaigns > max(SHARED):
        first = campaigns[SHARED[0]]
        accounts.append(
            SharedBudget(
                shared_budget_id=first.budget.shared_budget_id or "",
                advertiser_id=first.advertiser_id or "",
                currency=first.currency,
                time_zone=first.time_zone,
                daily_micros=_rounded(SHARED_HOURS * _hourly(profile, supply, SHARED, first.currency)),
            )
        )
    if profile.campaigns > max(ON_ACCOUNT):
        first = campaigns[ON_ACCOUNT[0]]
        total = _rounded(ACCOUNT_HOURS * _hourly(profile, supply, ON_ACCOUNT, first.currency))
        accounts.append(
            AccountBalance(
                account_id=first.account_id or "",
                currency=first.currency,
                cash_micros=total - total // 10,
                grant_micros=total // 10,
                as_of_ms=as_of_ms,
            )
        )
    return accounts


def live_sessions(
    profile: TrafficProfile, live: CampaignSettings, since_ms: int, *, opens_at_once: bool = False
) -> Iterator[LiveSession]:
    """Begins and ends of the live shop's sessions from a time on, in order, without end; none without a live shop.

    With `opens_at_once` the first begins then and there, whatever the hour, so that a short run has one.
    """
    if not profile.live_share or profile.live_from_hour == profile.live_to_hour:
        return
    if opens_at_once:
        ends_ms = since_ms + SESSION_HOURS * HOUR_MS
        yield _session(live, since_ms, SessionState.STARTED, since_ms, ends_ms)
        yield _session(live, since_ms, SessionState.ENDED, ends_ms)
        since_ms = ends_ms
    for begins_ms, ends_ms in _evenings(profile, since_ms):
        if begins_ms >= since_ms or not opens_at_once:
            yield _session(live, begins_ms, SessionState.STARTED, max(begins_ms, since_ms), ends_ms)
            yield _session(live, begins_ms, SessionState.ENDED, ends_ms)


def _evenings(profile: TrafficProfile, since_ms: int) -> Iterator[tuple[int, int]]:
    """The live shop's hours of each local day, as far as they end after a time."""
    zone = ZoneInfo(profile.time_zone)
    first = datetime.fromtimestamp(since_ms / 1000, UTC).astimezone(zone).replace(tzinfo=None)
    midnight = first.replace(hour=0, minute=0, second=0, microsecond=0)
    for day in count():
        hours = (profile.live_from_hour, profile.live_to_hour)
        begins, ends = (midnight + timedelta(days=day, hours=hour) for hour in hours)
        begins_ms, ends_ms = (int(at.replace(tzinfo=zone).timestamp() * 1000) for at in (begins, ends))
        if ends_ms > since_ms:
            yield begins_ms, ends_ms


def _session(
    live: CampaignSettings, begins_ms: int, state: SessionState, at_ms: int, planned_end_ms: int | None = None
) -> LiveSession:
    evening = datetime.fromtimestamp(begins_ms / 1000, UTC).strftime("%Y%m%d-%H%M")
    return LiveSession(
        campaign_id=live.campaign_id,
        live_session_id=f"live-{live.campaign_id}-{evening}",
        creator_id="creator-1",
        state=state,
        event_time_ms=at_ms,
        planned_end_ms=planned_end_ms,
    )


def _is_live(profile: TrafficProfile, index: int) -> bool:
    return index == 0 and profile.live_share > 0 and profile.live_to_hour > profile.live_from_hour


def _is_shared(profile: TrafficProfile, index: int) -> bool:
    return index in SHARED and profile.campaigns > max(SHARED)


def _hourly(profile: TrafficProfile, supply: Supply, indices: tuple[int, ...], currency: str) -> float:
    """What these could spend an hour together at usual prices, micros."""
    return sum(supply.impressions_per_h(profile, index) for index in indices) * CPM[currency] * 1_000


def _billing(profile: TrafficProfile, index: int, cpm_micros: float, settings: CampaignSettings) -> Billing:
    """Prices are such that every model costs about the same for each impression."""
    clicks, plays = profile.ctr, profile.video_share * _PLAYS_3S
    rates = {BillingModel.CPC: clicks, BillingModel.CPA: clicks * profile.cvr, BillingModel.PAID_PLAY: plays}
    model = _MODELS[index % len(_MODELS)]
    if model in rates and rates[model] == 0:
        model = BillingModel.CPM  # nobody would ever pay
    if model is BillingModel.CLEARING_PRICE:
        return Billing()
    each = cpm_micros / 1_000 / rates[model] if model in rates else cpm_micros
    conversions = clicks * profile.cvr
    target = _rounded(_SLACK * cpm_micros / 1_000 / conversions) if conversions else None
    if model is BillingModel.OCPM and target is None:
        model = BillingModel.CPM
    return Billing(
        model=model,
        price_micros=max(1, int(each)),
        conversion_type=settings.goal if model is BillingModel.CPA else None,
        target_cost_micros=target if model in (BillingModel.OCPM, BillingModel.CPC) else None,
    )


def _budget(profile: TrafficProfile, supply: Supply, index: int, hourly: float, cpm_micros: float) -> Budget:
    if _is_live(profile, index):
        shop = hourly + supply.requests_per_h * profile.live_share * cpm_micros / 1_000
        hours = profile.live_to_hour - profile.live_from_hour
        return Budget(session_micros=_rounded(SESSION_SUPPLY * hours * shop))
    if _is_shared(profile, index):
        return Budget(shared_budget_id="shared-0001")
    daily = _rounded(SUPPLY_HOURS[(index - 1) % len(SUPPLY_HOURS)] * hourly)
    return Budget(daily_micros=daily, total_micros=_rounded(5.0 * daily) if index % 6 == 5 else None)


def _alerts(settings: CampaignSettings, index: int) -> Alerting:
    is_chinese = settings.currency == "CNY"
    return Alerting(
        language="zh" if is_chinese else "en",
        stalled_ms=(600_000, 1_800_000, 3_600_000)[index % 3],
        balance_hours=48 if index in ON_ACCOUNT else 24,
        off=(AlertKind.CTR_ANOMALY,) if index % 9 == 8 else (),
        quiet_hours=QuietHours(begins="23:00", ends="07:00") if index % 4 == 2 else None,
    )


def _rounded(micros: float) -> int:
    """To two digits, as people choose amounts; at least a cent, at most what a budget may be."""
    amount = int(min(max(micros, 10_000), 10**15))
    step: int = 10 ** max(0, len(str(amount)) - 2)
    return amount // step * step
