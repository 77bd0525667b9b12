"""What commands show and write of a run's differences: the table, its JSON, and the report's files."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.table import Table as Grid
from rich.text import Text

from streams.commands.options import notes, out, time_text

if TYPE_CHECKING:
    from streams.adapters.clickhouse_runs import ClickHouseRuns, RunInfo
    from streams.jobs.replay_compare import Difference, Side
    from streams.jobs.replay_report import RulesChange

ReportOption = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE", help="Writes the comparison as FILE.csv, FILE.json or FILE.html; repeat it."),
]
MAX_SHOWN: Final = 30
MAX_TOLD: Final = 5
"""Changes of rules that are told one by one."""
COUNTS: Final = ("impressions", "clicks", "conversions")
_INVALID: Final = ("invalid_clicks", "invalid_spend_micros")


def show_differences(
    differences: "Sequence[Difference]",
    other: str,
    changes: "Sequence[RulesChange]" = (),
    only: Sequence[str] = (),
    remarks: Sequence[str] = (),
) -> None:
    """The campaigns that differ, the largest differences in money first; and where rules changed on the way.

    `remarks`: what has to be known before the figures are believed.
    """
    for remark in remarks:
        out().print(f"mind: {remark}", soft_wrap=True)
    if only:
        out().print(f"compared: only {', '.join(only)}; the run itself counts all campaigns", soft_wrap=True)
    _tell_changes(changes)
    changed = [each for each in differences if each.before != each.after]
    if not changed:
        out().print(f"no campaign differs from {other} ({len(differences)} compared)")
        return
    columns = ("impressions", "clicks", "conversions", "CTR", "CVR", "spend", "invalid clicks", "invalid spend")
    grid = Grid("campaign", "currency", *columns, "alerts", "difference")
    for each in changed[:MAX_SHOWN]:
        cells = [
            *(_pair(each, name) for name in COUNTS),
            *(_shares(each, name) for name in ("ctr", "cvr")),
            *(_pair(each, name) for name in ("spend_micros", *_INVALID, "alerts")),
        ]
        grid.add_row(Text(each.campaign_id), Text(each.currency), *cells, f"{each.money_micros:+,}")
    out().print(grid)
    out().print(f"{len(changed)} of {len(differences)} campaigns differ from {other}; money in micros")


def _pair(each: "Difference", name: str) -> str:
    before, after = getattr(each.before, name), getattr(each.after, name)
    return f"{before:,}" if before == after else f"{before:,} → {after:,}"


def _shares(each: "Difference", name: str) -> str:
    before, after = (_share(getattr(side, name)) for side in (each.before, each.after))
    return before if before == after else f"{before} → {after}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.2%}" + ("*" if value > 1 else "")


def _tell_changes(changes: "Sequence[RulesChange]") -> None:
    for each in changes[:MAX_TOLD]:
        when = f"{time_text(each.first_s * 1000)} to {time_text(each.last_s * 1000)} UTC"
        out().print(
            f"{each.side} changed its rules from {each.before} to {each.after}: {when} ({each.partitions} partitions)",
            soft_wrap=True,
        )
    if len(changes) > MAX_TOLD:
        out().print(f"{len(changes) - MAX_TOLD} more changes of rules; a report (--report) lists them")


def documents(differences: "Sequence[Difference]") -> list[dict[str, Any]]:
    """The same as plain values."""
    return [
        {"campaign_id": each.campaign_id, "currency": each.currency, "money_micros": each.money_micros}
        | {"before": _document(each.before), "after": _document(each.after)}
        for each in differences
    ]


def _document(side: "Side") -> dict[str, Any]:
    return {**side._asdict(), "ctr": side.ctr, "cvr": side.cvr}


def write_reports(
    runs: "ClickHouseRuns", info: "RunInfo", other: str, differences: "list[Difference]", paths: Sequence[Path]
) -> None:
    """Writes the report into each of these files.

    Raises:
        ConfigurationError: the disk refuses.
    """
    from streams.jobs.replay_report import report_of
    from streams.jobs.report_files import write_report

    if not paths:
        return
    report = report_of(runs, info, other, differences)
    for path in paths:
        write_report(report, path)
        notes().print(f"report: {path}")
