"""Rows of pacing_rows and alert_rows, without their version: in the order of `streams.records.COLUMNS`."""

from streams.campaigns import CampaignSettings
from streams.records import Row
from streams.rules import MINUTE_MS
from streams.signals import Alert
from streams.stages.pacing.facts import Decision
from streams.terms import PPM

_LAST_SECOND = 4_102_444_800
"""What a column of seconds can hold is bounded: an open end stands as the year 2100."""


def pacing_row(log_epoch: int, partition: int, settings: CampaignSettings, now_ms: int, decision: Decision) -> Row:
    """One look at a campaign. A minute's last one stands."""
    forecast = decision.forecast
    spread = (None,) * 4
    if forecast is not None:
        exhausts = None if forecast.exhausts_at_ms is None else _seconds(forecast.exhausts_at_ms)
        spread = (forecast.spend_micros, forecast.low_micros, forecast.high_micros, exhausts)  # type: ignore[assignment]
    return (
        log_epoch,
        partition,
        settings.campaign_id,
        _seconds(now_ms - now_ms % MINUTE_MS),
        settings.currency,
        decision.period_kind,
        _seconds(decision.period_start_ms),
        _seconds(decision.period_end_ms),
        decision.budget_micros,
        decision.target_micros,
        decision.spend.gross // 1000,
        decision.spend.gross // 1000 - decision.spend.valid // 1000,
        decision.spend.valid // 1000,
        decision.in_flight_millimicros // 1000,
        round(decision.rate * PPM),
        decision.reason.value,
        *spread,
        decision.closed_credit_millimicros // 1000,
        decision.excess_credit_millimicros // 1000,
    )


def alert_row(log_epoch: int, partition: int, alert: Alert) -> Row:
    """One change in an alert's life; the latest stands."""
    return (
        log_epoch,
        partition,
        alert.alert_id,
        alert.kind.value,
        alert.audience.value,
        alert.state.value,
        int(alert.is_pushed),
        alert.campaign_id,
        alert.advertiser_id,
        alert.agency_id,
        alert.account_id,
        alert.cause,
        alert.seen,
        alert.expected,
        alert.unit,
        _seconds(alert.began_ms),
        _seconds(alert.changed_ms),
        alert.text.en,
        alert.text.zh,
    )


def _seconds(at_ms: int) -> int:
    return max(0, min(at_ms // 1000, _LAST_SECOND))
