"""A run against the live rows, or against another run: per campaign, the largest differences in money first."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from streams.adapters.clickhouse_runs import TIMED_BY, ClickHouseRuns, RunInfo
from streams.errors import ConfigurationError
from streams.events import Input
from streams.records import COLUMNS, MEASURES_OF, Table

LIVE: Final = "live"
_EVENTS: Final = {
    Input.IMPRESSIONS: ("impressions",),
    Input.PLAYS: ("plays_started", "loop_plays"),
    Input.CLICKS: tuple(name for name in MEASURES_OF[Input.CLICKS] if name != "clicks"),
    Input.CONVERSIONS: MEASURES_OF[Input.CONVERSIONS][4:10],
    Input.ADJUSTMENTS: MEASURES_OF[Input.ADJUSTMENTS][:4],
    Input.ENGAGEMENTS: MEASURES_OF[Input.ENGAGEMENTS],
}
"""Measures whose sum is the number of an input's events."""
COUNTED: Final = {source: " + ".join(names) for source, names in _EVENTS.items()}
"""The same as SQL."""
COMPARED: Final = (Table.PANES, Table.REPORTS, Table.COHORTS, Table.PACING, Table.ALERTS, Table.FLAGS)


class Side(NamedTuple):
    """One side's figures of a campaign. Valid traffic, but `invalid_*`; money in micros."""

    impressions: int = 0
    clicks: int = 0
    conversions: int = 0
    spend_micros: int = 0
    """Less what was given back."""
    invalid_impressions: int = 0
    invalid_clicks: int = 0
    invalid_conversions: int = 0
    invalid_spend_micros: int = 0
    alerts: int = 0
    """Of the campaign, whatever the currency: told once."""

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

    @property
    def has_money(self) -> bool:
        """Whether either side bills anything."""
        return any(side.spend_micros or side.invalid_spend_micros for side in (self.before, self.after))


def check_other(runs: ClickHouseRuns, other: str, from_s: int, to_s: int) -> None:
    """Before a range is compared with another side.

    Raises:
        ConfigurationError: there is no such run, or its range does not cover this one.
    """
    if other == LIVE:
        return
    info = runs.find(other)
    if info.from_s > from_s or info.to_s < to_s:
        raise ConfigurationError(
            f"--compare: run {other} is of {utc_text(info.from_s)} to {utc_text(info.to_s)} UTC, which does not cover "
            f"{utc_text(from_s)} to {utc_text(to_s)}; compare with live, or with a run whose range does"
        )


def utc_text(at_s: int) -> str:
    """An epoch (s) by its minute, UTC."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M")


def compare(runs: ClickHouseRuns, info: RunInfo, other: str = LIVE) -> list[Difference]:
    """Every campaign that either side has in the run's range, the largest differences in money first."""
    after, before = _figures(runs, info.run, info), _figures(runs, other, info)
    keys = sorted(before.keys() | after.keys())
    chosen = [key for key in keys if not info.campaigns or key[0] in info.campaigns]
    found = [Difference(*key, before.get(key, Side()), after.get(key, Side())) for key in chosen]
    return sorted(with_named_currencies(found), key=lambda each: (-abs(each.money_micros), each.campaign_id))


def with_named_currencies(found: list[Difference]) -> list[Difference]:
    """Events that name no currency and cost nothing join their campaign's, where it has just one."""
    named: dict[str, list[Difference]] = {}
    for each in found:
        if each.currency:
            named.setdefault(each.campaign_id, []).append(each)
    kept = {(each.campaign_id, each.currency): each for each in found}
    for each in found:
        own = named.get(each.campaign_id, [])
        if not each.currency and len(own) == 1 and not each.has_money:
            del kept[each.campaign_id, ""]
            only = own[0]
            kept[only.campaign_id, only.currency] = only._replace(
                before=added([only.before, each.before]), after=added([only.after, each.after])
            )
    return list(kept.values())


def added(sides: Iterable[Side]) -> Side:
    """Their sums; of one currency, or of none."""
    return Side._make(map(sum, zip(Side(), *sides, strict=True)))


def _figures(runs: ClickHouseRuns, side: str, info: RunInfo) -> dict[tuple[str, str], Side]:
    fired = f"{rows_of(Table.ALERTS, side)} AND state != 'pending'"
    counted = runs.ask(f"SELECT campaign_id, count() FROM {fired} GROUP BY campaign_id", range_of(side, info))
    alerts = {str(campaign): int(count) for campaign, count in counted}
    sql = f"""
        SELECT campaign_id, currency,
            sumIf(impressions, validity = 'valid'), sumIf(clicks, validity = 'valid'),
            sumIf(conversions, validity = 'valid'),
            intDiv(sumIf(toInt128(spend_millimicros) - credited_millimicros, validity = 'valid'), 1000),
            sumIf(impressions, validity != 'valid'), sumIf(clicks, validity != 'valid'),
            sumIf(conversions, validity != 'valid'),
            intDiv(sumIf(toInt128(spend_millimicros), validity != 'valid'), 1000)
        FROM {rows_of(Table.PANES, side)} GROUP BY campaign_id, currency"""
    rows = runs.ask(sql, range_of(side, info))
    shown: set[str] = set()
    figures = {}
    for campaign, currency, *values in rows:
        told = 0 if campaign in shown else alerts.get(campaign, 0)
        shown.add(campaign)
        figures[campaign, currency] = Side._make((*map(int, values), told))
    for campaign in alerts.keys() - shown:
        figures[campaign, ""] = Side(alerts=alerts[campaign])
    return figures


def rows_of(table: Table, side: str) -> str:
    """The rows of one side in the run's range."""
    inside = (
        f"toUnixTimestamp({TIMED_BY[table]}) >= {{from:UInt32}} AND toUnixTimestamp({TIMED_BY[table]}) < {{to:UInt32}}"
    )
    if side == LIVE:
        return f"{table.value} FINAL WHERE {inside}"
    return f"run_{table.value} FINAL WHERE run = {{run:String}} AND {inside}"


def range_of(side: str, info: RunInfo) -> dict[str, Any]:
    """The parameters of `rows_of`."""
    return {"run": side, "from": info.from_s, "to": info.to_s}


def rows_differing(runs: ClickHouseRuns, info: RunInfo, other: str = LIVE) -> dict[str, int]:
    """By table: rows that one side has and the other has not, every column compared."""
    found = {}
    for table in COMPARED:
        columns = ", ".join(COLUMNS[table])
        mine, theirs = (f"SELECT {columns} FROM {rows_of(table, side)}" for side in (info.run, other))
        theirs = theirs.replace("{run:String}", "{other:String}")
        parameters = {**range_of(info.run, info), "other": other}
        count = 0
        for one, two in ((mine, theirs), (theirs, mine)):
            count += int(runs.ask(f"SELECT count() FROM ({one} EXCEPT {two})", parameters)[0][0])
        found[table.value] = count
    return found
