"""Rows of ClickHouse as the API's documents: ratios, times, what is provisional."""

from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from streams.console.documents import Alert, Figures, Flag, InvalidFigures, PacePeriod, ReasonCount, Share
from streams.console.source import Record
from streams.stages.rates import wilson

WINDOWS_S: Final = {"1m": 60, "5m": 300, "15m": 900, "1h": 3600}
DAY_S: Final = 86_400
NO_ZONE: Final = "UTC"


def zone_of(name: str) -> ZoneInfo:
    """The zone, or UTC for one that this machine does not know."""
    try:
        return ZoneInfo(name or NO_ZONE)
    except (ValueError, OSError, KeyError):
        return ZoneInfo(NO_ZONE)


def day_start_s(at_s: int, zone: str) -> int:
    """Begin of the day that a moment is in, epoch s. Where clocks repeat midnight the day begins at the first one."""
    local = datetime.fromtimestamp(at_s, zone_of(zone))
    return int(local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0).timestamp())


def settled_before_s(now_s: int, zone: str) -> int:
    """Days that ended before this are settled: T+1, a whole day after their own end."""
    local = datetime.fromtimestamp(now_s, zone_of(zone)).date() - timedelta(days=1)
    return int(datetime(local.year, local.month, local.day, tzinfo=zone_of(zone)).timestamp())


def at(epoch_s: Any) -> datetime:
    """A time."""
    return datetime.fromtimestamp(int(epoch_s), UTC)


def maybe_at(epoch_s: Any) -> datetime | None:
    """A time, or none."""
    return None if epoch_s is None else at(epoch_s)


def share(part: int, whole: int) -> Share | None:
    """A ratio with its interval. None over zero, and where a part is more than the whole: it is none of it then."""
    rate = wilson(part, whole)
    if rate is None or not 0 <= part <= whole:
        return None
    return Share(value=rate.value, low=rate.low, high=rate.high)


def invalid_of(row: Record, prefix: str = "") -> InvalidFigures:
    """Invalid traffic of a row of sums."""
    counts = {
        f"{kind}_{what}": int(row[f"{prefix}{kind}_{what}"] or 0)
        for kind in ("givt", "sivt")
        for what in ("impressions", "clicks", "conversions")
    }
    shares = {}
    for what in ("impressions", "clicks"):
        bad = counts[f"givt_{what}"] + counts[f"sivt_{what}"]
        shares[what] = share(bad, bad + int(row[f"{prefix}{what}"] or 0))
    return InvalidFigures(**counts, impression_share=shares["impressions"], click_share=shares["clicks"])


def figures_of(row: Record, *, settled_s: int, prefix: str = "") -> Figures:
    """Figures of a row of sums: provisional where an event is later than what is settled. Without rows: zeros."""

    def count(name: str) -> int:
        return int(row[prefix + name] or 0)

    def money(name: str) -> int | None:
        return None if row[prefix + name] is None else int(row[prefix + name])

    return Figures(
        impressions=count("impressions"),
        viewable_impressions=count("viewable_impressions"),
        measured_impressions=count("measured_impressions"),
        plays_started=count("plays_started"),
        plays_completed=count("plays_completed"),
        clicks=count("clicks"),
        conversions=count("conversions"),
        view_through_conversions=count("view_through_conversions"),
        orders=count("orders"),
        ordered_value_micros=money("ordered_value_micros"),
        spend_micros=money("spend_micros"),
        credited_micros=money("credited_micros"),
        ctr=share(count("clicks"), count("impressions")),
        cvr=share(count("conversions"), count("clicks")),
        invalid=invalid_of(row, prefix),
        is_provisional=int(row[prefix + "last"] or 0) >= settled_s,
        gross_spend_micros=money("gross_spend_micros"),
        invalid_spend_micros=money("invalid_spend_micros"),
        duplicates=count("duplicates"),
        late=count("late"),
        judged=count("judged"),
        undecided=count("undecided"),
    )


def alert_of(row: Record) -> Alert:
    """An alert."""
    duration = row["duration_ms"]
    return Alert(
        alert_id=row["alert_id"],
        kind=row["kind"],
        state=row["state"],
        campaign_id=row["campaign_id"],
        campaign_name=row["campaign_name"],
        text_en=row["text_en"],
        text_zh=row["text_zh"],
        time_zone=row["time_zone"],
        began=at(row["began_s"]),
        changed=at(row["changed_s"]),
        duration_ms=None if duration is None else int(duration),
        audience=row["audience"],
        is_pushed=bool(row["is_pushed"]),
        seen=row["seen"],
        expected=row["expected"],
        unit=row["unit"],
        cause=row["cause"],
    )


def period_of(row: Record) -> PacePeriod:
    """A period of a paced campaign."""
    same = (
        *("status", "budget_micros", "target_micros", "spend_micros", "forecast_micros", "rate", "period_kind"),
        *("credited_micros", "off_plan_points", "spent_share", "elapsed_share", "forecast_low_micros"),
        *("forecast_high_micros", "in_flight_micros", "reason", "reason_text", "note"),
    )
    return PacePeriod(
        period_start=maybe_at(row["begins"]),
        period_end=maybe_at(row["ends"]),
        looked_at=at(row["looked_at"]),
        exhausts_at=maybe_at(row["exhausts"]),
        **{name: row[name] for name in same},
    )


def reason_of(row: Record) -> ReasonCount:
    """What one class of reasons has come to on one day."""
    same = ("reason_class", "impressions", "clicks", "conversions")
    return ReasonCount(
        day=date.fromisoformat(row["day"]),
        is_provisional=bool(row["is_provisional"]),
        invalid_class=row["class"],
        text_en=row["reason_en"],
        text_zh=row["reason_zh"],
        **{name: row[name] for name in same},
    )


def flag_of(row: Record, evidence: Any) -> Flag:
    """A flag with its evidence."""
    same = ("event", "event_id", "input", "rule", "mode", "state", "campaign_id", "creative_id", "publisher_id")
    return Flag(
        invalid_class=row["class"],
        event_time=at(row["event_s"]),
        cost_micros=round(row["cost"] / 1000),
        currency=row["currency"],
        evidence=evidence,
        decided=at(row["decided_s"]),
        **{name: row[name] for name in same},
    )
