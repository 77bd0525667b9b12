"""What the API answers, as types: handlers return them, and the OpenAPI description is made from them.

A field marked `OPERATORS` is for operators only: `shown_to` takes it out for everybody else. Every other field is what
an advertiser may know of its own campaigns: billed figures, classes of invalid traffic, credits. Times are UTC; money
is in micros of the currency beside it; a ratio over zero is null.
"""

from datetime import date, datetime
from functools import cache
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from streams.console.access import Principal

OPERATORS_KEY: Final = "x-operators-only"
OPERATORS: Final = Meta(extra_json_schema={OPERATORS_KEY: True})
Count = Annotated[int, Meta(description="Events.")]
T = TypeVar("T")


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is answered."""


class Share(Document, frozen=True, kw_only=True):
    """A ratio with its 95 % Wilson interval."""

    value: Annotated[float, Meta(description="Numerator over denominator.")]
    low: Annotated[float, Meta(description="Lower end of the interval.")]
    high: Annotated[float, Meta(description="Upper end of the interval.")]


class InvalidFigures(Document, frozen=True, kw_only=True):
    """Traffic that counted as invalid, by class: general (lists, parameters) and sophisticated (evidence)."""

    givt_impressions: Count = 0
    givt_clicks: Count = 0
    givt_conversions: Count = 0
    sivt_impressions: Count = 0
    sivt_clicks: Count = 0
    sivt_conversions: Count = 0
    impression_share: Annotated[Share | None, Meta(description="Invalid over all impressions.")] = None
    click_share: Annotated[Share | None, Meta(description="Invalid over all clicks.")] = None


class Figures(Document, frozen=True, kw_only=True):
    """Counts of valid traffic, and what is billed for it."""

    impressions: Count
    viewable_impressions: Count
    measured_impressions: Annotated[int, Meta(description="Impressions whose viewability was measured.")]
    plays_started: Count
    plays_completed: Count
    clicks: Count
    conversions: Annotated[int, Meta(description="Credited to a click, by conversion time.")]
    view_through_conversions: Count
    orders: Count
    ordered_value_micros: Annotated[int | None, Meta(description="Value of orders; null: several currencies.")]
    spend_micros: Annotated[int | None, Meta(description="Billed less given back; null: several currencies.")]
    credited_micros: Annotated[int | None, Meta(description="Given back: found invalid or rejected later.")]
    ctr: Annotated[Share | None, Meta(description="Clicks over impressions; null: over zero.")]
    cvr: Annotated[Share | None, Meta(description="Conversions over clicks; null: over zero, or above 1.")]
    invalid: InvalidFigures
    is_provisional: Annotated[bool, Meta(description="May still change: part of it is not settled (T+1).")]
    gross_spend_micros: Annotated[int | UnsetType | None, OPERATORS, Meta(description="All that was billed.")] = UNSET
    invalid_spend_micros: Annotated[
        int | UnsetType | None, OPERATORS, Meta(description="Billed for traffic that counted as invalid.")
    ] = UNSET
    duplicates: Annotated[int | UnsetType, OPERATORS, Meta(description="Redelivered events.")] = UNSET
    late: Annotated[int | UnsetType, OPERATORS, Meta(description="Events beyond the lateness.")] = UNSET
    judged: Annotated[int | UnsetType, OPERATORS, Meta(description="Events judged as traffic.")] = UNSET
    undecided: Annotated[int | UnsetType, OPERATORS, Meta(description="Judged, with too little to go by.")] = UNSET


class Spark(Document, frozen=True, kw_only=True):
    """The last minutes, oldest first, one place for each minute."""

    begins: Annotated[datetime, Meta(description="The first minute, UTC.")]
    impressions: list[int]
    clicks: list[int]
    spend_micros: list[int]


class PaceLine(Document, frozen=True, kw_only=True):
    """How the spend of a campaign's current period keeps to its plan."""

    status: Annotated[str, Meta(description="on_pace, (well_, far_)behind or ahead, exhausted, unknown, …")]
    budget_micros: int
    target_micros: Annotated[int, Meta(description="What should be spent by now according to the plan.")]
    spend_micros: int
    forecast_micros: Annotated[int | None, Meta(description="Expected at the period's end; null: unknown.")]
    rate: Annotated[float | UnsetType, OPERATORS, Meta(description="Pass-through rate, 0 to 1.")] = UNSET


