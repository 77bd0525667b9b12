"""What goes out: the columns of the rows, the order of the measures, and the dead letter.

A row states totals so far for its key (law 2). Rows are tuples in the order of the column names given here;
schemas/clickhouse creates tables with the same columns, and a test keeps both equal.

Every table's key begins with the log epoch, the input, the partition, the pane size and the tick that brought the
rules, so that each row is a function of one log's prefix. `validity` is `valid`, `givt` or `sivt`: gross is the sum
over it, so gross = valid + GIVT + SIVT holds in every report by construction.
"""

from enum import StrEnum
from typing import Any, Final, NamedTuple

import msgspec

from streams.events import Input

COMMON: Final = (
    *("duplicates", "late", "money_rejected", "spend_millimicros", "credited_millimicros"),
    *("judged", "undecided"),
)
"""Measures that every input has: redelivered and late events (not counted elsewhere), amounts refused, cost, cost
given back (in the rows of what a tick decides), events judged as traffic, and those of them that carry too little for
that."""

MEASURES_OF: Final[dict[Input, tuple[str, ...]]] = {
    Input.IMPRESSIONS: ("impressions", "viewable_impressions", "measured_impressions"),
    Input.PLAYS: (
        "plays_started",
        "plays_3s",
        "plays_5s",
        "plays_completed",
        "viewable_plays",
        "loop_plays",
        "watched_ms",
    ),
    Input.CLICKS: (
        "clicks",  # of the types that count towards CTR (a rule)
        "clicks_card",
        "clicks_button",
        "clicks_cover",
        "clicks_live_room_entry",
        "clicks_profile",
        "clicks_other",
    ),
    Input.CONVERSIONS: (
        "conversions",  # credited to a click, of the types that count towards CVR (a rule)
        "view_through_conversions",
        "play_through_conversions",
        "unattributed_conversions",
        "leads",
        "add_to_carts",
        "orders",
        "paid_orders",
        "installs",
        "other_conversions",
        "quantity",
        "ordered_value_micros",  # of orders; other types' values are in cohort rows only
        "paid_value_micros",
        "cost_of_goods_micros",
        "discount_micros",
        "attributed_weight_ppm",
    ),
    Input.ADJUSTMENTS: (
        "cancels",
        "refunds",
        "chargebacks",
        "rejected_leads",
        "adjusted_micros",  # by adjustment date, signed
        "adjusted_by_order_micros",  # the same amount again, by the date of what was adjusted
    ),
    Input.ENGAGEMENTS: ("likes", "comments", "shares", "follows", "unfollows", "negative_feedbacks"),
}

MEASURES: Final[tuple[str, ...]] = (*COMMON, *(m for i in Input for m in MEASURES_OF[i]))
"""All measures, in the order of the tables' columns. Int64; the smallest unit stands last in the name."""

OFFSET_OF: Final[dict[Input, int]] = {i: MEASURES.index(MEASURES_OF[i][0]) for i in Input}
"""Where an input's own measures begin in `MEASURES`."""

IDENTITY: Final = ("log_epoch", "input", "partition", "pane_ms", "rules_seq")
"""`rules_seq` is the tick that brought the rules in force: with new rules, totals begin anew, in rows of their own."""

VALID: Final = "valid"
DECISION_KEY: Final = ("campaign_id", "ad_unit_id", "creative_id", "variant", "currency", "validity")
DIMENSIONS: Final = (
    "region",
    "channel",
    "publisher_id",
    "creator_id",
    "shop_id",
    "live_session_id",
    "device_class",
    "placement",
    "advertiser_id",
    "product_id",
    "audience_id",
)
"""Dimensions that the report grain can carry; the rules say which it does, the others stay ''."""

OTHER: Final = "other"
"""What a key folds into beyond the key limit."""

