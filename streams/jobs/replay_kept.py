"""Whether the live rows that a run is compared with are still there: ClickHouse forgets them, and runs stay.

Rows of the decision grain go first. Those of the report grain count the same events and stay for longer, so they tell
that something has gone; where they have gone too, age tells it.
"""

import time
from typing import Final

from streams.adapters.clickhouse_runs import ClickHouseRuns, RunInfo
from streams.jobs.replay_compare import COUNTED, LIVE, range_of, rows_of, utc_text
from streams.records import Table

DECISION_DAYS: Final = 35
"""So long ClickHouse keeps `pane_rows`, from when they were inserted."""
REPORT_DAYS: Final = 400
"""The same of `report_rows`."""
_DAY_S: Final = 86_400


def forgotten(runs: ClickHouseRuns, info: RunInfo, other: str = LIVE) -> list[str]:
    """What is to be told of live rows that are no longer kept; empty: nothing is missing."""
    now_s = int(time.time())
    if other != LIVE or info.from_s >= now_s - DECISION_DAYS * _DAY_S:
        return []
    panes, reports = (_events(runs, info, table) for table in (Table.PANES, Table.REPORTS))
    if panes >= reports and (panes or info.from_s >= now_s - REPORT_DAYS * _DAY_S):
        return []
    return [
        f"live rows of {utc_text(info.from_s)} to {utc_text(info.to_s)} UTC have gone ({panes:,} of at least "
        f"{reports:,} events are left): ClickHouse keeps them for {DECISION_DAYS} days, so what stands as before "
        "is too little; compare with an identical run of that range (--compare RUN)"
    ]


def _events(runs: ClickHouseRuns, info: RunInfo, table: Table) -> int:
    counted = " + ".join(f"sumIf({names}, input = '{source.value}')" for source, names in COUNTED.items())
    return int(runs.ask(f"SELECT {counted} FROM {rows_of(table, LIVE)}", range_of(LIVE, info))[0][0])
