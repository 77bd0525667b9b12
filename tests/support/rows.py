"""Rows for tests: made by naming only what matters, and read back as they were inserted."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from streams.blocks import Blocks, RowBlock
from streams.records import (
    COLUMNS,
    DECISION_KEY,
    DIMENSIONS,
    IDENTITY,
    KEY_COLUMNS,
    MEASURES,
    PACING_COLUMNS,
    Row,
    Table,
)

PANE_S: Final = 1_790_000_000
"""The pane in which rows are unless told otherwise, epoch s: 2026-09-21 14:13:20 UTC."""

_DEFAULTS: Final[dict[str, Any]] = {
    **dict.fromkeys(MEASURES, 0),
    "log_epoch": 0,
    "input": "impressions",
    "partition": 0,
    "pane_ms": 10_000,
    "rules_seq": 0,
    "origin_pane": PANE_S,
    "effect_pane": PANE_S,
    "campaign_id": "c1",
    "currency": "CNY",
    "validity": "valid",
    "users": [],
    "rules": "0123456789abcdef",
    "click_hour": PANE_S - PANE_S % 3600,
    "age_bucket_ms": 0,
    "conversions": 0,
    "conversion_value_micros": 0,
    "entry": "counted",
    "records": 0,
    "time_zone": "UTC",
    "settings": "{}",
    "valid_from": 1_000,
    "minute": PANE_S - PANE_S % 60,
    "period_kind": "day",
    "period_start": PANE_S - PANE_S % 86_400,
    "period_end": PANE_S - PANE_S % 86_400 + 86_400,
    **dict.fromkeys(PACING_COLUMNS[PACING_COLUMNS.index("budget_micros") : PACING_COLUMNS.index("rate_ppm")], 0),
    "rate_ppm": 1_000_000,
    "forecast_micros": None,
    "forecast_low_micros": None,
    "forecast_high_micros": None,
    "exhausts_at": None,
    "closed_credit_micros": 0,
    "excess_credit_micros": 0,
    "alert_id": "a1",
    "kind": "stalled",
    "audience": "advertiser",
    "state": "firing",
    "is_pushed": True,
    "seen": None,
    "expected": None,
    "began": PANE_S,
    "changed": PANE_S,
    "event": "0" * 32,
    "rule": "declared_bot",
    "review_ms": 0,
    "event_time": PANE_S,
    "cost_millimicros": 0,
    "class": "givt",
    "mode": "on",
    "evidence": "{}",
    "decided": PANE_S,
    "hour": PANE_S - PANE_S % 3600,
    "weighed_from": PANE_S - 86_400,
    "weighed_to": PANE_S,
    "publishers": 1,
    **dict.fromkeys(("distinct_users", "distinct_addresses", "distinct_agents", "peers"), 0),
    "score": None,
    "base_log_odds": -4.0,
    **{name: [] for name in ("traits", "seen_shares", "typical_shares", "deviations", "log_odds")},
    "version": 1,
}


def make_row(table: Table, **values: Any) -> Row:
    """A row in the order of `COLUMNS[table]`; what is not named is 0, '' or a default."""
    unknown = values.keys() - set(COLUMNS[table])
    assert not unknown, f"{table} has no {unknown}"
    return tuple(values.get(name, _DEFAULTS.get(name, "")) for name in COLUMNS[table])


def make_blocks(*rows: Row, table: Table = Table.PANES) -> Blocks:
    """Rows of a measured table, as blocks of one row."""
    return Blocks([_block(table, dict(zip(COLUMNS[table], row, strict=True))) for row in rows])


def _block(table: Table, row: dict[str, Any]) -> RowBlock:
    def pick(names: Sequence[str]) -> Row:
        return tuple(row[name] for name in names)

    measures = tuple(name for name in MEASURES if row[name]) or MEASURES[:1]
    is_report = table is Table.REPORTS
    return RowBlock(
        table,
        pick(IDENTITY),
        np.array([row["origin_pane"]]),
        row["effect_pane"],
        [pick(DECISION_KEY)],
        [pick(DIMENSIONS)] if is_report else None,
        measures,
        np.array([pick(measures)], dtype=np.int64),
        [row["users"]] if is_report and row["users"] else None,
        row["rules"],
        row["version"],
    )


_TIMES: Final = frozenset(
    {
        "origin_pane",
        "effect_pane",
        "click_hour",
        "minute",
        "period_start",
        "period_end",
        "exhausts_at",
        "began",
        "event_time",
        "decided",
        "hour",
        "weighed_from",
        "weighed_to",
        "changed",
    }
)
"""Columns of whole seconds, inserted as epoch s."""


def _read(name: str) -> str:
    if name in _TIMES:
        return f"toUnixTimestamp({name})"
    return f"toUnixTimestamp64Milli({name})" if name == "valid_from" else name


def stored_rows(client: Any, table: Table) -> list[Row]:
    """What a reader sees of a table: the highest version of each key, in the form of inserted rows, sorted by key."""
    columns = ", ".join(map(_read, COLUMNS[table]))
    order = ", ".join(KEY_COLUMNS[table])
    answer = client.query(f"SELECT {columns} FROM {table.value} FINAL ORDER BY {order}")
    return [tuple(row) for row in answer.result_rows]