PANE_COLUMNS: Final = (*IDENTITY, "origin_pane", "effect_pane", *DECISION_KEY, *MEASURES, "rules", "version")
REPORT_COLUMNS: Final = (
    *IDENTITY,
    "origin_pane",
    "effect_pane",
    *DECISION_KEY,
    *DIMENSIONS,
    *MEASURES,
    "users",
    "rules",
    "version",
)
COHORT_COLUMNS: Final = (
    *IDENTITY,
    "effect_pane",
    *DECISION_KEY,
    "click_hour",
    "age_bucket_ms",
    "conversions",
    "conversion_value_micros",
    "rules",
    "version",
)
LEDGER_COLUMNS: Final = ("log_epoch", "input", "partition", "entry", "reason", "records", "version")
CAMPAIGN_COLUMNS: Final = (
    "campaign_id",
    "name",
    "advertiser_id",
    "agency_id",
    "account_id",
    "currency",
    "time_zone",
    "settings",
    "valid_from",
    "version",
)
PACING_COLUMNS: Final = (
    "log_epoch",
    "partition",
    "campaign_id",
    "minute",  # of the partition's event time: the last look of a minute wins
    "currency",
    "period_kind",  # day, flight or live_session
    "period_start",
    "period_end",
    "budget_micros",
    "target_micros",  # what the plan says should be spent by now
    "gross_spend_micros",
    "credited_micros",
    "spend_micros",  # gross less credited
    "in_flight_micros",
    "rate_ppm",
    "reason",
    "forecast_micros",  # spend at the period's end; NULL: nothing to go by
    "forecast_low_micros",
    "forecast_high_micros",
    "exhausts_at",  # epoch seconds; NULL: not in this period
    "closed_credit_micros",  # credits after their day had closed: for billing, never for pacing
    "excess_credit_micros",  # spend beyond the over-delivery policy, where it credits that: for billing
    "version",
)
ALERT_COLUMNS: Final = (
    "log_epoch",
    "partition",
    "alert_id",
    "kind",
    "audience",
    "state",
    "is_pushed",
    "campaign_id",
    "advertiser_id",
    "agency_id",
    "account_id",
    "cause",
    "seen",
    "expected",
    "unit",
    "began",
    "changed",
    "text_en",
    "text_zh",
    "version",
)
FLAG_COLUMNS: Final = (
    "log_epoch",
    "partition",
    "input",
    "event",  # digest of the event id, 32 hexadecimal digits
    "rule",
    "review_ms",  # of a review: when it was said, so that an event's reviews stand beside each other; else 0
    "event_id",
    "event_time",
    "campaign_id",
    "ad_unit_id",
    "creative_id",
    "publisher_id",
    "currency",
    "cost_millimicros",
    "class",  # givt or sivt; of a review, what the event counts as where it is invalid
    "mode",  # on: it excludes; observe: it is only told
    "state",  # of a rule's flag raised or withdrawn, of a review overturned or confirmed
    "evidence",  # JSON
    "reviewer",
    "review_reason",
    "decided",  # wall time of the tick
    "effect_pane",  # of the rows that it moved: the event's own, or of a later word the journal's
    "version",
)
RISK_COLUMNS: Final = (
    "log_epoch",
    "partition",  # of the source stage: publishers of one channel meet in one
    "publisher_id",
    "hour",  # of event time: the last step of an hour wins
    "weighed_from",
    "weighed_to",
    "publishers",  # 1; of the row `other` as many as are folded into it
    "clicks",
    "conversions",
    "distinct_users",
    "distinct_addresses",
    "distinct_agents",
    "peers",
    "score",  # NULL: unverifiable, `unscored` says why
    "base_log_odds",
    "unscored",
    "traits",  # what is compared; the four columns behind are as long
    "seen_shares",
    "typical_shares",
    "deviations",
    "log_odds",
    "version",
)


class Table(StrEnum):
    """The tables of absolute rows. `*_pane` columns are epoch seconds of the pane's start, UTC."""

    PANES = "pane_rows"
    REPORTS = "report_rows"
    COHORTS = "cohort_rows"
    LEDGER = "ledger_rows"
    CAMPAIGNS = "campaign_rows"
    PACING = "pacing_rows"
    ALERTS = "alert_rows"
    FLAGS = "flag_rows"
    RISKS = "publisher_risk_rows"


COLUMNS: Final[dict[Table, tuple[str, ...]]] = {
    Table.PANES: PANE_COLUMNS,
    Table.REPORTS: REPORT_COLUMNS,
    Table.COHORTS: COHORT_COLUMNS,
    Table.LEDGER: LEDGER_COLUMNS,
    Table.CAMPAIGNS: CAMPAIGN_COLUMNS,
    Table.PACING: PACING_COLUMNS,
    Table.ALERTS: ALERT_COLUMNS,
    Table.FLAGS: FLAG_COLUMNS,
    Table.RISKS: RISK_COLUMNS,
}

Row = tuple[Any, ...]
"""Values in the order of `COLUMNS[table]`; the last is the version."""

KEY_COLUMNS: Final[dict[Table, tuple[str, ...]]] = {
    Table.PANES: PANE_COLUMNS[: PANE_COLUMNS.index(MEASURES[0])],
    Table.REPORTS: REPORT_COLUMNS[: REPORT_COLUMNS.index(MEASURES[0])],
    Table.COHORTS: COHORT_COLUMNS[: COHORT_COLUMNS.index("conversions")],
    Table.LEDGER: LEDGER_COLUMNS[: LEDGER_COLUMNS.index("records")],
    Table.CAMPAIGNS: ("campaign_id", "valid_from"),
    Table.PACING: PACING_COLUMNS[: PACING_COLUMNS.index("currency")],
    Table.ALERTS: ALERT_COLUMNS[: ALERT_COLUMNS.index("kind")],
    Table.FLAGS: FLAG_COLUMNS[: FLAG_COLUMNS.index("event_id")],
    Table.RISKS: RISK_COLUMNS[: RISK_COLUMNS.index("weighed_from")],
}
"""The key of a row: the table's ORDER BY, in which the highest version wins."""


class RowKey(NamedTuple):
    """A row's identity across tables: what stays dirty until ClickHouse has acknowledged it."""

    table: Table
    key: Row


class Entry(StrEnum):
    """Where every consumed offset ends, exactly once (law 1)."""

    COUNTED = "counted"
    DUPLICATE = "duplicate"
    LATE = "late"
    REJECTED = "rejected"
    LOST_RETENTION = "lost_retention"
    NO_RECORD = "no_record"  # offsets that hold no record: transaction markers, compaction


MAX_LETTER_BYTES: Final = 262_144
"""A dead letter keeps this much of a value (and MAX_LETTER_KEY_BYTES of a key), so that it always fits a message."""
MAX_LETTER_KEY_BYTES: Final = 4_096


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A record that was rejected or came too late: its bytes and where they came from.

    `topic`, `partition`, `offset` identify it: a dead letter that is sent twice is one dead letter.
    """

    topic: str
    partition: int
    offset: int
    log_epoch: int
    timestamp_ms: int
    entry: Entry
    reason: str
    path: str
    key: bytes | None
    value: bytes | None
    value_bytes: int = 0
    """Length of the value as it was; longer than `value`: cut at MAX_LETTER_BYTES, and not to be redriven."""
    redrives: int = 0
