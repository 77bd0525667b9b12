"""A run against the live rows, or against another run: per campaign, the largest differences in money first."""

from typing import Any, Final, NamedTuple

from streams.adapters.clickhouse_runs import TIMED_BY, ClickHouseRuns, RunInfo
from streams.records import COLUMNS, Table

LIVE: Final = "live"
MEASURES: Final = ("impressions", "clicks", "conversions", "spend_micros", "invalid_clicks", "invalid_spend_micros")
COMPARED: Final = (Table.PANES, Table.REPORTS, Table.COHORTS, Table.PACING, Table.ALERTS, Table.FLAGS)


class Side(NamedTuple):
    """One side's figures of a campaign. Valid traffic, but `invalid_*`; money in micros."""

    impressions: int = 0
    clicks: int = 0
    conversions: int = 0
    spend_micros: int = 0
    invalid_clicks: int = 0
    invalid_spend_micros: int = 0
    alerts: int = 0

    @property
    def ctr(self) -> float | None:
        """Clicks over impressions; None over zero."""
        return self.clicks / self.impressions if self.impressions else None

    @property
    def cvr(self) -> float | None:
        """Conversions over clicks; None over zero."""
        return self.conversions / self.clicks if self.clicks else None


class Difference(NamedTuple):
    """One campaign on both sides."""

    campaign_id: str
    currency: str
    before: Side
    after: Side

    @property
    def money_micros(self) -> int:
        """By how much valid spend differs."""
        return self.after.spend_micros - self.before.spend_micros


def compare(runs: ClickHouseRuns, info: RunInfo, other: str = LIVE) -> list[Difference]:
    """Every campaign that either side has in the run's range, the largest differences in money first."""
    after, before = _figures(runs, info.run, info), _figures(runs, other, info)
    keys = sorted(before.keys() | after.keys())
    chosen = [key for key in keys if not info.campaigns or key[0] in info.campaigns]
    found = [Difference(*key, before.get(key, Side()), after.get(key, Side())) for key in chosen]
    return sorted(found, key=lambda each: (-abs(each.money_micros), each.campaign_id))


def _figures(runs: ClickHouseRuns, side: str, info: RunInfo) -> dict[tuple[str, str], Side]:
    fired = f"{_table(Table.ALERTS, side)} AND state != 'pending'"
    counted = runs.ask(f"SELECT campaign_id, count() FROM {fired} GROUP BY campaign_id", _range(side, info))
    alerts = {str(campaign): int(count) for campaign, count in counted}
    sql = f"""
        SELECT campaign_id, currency,
            sumIf(impressions, validity = 'valid'), sumIf(clicks, validity = 'valid'),
            sumIf(conversions, validity = 'valid'),
            intDiv(sumIf(toInt128(spend_millimicros) - credited_millimicros, validity = 'valid'), 1000),
            sumIf(clicks, validity != 'valid'),
            intDiv(sumIf(toInt128(spend_millimicros), validity != 'valid'), 1000)
        FROM {_table(Table.PANES, side)} GROUP BY campaign_id, currency"""
    rows = runs.ask(sql, _range(side, info))
    shown: set[str] = set()
    figures = {}
    for campaign, currency, *values in rows:
        told = 0 if campaign in shown else alerts.get(campaign, 0)
        shown.add(campaign)
        figures[campaign, currency] = Side._make((*map(int, values), told))
    return figures


def _table(table: Table, side: str) -> str:
    """The rows of one side in the run's range."""
    inside = (
        f"toUnixTimestamp({TIMED_BY[table]}) >= {{from:UInt32}} AND toUnixTimestamp({TIMED_BY[table]}) < {{to:UInt32}}"
    )
    if side == LIVE:
        return f"{table.value} FINAL WHERE {inside}"
    return f"run_{table.value} FINAL WHERE run = {{run:String}} AND {inside}"


def _range(side: str, info: RunInfo) -> dict[str, Any]:
    return {"run": side, "from": info.from_s, "to": info.to_s}


def rows_differing(runs: ClickHouseRuns, info: RunInfo, other: str = LIVE) -> dict[str, int]:
    """By table: rows that one side has and the other has not, every column compared."""
    found = {}
    for table in COMPARED:
        columns = ", ".join(COLUMNS[table])
        mine, theirs = (f"SELECT {columns} FROM {_table(table, side)}" for side in (info.run, other))
        theirs = theirs.replace("{run:String}", "{other:String}")
        parameters = {**_range(info.run, info), "other": other}
        count = 0
        for one, two in ((mine, theirs), (theirs, mine)):
            count += int(runs.ask(f"SELECT count() FROM ({one} EXCEPT {two})", parameters)[0][0])
        found[table.value] = count
    return found