class CampaignHead(Document, frozen=True, kw_only=True):
    """Which campaign it is."""

    campaign_id: str
    name: Annotated[str, Meta(description="Name for people; empty: unknown.")]
    advertiser_id: str
    currency: Annotated[str, Meta(description="ISO 4217 code; empty: unknown.")]
    time_zone: Annotated[str, Meta(description="IANA zone of the campaign's day.")]


class CampaignLine(CampaignHead, frozen=True, kw_only=True):
    """A campaign in a list."""

    figures: Figures
    pacing: PaceLine | None
    spark: Spark
    firing_alerts: int


class CampaignPage(Document, frozen=True, kw_only=True):
    """A page of campaigns."""

    window: str
    as_of: Annotated[datetime, Meta(description="The windows end here: the newest event, or now, UTC.")]
    campaigns: list[CampaignLine]
    next_cursor: Annotated[str | None, Meta(description="Of the next page; null: this is the last.")]


class Terms(Document, frozen=True, kw_only=True):
    """A campaign's settings. Thresholds and receivers of alerts are for operators."""

    goal: str | None = None
    billing_model: str
    price_micros: int | None = None
    daily_budget_micros: int | None = None
    total_budget_micros: int | None = None
    flight_start: datetime | None = None
    flight_end: datetime | None = None
    valid_from: datetime
    whole: Annotated[dict[str, Any] | UnsetType, OPERATORS, Meta(description="The whole document, as it was put.")] = (
        UNSET
    )


class Campaign(CampaignHead, frozen=True, kw_only=True):
    """One campaign: its figures by window, and since its first event."""

    agency_id: str
    as_of: datetime
    settled_before: Annotated[datetime, Meta(description="Days that ended before are settled, UTC.")]
    windows: Annotated[dict[str, Figures], Meta(description="1m, 5m, 15m, 1h, day and total.")]
    settings: Terms | None


class DayLine(Document, frozen=True, kw_only=True):
    """A day in the campaign's time zone."""

    day: date
    figures: Figures


class Days(Document, frozen=True, kw_only=True):
    """The newest days of a campaign, newest first."""

    time_zone: str
    currency: str
    days: list[DayLine]


class MinutePoint(Document, frozen=True, kw_only=True):
    """A minute (or a step of minutes) of a campaign."""

    minute: datetime
    impressions: int
    clicks: int
    conversions: int
    spend_micros: int | None
    invalid_clicks: int


class Minutes(Document, frozen=True, kw_only=True):
    """A time series, oldest first. Steps without events are left out."""

    time_zone: str
    currency: str
    step_s: int
    minutes: list[MinutePoint]


class PacePeriod(PaceLine, frozen=True, kw_only=True):
    """A day, flight or live session of a paced campaign, as it was looked at last."""

    period_kind: str
    period_start: datetime | None
    period_end: datetime | None
    looked_at: datetime
    credited_micros: int
    off_plan_points: Annotated[float | None, Meta(description="Spend less plan, percentage points of the budget.")]
    spent_share: float | None
    elapsed_share: float | None
    forecast_low_micros: int | None
    forecast_high_micros: int | None
    exhausts_at: datetime | None
    in_flight_micros: Annotated[int | UnsetType, OPERATORS] = UNSET
    reason: Annotated[str | UnsetType, OPERATORS, Meta(description="Why the rate is what it is.")] = UNSET
    reason_text: Annotated[str | UnsetType, OPERATORS] = UNSET
    note: Annotated[str | UnsetType, OPERATORS] = UNSET


class PacePoint(Document, frozen=True, kw_only=True):
    """A minute of the period."""

    minute: datetime
    target_micros: int
    spend_micros: int
    forecast_micros: int | None
    rate: Annotated[float | UnsetType, OPERATORS] = UNSET


class Pacing(Document, frozen=True, kw_only=True):
    """The current period of a campaign, and its curve. Null: it has no budget, or was not looked at yet."""

    currency: str
    time_zone: str
    period: PacePeriod | None
    points: list[PacePoint]


class Alert(Document, frozen=True, kw_only=True):
    """An alert in its latest state."""

    alert_id: str
    kind: str
    state: Annotated[str, Meta(description="pending, firing, resolved, or lost: its log was created anew.")]
    campaign_id: str
    campaign_name: str
    text_en: str
    text_zh: str
    time_zone: str
    began: datetime
    changed: datetime
    duration_ms: int | None
    audience: Annotated[str | UnsetType, OPERATORS] = UNSET
    is_pushed: Annotated[bool | UnsetType, OPERATORS] = UNSET
    seen: Annotated[float | UnsetType | None, OPERATORS] = UNSET
    expected: Annotated[float | UnsetType | None, OPERATORS] = UNSET
    unit: Annotated[str | UnsetType, OPERATORS] = UNSET
    cause: Annotated[str | UnsetType, OPERATORS] = UNSET


