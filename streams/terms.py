"""The terms of a campaign: how it is billed, what it may spend, how it is paced, and when somebody is told.

Nested in `streams.campaigns.CampaignSettings`. Shares are in parts per million (ppm), so that they are integers; money
is micros of the campaign's currency. Thresholds come from the field's vendors: the docstrings name the source.
"""

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from streams.events import ConversionType, Id, Milestone

PPM = 1_000_000
Micros = Annotated[int, Meta(ge=1, le=10**15)]
SharePpm = Annotated[int, Meta(ge=0, le=PPM)]
ClockTime = Annotated[str, Meta(pattern="^([01][0-9]|2[0-3]):[0-5][0-9]$")]


class BillingModel(StrEnum):
    """What costs money."""

    CLEARING_PRICE = "clearing_price"
    CPM = "cpm"
    CPC = "cpc"
    CPA = "cpa"
    PAID_PLAY = "paid_play"
    OCPM = "ocpm"
    OCPC = "ocpc"


class Billing(msgspec.Struct, frozen=True, kw_only=True):
    """How spend comes about. Optimised models are billed by impression or click, and judged by the target cost."""

    model: Annotated[
        BillingModel, Meta(description="clearing_price: what the events carry; or by impression, click, …")
    ] = BillingModel.CLEARING_PRICE
    price_micros: Annotated[
        Micros | None,
        Meta(description="Per mille (cpm, ocpm), click, play or conversion, micros; null: the events' own prices."),
    ] = None
    play_milestone: Annotated[Milestone, Meta(description="Milestone that a paid play is billed at.")] = (
        Milestone.THREE_SECONDS
    )
    conversion_type: Annotated[
        ConversionType | None, Meta(description="What cpa is billed by; null: the campaign's goal.")
    ] = None
    target_cost_micros: Annotated[
        Micros | None, Meta(description="Target cost of a conversion of the goal, micros (ocpm, ocpc, cost alerts).")
    ] = None
    learning_conversions: Annotated[
        int, Meta(ge=0, le=10_000, description="An optimised campaign learns until it has so many conversions.")
    ] = 50


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """What may be spent. Without any of these a campaign is measured, but not paced."""

    daily_micros: Annotated[Micros | None, Meta(description="Per day of the campaign's time zone, micros.")] = None
    total_micros: Annotated[Micros | None, Meta(description="Over the whole flight, micros.")] = None
    session_micros: Annotated[
        Micros | None, Meta(description="Per live session, micros; needs pacing.period live_session.")
    ] = None
    shared_budget_id: Annotated[
        Id | None, Meta(description="Budget that several campaigns of an advertiser share (ads.accounts).")
    ] = None


class PacingMode(StrEnum):
    EVEN = "even"
    TRAFFIC_SHAPED = "traffic_shaped"
    AS_SOON_AS_POSSIBLE = "as_soon_as_possible"


class PacingPeriod(StrEnum):
    DAY = "day"
    LIVE_SESSION = "live_session"


class OverDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """How much a day may exceed its budget. A policy, not a constant: Google allows twice the daily budget in a day
    and 30.4 times in a month, Meta 1.75 times in a day and 7 times in a week.
    """

    daily_multiplier_ppm: Annotated[
        int, Meta(ge=PPM, le=2 * PPM, description="A day may reach this multiple of its budget, ppm.")
    ] = PPM
    period_days: Annotated[
        int, Meta(ge=1, le=31, description="Days over which the excess must even out, counted in calendar days.")
    ] = 7
    credits_excess: Annotated[bool, Meta(description="What exceeds the period's cap is credited.")] = True


class Pacing(msgspec.Struct, frozen=True, kw_only=True):
    """How a budget is spread over its period."""

    mode: Annotated[
        PacingMode | None,
        Meta(description="even, traffic_shaped or as_soon_as_possible; null: traffic_shaped, live sessions the last."),
    ] = None
    period: Annotated[PacingPeriod, Meta(description="day or live_session.")] = PacingPeriod.DAY
    over_delivery: Annotated[OverDelivery, Meta(description="How much a day may exceed its budget.")] = OverDelivery()


