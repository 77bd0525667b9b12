"""Whether a run can stand in the place of the live rows of its range without a number being lost or counted twice.

A correction (a late word on an event, a credit) is a row that takes an event out of what it counted as and puts it
into something else. The live worker takes it out of what *it* had counted the event as. So a correction told behind
the range adds up with the run's rows just where both had counted the events alike; where they had not, it would take
away, or give back, twice. Rows do not name events, so this is judged by key and pane: it can doubt too much, and never
too little.
"""

from typing import Any, Final

from streams.adapters.clickhouse_runs import ClickHouseRuns, RunInfo
from streams.errors import ConfigurationError
from streams.events import Input
from streams.jobs.replay_compare import COUNTED, LIVE, range_of, rows_of, utc_text
from streams.jobs.replay_kept import forgotten
from streams.records import Table
from streams.state.effects import JOURNAL_INPUT
from streams.state.traces import FLAGGED_MS, RECENT_MS

_KEY: Final = "campaign_id, ad_unit_id, creative_id, variant, currency"
_MONEY: Final = "toInt128(spend_millimicros) - credited_millimicros"
MAX_NAMED: Final = 3
QUIET_S: Final = 3_600
"""A partition, or an input of one, that stands so far behind the newest event of all does not hold a range up for ever.

So long an outage of one partition alone looks the same: whether it is one, whoever publishes has to say.
"""
Reached = tuple[int, str, int]
"""Partition, input, and the newest effect pane that it has (epoch seconds)."""


def check_frozen(runs: ClickHouseRuns, info: RunInfo) -> None:
    """What forbids to publish it, whoever asks.

    Raises:
        ConfigurationError: it is not done, meets another published run, or its panes can still change: a partition
            that is not quiet stands before the range's end.
    """
    if info.state != "done":
        raise ConfigurationError(f"run {info.run} is {info.state}; only a finished run can be published")
    if others := runs.overlapping(info):
        raise ConfigurationError(f"its range meets that of {others[0]}, which is published; take that back first")
    reached = _reached(runs)
    live_ones = [at for at in _newest_of(reached).values() if not _is_quiet(at, reached)]
    least = min(live_ones, default=0)
    if least < info.to_s:
        raise ConfigurationError(
            f"panes up to {utc_text(info.to_s)} UTC can still change; publish a range that ended by {utc_text(least)}"
        )


def doubts(runs: ClickHouseRuns, info: RunInfo) -> list[str]:
    """Why figures might be lost or count twice once it is published; empty: they cannot. Each names the remedy."""
    return [*forgotten(runs, info), *_behind(runs, info), *_grown(runs, info), *_corrected(runs, info)]


def _reached(runs: ClickHouseRuns) -> list[Reached]:
    """How far every input of every partition has come."""
    sql = f"""
        SELECT partition, input, toUnixTimestamp(max(effect_pane)) FROM pane_rows
        WHERE input != '{JOURNAL_INPUT}' AND log_epoch = (SELECT max(log_epoch) FROM pane_rows)
        GROUP BY partition, input ORDER BY partition, input"""
    return [(int(partition), str(source), int(at)) for partition, source, at in runs.ask(sql)]


def _newest_of(reached: list[Reached]) -> dict[int, int]:
    """By partition the newest effect pane that any of its inputs has."""
    found: dict[int, int] = {}
    for partition, _, at in reached:
        found[partition] = max(at, found.get(partition, 0))
    return found


def _is_quiet(at_s: int, reached: list[Reached]) -> bool:
    """Whether something that stands there has been silent: it is far behind the newest event of all."""
    return at_s < max((at for _, _, at in reached), default=0) - QUIET_S


def _behind(runs: ClickHouseRuns, info: RunInfo) -> list[str]:
    """Inputs that have not passed the range's end: a late event would make a row in it, which nobody would see."""
    reached = _reached(runs)
    behind = sorted((at, source, partition) for partition, source, at in reached if at < info.to_s)
    quiet = [each for each in behind if _is_quiet(each[0], reached)]
    slow = behind[len(quiet) :]
    found = []
    if quiet:
        found.append(
            f"{_named(quiet)} have brought nothing since {utc_text(quiet[-1][0])} UTC or longer, before the range's "
            "end, and what might still come late for them would not be shown; if their campaigns have ended, or "
            "nothing is late by that much, nothing is lost"
        )
    if slow:
        found.append(
            f"{_named(slow)} stand before the range's end, and what comes late for them would not be shown; "
            f"wait until they have passed it, or publish a range that ended by {utc_text(slow[0][0])}"
        )
    return found


def _named(behind: list[tuple[int, str, int]]) -> str:
    named = ", ".join(f"{source} of partition {partition}" for _, source, partition in behind[:MAX_NAMED])
    return named + (f" and {len(behind) - MAX_NAMED} more" if len(behind) > MAX_NAMED else "")


def _grown(runs: ClickHouseRuns, info: RunInfo) -> list[str]:
    """Events that only one of both has counted."""
    found = []
    for source, counted in COUNTED.items():
        live, own = (_events(runs, info, side, source, counted) for side in (LIVE, info.run))
        if live != own:
            found.append(
                f"the live rows hold {live:,} {source.value} of the range and the run {own:,}: the live worker has "
                "gone on since, or its rules say what is late or doubled; replay the range again"
            )
    return found