class AlertPage(Document, frozen=True, kw_only=True):
    """A page of alerts, the latest change first."""

    alerts: list[Alert]
    next_cursor: str | None


class RuleCount(Document, frozen=True, kw_only=True):
    """Flags of one rule."""

    rule: str
    invalid_class: str
    mode: str
    state: str
    flags: int


class ReasonCount(Document, frozen=True, kw_only=True):
    """Events of one day that are invalid for one class of reasons."""

    day: date
    is_provisional: bool
    invalid_class: str
    reason_class: str
    text_en: str
    text_zh: str
    impressions: int
    clicks: Annotated[int, Meta(description="Of all types.")]
    conversions: Annotated[int, Meta(description="Of all types.")]


class InvalidTraffic(Document, frozen=True, kw_only=True):
    """Invalid traffic of a campaign: by window and class; by day and class of reasons; by rule for operators."""

    as_of: datetime
    windows: dict[str, InvalidFigures]
    credited_micros: int | None
    currency: str
    reasons: Annotated[
        list[ReasonCount], Meta(description="The newest day first; 496 at most, which is 31 days or more.")
    ]
    rules: Annotated[list[RuleCount] | UnsetType, OPERATORS] = UNSET


class Flag(Document, frozen=True, kw_only=True):
    """A rule's flag on an event, with its evidence. For operators."""

    event: str
    event_id: str
    input: str
    rule: str
    invalid_class: str
    mode: str
    state: str
    event_time: datetime
    campaign_id: str
    creative_id: str
    publisher_id: str
    cost_micros: int
    currency: str
    evidence: Any
    decided: datetime


class FlagPage(Document, frozen=True, kw_only=True):
    """A page of flags, the latest decision first."""

    flags: list[Flag]
    next_cursor: str | None


class LedgerLine(Document, frozen=True, kw_only=True):
    """Where the records of one input partition ended."""

    log_epoch: int
    input: str
    partition: int
    consumed: int
    counted: int
    duplicate: int
    late: int
    rejected: int
    lost_retention: int
    no_record: int
    rejected_by_reason: dict[str, int]
    balance: Annotated[int, Meta(description="Consumed less all entries: always 0.")]


class Ledger(Document, frozen=True, kw_only=True):
    """The ledger of the newest log, as published: of all workers."""

    lines: list[LedgerLine]
    is_balanced: bool


class Health(Document, frozen=True, kw_only=True):
    """What this worker says of itself."""

    is_ready: bool
    reasons: list[str]
    version: str
    partitions: list[int]
    recovering: list[int]
    lag_records: int
    dirty_rows: int
    is_sink_up: bool
    visible_p50_ms: float | None
    visible_p99_ms: float | None
    newest_event: datetime | None


class Session(Document, frozen=True, kw_only=True):
    """Who asks, and how this console is set up."""

    scopes: list[str]
    is_operator: bool
    is_open: Annotated[bool, Meta(description="No token is configured: only this machine is served.")]
    refresh_ms: Annotated[int, Meta(description="Live updates come about so often.")]
    version: str


class Login(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A token, shown once, for a cookie."""

    token: Annotated[str, Meta(min_length=1, max_length=200)]


class Problem(Document, frozen=True, kw_only=True):
    """A problem, after RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str


@cache
def operators_fields(kind: type[Any]) -> frozenset[str]:
    """Fields of a type that only operators see."""
    found = set()
    info = msgspec.inspect.type_info(kind)
    for field in getattr(info, "fields", ()):
        held = field.type
        if isinstance(held, msgspec.inspect.Metadata) and (held.extra_json_schema or {}).get(OPERATORS_KEY):
            found.add(field.name)
    return frozenset(found)


def shown_to(principal: Principal, document: T) -> T:
    """The document without what this principal may not see, all the way down."""
    return document if principal.is_operator else _bare(document)


def _bare(value: Any) -> Any:
    if isinstance(value, list):
        return [_bare(each) for each in value]
    if isinstance(value, dict):
        return {name: _bare(each) for name, each in value.items()}
    if not isinstance(value, Document):
        return value
    hidden = operators_fields(type(value))
    return type(value)(
        **{name: UNSET if name in hidden else _bare(getattr(value, name)) for name in value.__struct_fields__}
    )
