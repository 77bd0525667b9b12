"""A run against the live rows, or another run, as a document of its own: for CSV, JSON and HTML (`report_files`).

Amounts of different currencies stay apart, in totals and in plots; counts do not know a currency. Where the rules
changed within the range, the report says where: rows carry the fingerprint of the rules that they were counted by.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from streams.adapters.clickhouse_runs import ClickHouseRuns, RunInfo
from streams.jobs.replay_compare import LIVE, Difference, Side, added, compare, range_of, rows_of
from streams.jobs.replay_kept import forgotten
from streams.records import Table
from streams.stages.rates import wilson

MAX_POINTS: Final = 480
"""Of a plot."""
STEPS_S: Final = (60, 300, 900, 3_600, 21_600, 86_400)
MAX_PLOTTED: Final = 6
"""Currencies with a plot of their own, those with the most money first; the rest is in the tables."""
MAX_CHANGES: Final = 200
"""Changes of rules that are told, the first ones."""


class Ratio(msgspec.Struct, frozen=True):
    """A share and its 95% Wilson interval. `value` above 1: its counts do not belong together; see `note`."""

    value: float
    low: float
    high: float
    note: str = ""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One side of one campaign. Valid traffic, but `invalid_*`; gross is both. Money in micros."""

    impressions: int
    clicks: int
    conversions: int
    ctr: Ratio | None
    """Clicks / impressions; absent over zero."""
    cvr: Ratio | None
    """Conversions / clicks, by conversion time; absent over zero."""
    spend_micros: int
    invalid_impressions: int
    invalid_clicks: int
    invalid_conversions: int
    invalid_spend_micros: int
    alerts: int


class CampaignLine(msgspec.Struct, frozen=True, kw_only=True):
    """One campaign in one currency."""

    campaign_id: str
    name: str
    currency: str
    before: Figures
    after: Figures
    difference: dict[str, float | None]
    """After less before; of CTR and CVR in points, absent where either is."""


class CurrencyTotal(msgspec.Struct, frozen=True, kw_only=True):
    """All campaigns of one currency."""

    currency: str
    campaigns: int
    before: Figures
    after: Figures
    difference: dict[str, float | None]