def _events(runs: ClickHouseRuns, info: RunInfo, side: str, source: Input, counted: str) -> int:
    sql = f"SELECT sum({counted}) FROM {rows_of(Table.PANES, side)} AND input = '{source.value}'"
    return int(runs.ask(sql, range_of(side, info))[0][0])


# Corrections


def _corrected(runs: ClickHouseRuns, info: RunInfo) -> list[str]:
    """Corrections of what both count otherwise: those told behind the range, and those that can still be told."""
    differing = _differing(info)
    parameters = {**range_of(info.run, info), "newest": _newest(runs)}
    told = f"""
        SELECT uniqExact({_KEY}, origin_pane), uniqExact(campaign_id) FROM pane_rows FINAL
        WHERE input = '{JOURNAL_INPUT}' AND toUnixTimestamp(effect_pane) >= {{to:UInt32}}
        AND ({_KEY}, origin_pane) IN (SELECT {_KEY}, origin_pane FROM ({differing}))"""
    keys, campaigns = runs.ask(told, parameters)[0]
    found = []
    if keys:
        found.append(
            f"corrections told behind its range are about {int(keys):,} panes of {int(campaigns):,} campaigns that the "
            "run counts otherwise, and may count twice; replay up to a later time, so that it holds them itself"
        )
    reach = f"""
        SELECT toUnixTimestamp(max(origin_pane)) + multiIf(has_conversions, {RECENT_MS[Input.CONVERSIONS] // 1000},
            has_clicks, {RECENT_MS[Input.CLICKS] // 1000}, {FLAGGED_MS // 1000}) AS until, uniqExact(campaign_id)
        FROM ({differing}) GROUP BY has_conversions, has_clicks HAVING until > {{newest:UInt32}} ORDER BY until DESC"""
    open_ones = runs.ask(reach, parameters)
    if open_ones:
        found.append(
            f"until events of {utc_text(int(open_ones[0][0]))} UTC are read, later words can reach what the run counts "
            "otherwise than the live rows: such a correction would count twice; publish after that"
        )
    before = f"""
        SELECT uniqExact({_KEY}, origin_pane) FROM ({differing}) WHERE toUnixTimestamp(origin_pane) < {{from:UInt32}}
        AND is_corrected"""
    if keys := int(runs.ask(before, parameters)[0][0]):
        found.append(
            f"it corrects {keys:,} panes from before its range otherwise than the live rows do, which count there; "
            "begin the range earlier"
        )
    return found


def _newest(runs: ClickHouseRuns) -> int:
    return min((at for _, _, at in _reached(runs)), default=0)


def _differing(info: RunInfo) -> str:
    """Keys and origin panes whose net figures by validity are not the same on both sides."""
    conversions, clicks = COUNTED[Input.CONVERSIONS], COUNTED[Input.CLICKS]
    rest = " + ".join(COUNTED[source] for source in Input if source not in (Input.CLICKS, Input.CONVERSIONS))
    columns = f"{_KEY}, validity, origin_pane, input, {conversions} AS v, {clicks} AS c, {rest} AS o, {_MONEY} AS m"
    return f"""
        SELECT {_KEY}, origin_pane, max(any_v) > 0 AS has_conversions, max(any_c) > 0 AS has_clicks,
            max(of_journal) > 0 AS is_corrected
        FROM (
            SELECT {_KEY}, validity, origin_pane, countIf(v != 0) AS any_v, countIf(c != 0) AS any_c,
                countIf(input = '{JOURNAL_INPUT}') AS of_journal,
                sum(sign * v) AS dv, sum(sign * c) AS dc, sum(sign * o) AS do, sum(sign * m) AS dm
            FROM (
                SELECT 1 AS sign, * FROM (SELECT {columns} FROM {rows_of(Table.PANES, LIVE)})
                UNION ALL SELECT -1 AS sign, * FROM (SELECT {columns} FROM {rows_of(Table.PANES, info.run)})
            ) GROUP BY {_KEY}, validity, origin_pane
        ) WHERE dv != 0 OR dc != 0 OR do != 0 OR dm != 0 GROUP BY {_KEY}, origin_pane"""


def check_campaigns(runs: ClickHouseRuns, wanted: tuple[str, ...], also: set[str]) -> None:
    """Before a run that is compared for some campaigns only.

    Args:
        also: campaigns that the run itself brings.

    Raises:
        ConfigurationError: nothing is known of one of them.
    """
    unknown = [campaign for campaign in wanted if campaign not in also]
    if not unknown:
        return
    sql = """SELECT DISTINCT campaign_id FROM campaign_rows WHERE campaign_id IN {wanted:Array(String)}
        UNION DISTINCT SELECT DISTINCT campaign_id FROM pane_rows WHERE campaign_id IN {wanted:Array(String)}"""
    parameters: dict[str, Any] = {"wanted": unknown}
    known = {str(row[0]) for row in runs.ask(sql, parameters)}
    for campaign in unknown:
        if campaign not in known:
            raise ConfigurationError(
                f"--campaign: there is no campaign {campaign}; `campaigns list` shows those that there are"
            )