class AlertKind(StrEnum):
    """What somebody is told about."""

    EXHAUSTED = "exhausted"
    EXHAUSTED_EARLY = "exhausted_early"
    STALLED = "stalled"
    BALANCE_LOW = "balance_low"
    COST_OVERRUN = "cost_overrun"
    OVER_DELIVERY = "over_delivery"
    UNDER_DELIVERY = "under_delivery"
    EXPECTED_UNDER_DELIVERY = "expected_under_delivery"
    BUDGET_LADDER = "budget_ladder"
    CTR_ANOMALY = "ctr_anomaly"
    CVR_ANOMALY = "cvr_anomaly"
    CPA_ANOMALY = "cpa_anomaly"
    CONVERSIONS_COLLAPSED = "conversions_collapsed"
    INVALID_TRAFFIC = "invalid_traffic"
    INPUT_SILENT = "input_silent"


class QuietHours(msgspec.Struct, frozen=True, kw_only=True):
    """Pushed alerts wait until these are over, in the campaign's time zone. May span midnight."""

    begins: Annotated[ClockTime, Meta(description="HH:MM, included.")]
    ends: Annotated[ClockTime, Meta(description="HH:MM, excluded.")]


class Alerting(msgspec.Struct, frozen=True, kw_only=True):
    """Thresholds, who is told, and in which language."""

    ladder_percent: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=100)], ...], Meta(max_length=10, description="Steps of the budget ladder.")
    ] = (50, 75, 90, 100)
    early_share_ppm: Annotated[
        SharePpm, Meta(description="Exhausted before this share of the period is early, ppm.")
    ] = 800_000
    stalled_ms: Annotated[
        int, Meta(ge=60_000, le=86_400_000, description="Without an impression for so long: stalled, event time, ms.")
    ] = 1_800_000
    balance_hours: Annotated[
        int, Meta(ge=1, le=720, description="A balance that lasts less than so many hours is low.")
    ] = 24
    cost_overrun_ppm: Annotated[
        int, Meta(ge=PPM, le=100 * PPM, description="Severe: cost per conversion over the target by this ratio, ppm.")
    ] = 1_500_000
    delivery_ppm: Annotated[
        SharePpm, Meta(description="Over- and under-delivery: distance of spend from plan, share of the budget, ppm.")
    ] = 100_000
    expected_under_ppm: Annotated[
        SharePpm, Meta(description="The forecast's upper end misses the budget by this share, ppm.")
    ] = 100_000
    anomaly_min_clicks: Annotated[
        int, Meta(ge=1, le=10**6, description="Fewer clicks than this (expected or seen) are no basis for an anomaly.")
    ] = 100
    anomaly_min_conversions: Annotated[
        int, Meta(ge=1, le=10**6, description="Fewer conversions expected than this are no basis for an anomaly.")
    ] = 20
    invalid_share_ppm: Annotated[SharePpm, Meta(description="Share of invalid clicks or impressions, ppm.")] = 200_000
    push: Annotated[
        tuple[AlertKind, ...], Meta(max_length=20, description="Kinds that are pushed; the rest go to the digest.")
    ] = (
        AlertKind.EXHAUSTED,
        AlertKind.EXHAUSTED_EARLY,
        AlertKind.STALLED,
        AlertKind.BALANCE_LOW,
        AlertKind.COST_OVERRUN,
    )
    off: Annotated[tuple[AlertKind, ...], Meta(max_length=20, description="Kinds that are not watched.")] = ()
    routes: Annotated[
        tuple[Id, ...], Meta(max_length=8, description="Names of routes (settings); none: the advertiser's.")
    ] = ()
    language: Annotated[str, Meta(pattern="^(en|zh)$", description="en or zh: what the receiver reads.")] = "en"
    quiet_hours: Annotated[QuietHours | None, Meta(description="When nothing is pushed; null: never.")] = None