class RulesChange(msgspec.Struct, frozen=True, kw_only=True):
    """Where one side ran through a change of rules."""

    side: str
    before: str
    """Fingerprint (table rule_sets)."""
    after: str
    first_s: int
    """Effect pane in which the first partition counted by the new rules, epoch seconds."""
    last_s: int
    """The same of the last partition."""
    partitions: int


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """Lines of one plot: values by time, of the panes in which events happened."""

    measure: str
    currency: str
    times_s: list[int]
    before: list[int]
    after: list[int]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A comparison. Times are epoch seconds UTC; the range is [from_s, to_s) of effect panes."""

    run: str
    kind: str
    other: str
    from_s: int
    to_s: int
    only_campaigns: tuple[str, ...]
    """Campaigns that the run was narrowed to; empty: all."""
    remarks: list[str]
    """What has to be known before the figures are believed: live rows that are no longer kept. Empty: nothing."""
    rules: dict[str, list[str]]
    """Fingerprints by side, in the order of their begin."""
    rules_changes: list[RulesChange]
    totals: list[CurrencyTotal]
    campaigns: list[CampaignLine]
    """The largest differences in money first."""
    differing: int
    """Of these, how many differ in anything."""
    step_s: int
    series: list[Series]


def report_of(
    runs: ClickHouseRuns, info: RunInfo, other: str = LIVE, differences: Sequence[Difference] | None = None
) -> Report:
    """Asks for everything that the report tells.

    Args:
        differences: what `compare` gave, where it has been asked already.
    """
    found = compare(runs, info, other) if differences is None else differences
    names = _names(runs)
    rules, changes = rules_of(runs, info, other)
    step_s = _step_s(info)
    return Report(
        run=info.run,
        kind=info.kind,
        other=other,
        from_s=info.from_s,
        to_s=info.to_s,
        only_campaigns=info.campaigns,
        remarks=forgotten(runs, info, other),
        rules=rules,
        rules_changes=changes[:MAX_CHANGES],
        totals=totals_of(found),
        campaigns=[line_of(each, names.get(each.campaign_id, "")) for each in found],
        differing=sum(each.before != each.after for each in found),
        step_s=step_s,
        series=_series(runs, info, other, step_s),
    )


def figures_of(side: Side) -> Figures:
    """The side with its ratios."""
    return Figures(
        ctr=_ratio(side.clicks, side.impressions, "more clicks than impressions"),
        cvr=_ratio(side.conversions, side.clicks, "more conversions than clicks"),
        **side._asdict(),
    )


def difference_of(before: Figures, after: Figures) -> dict[str, float | None]:
    """After less before, by measure."""
    found: dict[str, float | None] = {}
    for name in Figures.__struct_fields__:
        one, two = getattr(before, name), getattr(after, name)
        if name in ("ctr", "cvr"):
            found[name] = two.value - one.value if one is not None and two is not None else None
        else:
            found[name] = two - one
    return found


def _ratio(part: int, whole: int, note: str) -> Ratio | None:
    rate = wilson(part, whole)
    return None if rate is None else Ratio(rate.value, rate.low, rate.high, note if part > whole else "")


def line_of(each: Difference, name: str) -> CampaignLine:
    """A campaign with its ratios and differences."""
    before, after = figures_of(each.before), figures_of(each.after)
    return CampaignLine(
        campaign_id=each.campaign_id,
        name=name,
        currency=each.currency,
        before=before,
        after=after,
        difference=difference_of(before, after),
    )


def totals_of(found: Sequence[Difference]) -> list[CurrencyTotal]:
    """Sums by currency."""
    currencies: dict[str, list[Difference]] = {}
    for each in found:
        currencies.setdefault(each.currency, []).append(each)
    totals = []
    for currency, own in sorted(currencies.items()):
        before, after = (figures_of(added(getattr(each, side) for each in own)) for side in ("before", "after"))
        campaigns = len({each.campaign_id for each in own})
        total = CurrencyTotal(
            currency=currency,
            campaigns=campaigns,
            before=before,
            after=after,
            difference=difference_of(before, after),
        )
        totals.append(total)
    return totals


def _names(runs: ClickHouseRuns) -> dict[str, str]:
    return {str(campaign): str(name) for campaign, name in runs.ask("SELECT campaign_id, name FROM campaigns")}


# Rules


def rules_of(runs: ClickHouseRuns, info: RunInfo, other: str = LIVE) -> tuple[dict[str, list[str]], list[RulesChange]]:
    """Fingerprints by side, in the order of their begin; and where a side changed its rules within the range."""
    rules: dict[str, list[str]] = {}
    changes: list[RulesChange] = []
    for side in (other, info.run):
        sql = f"""
            SELECT log_epoch, partition, rules_seq, any(rules), toUnixTimestamp(min(effect_pane))
            FROM {rows_of(Table.PANES, side)} GROUP BY log_epoch, partition, rules_seq ORDER BY 1, 2, 3"""
        rows = runs.ask(sql, range_of(side, info))
        begun: dict[str, int] = {}
        for *_, fingerprint, at_s in rows:
            begun[fingerprint] = min(int(at_s), begun.get(fingerprint, int(at_s)))
        rules[side] = sorted(begun, key=lambda fingerprint: begun[fingerprint])
        changes += rules_changes(side, rows)
    return rules, sorted(changes, key=lambda change: (change.first_s, change.side != LIVE))


def rules_changes(side: str, rows: Sequence[Sequence[Any]]) -> list[RulesChange]:
    """The n-th change of each partition is one change of the side. Pure.

    Args:
        rows: log epoch, partition, tick that brought the rules, fingerprint, first effect pane (epoch seconds), sorted.
    """
    found: dict[tuple[int, str, str], list[int]] = {}
    last: tuple[Any, str] = (None, "")
    count = 0
    for log_epoch, partition, _, fingerprint, at_s in rows:
        place = (log_epoch, partition)
        if last[0] != place:
            count = 0
        elif last[1] != fingerprint:
            count += 1
            found.setdefault((count, last[1], fingerprint), []).append(int(at_s))
        last = (place, fingerprint)
    return [
        RulesChange(side=side, before=old, after=new, first_s=min(times), last_s=max(times), partitions=len(times))
        for (_, old, new), times in found.items()
    ]


# Plots


def _step_s(info: RunInfo) -> int:
    """The finest step that leaves a plot readable."""
    fitting = [step for step in STEPS_S if (info.to_s - info.from_s) // step <= MAX_POINTS]
    return fitting[0] if fitting else STEPS_S[-1]


_PLOTTED: Final = ("clicks", "invalid_clicks")
"""Plots of counts; money has one for each currency."""


def _series(runs: ClickHouseRuns, info: RunInfo, other: str, step_s: int) -> list[Series]:
    chosen = "AND campaign_id IN {campaigns:Array(String)}" if info.campaigns else ""
    sides = {}
    for side in (other, info.run):
        sql = f"""
            SELECT intDiv(toUnixTimestamp(origin_pane), {step_s}) * {step_s} AS at, currency,
                sumIf(clicks, validity = 'valid'), sumIf(clicks, validity != 'valid'),
                intDiv(sumIf(toInt128(spend_millimicros) - credited_millimicros, validity = 'valid'), 1000)
            FROM {rows_of(Table.PANES, side)} {chosen} GROUP BY at, currency ORDER BY at DESC, currency
            LIMIT {MAX_POINTS * 40}"""
        sides[side] = runs.ask(sql, {**range_of(side, info), "campaigns": list(info.campaigns)})
    before, after = sides[other], sides[info.run]
    money: dict[str, int] = {}
    for _, currency, _, _, micros in (*before, *after):
        money[currency] = money.get(currency, 0) + abs(int(micros))
    plotted = sorted((c for c in money if money[c]), key=lambda c: (-money[c], c))[:MAX_PLOTTED]
    plots = [("spend_micros", currency, 4) for currency in plotted]
    plots += [(name, "", at) for at, name in enumerate(_PLOTTED, start=2)]
    return [_one_series(name, currency, place, before, after) for name, currency, place in plots]


def _one_series(
    measure: str, currency: str, place: int, before: Sequence[Sequence[Any]], after: Sequence[Sequence[Any]]
) -> Series:
    """Times are those at which either side has anything, the latest `MAX_POINTS`: corrections reach far back."""
    lines: list[dict[int, int]] = []
    for rows in (before, after):
        line: dict[int, int] = {}
        for row in rows:
            if not currency or row[1] == currency:
                line[int(row[0])] = line.get(int(row[0]), 0) + int(row[place])
        lines.append(line)
    times = sorted(lines[0].keys() | lines[1].keys())[-MAX_POINTS:]
    one, two = ([line.get(at, 0) for at in times] for line in lines)
    return Series(measure=measure, currency=currency, times_s=times, before=one, after=two)
