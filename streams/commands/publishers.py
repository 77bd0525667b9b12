"""`campaign-streams publishers list | show | score`: how risky each publisher's clicks look, and why."""

import csv
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from streams.commands import publisher_risks
from streams.commands.options import notes, out, print_json, prose
from streams.commands.query import Format
from streams.errors import ConfigurationError

if TYPE_CHECKING:
    from streams.jobs.publisher_files import Rows
    from streams.stages.invalid.publisher_risk import Part, Risk

SHOWN: Final = 50
PARTS: Final = 3
ID_COLUMNS: Final = ("publisher_id", "publisher", "partnerid")
"""Where a publisher's id is looked for; otherwise its row is named."""
ABSENT: Final = "–"
EPILOG: Final = """
Examples:

  campaign-streams publishers score publishers.csv.gz
  campaign-streams publishers score publishers.csv --labels verdict --format csv > scores.csv

The columns are those of the labelled set of FDMA 2012; docstrings of streams.stages.invalid.publisher_features explain
each. Scores, and what they rest on, are for reviewers: not for advertisers, nor for publishers.
"""

app = typer.Typer(
    no_args_is_help=True, help="Publishers: how risky their clicks look, and why.", rich_markup_mode="rich"
)


class Scored(NamedTuple):
    """One publisher of a file."""

    publisher: str
    risk: "Risk"
    label: str | None


def score(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A CSV of publishers' statistics, also .csv.gz.")],
    form: Annotated[
        Format, typer.Option("--format", help="table for people (the riskiest), json or csv for programs (all).")
    ] = Format.TABLE,
    labels: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The column of labels; without it: status, where there is one.")
    ] = None,
    fraud: Annotated[str, typer.Option(metavar="LABEL", help="The label of a fraudulent publisher.")] = "Fraud",
) -> None:
    """Score publishers by the statistics of their clicks, the riskiest first, with the parts that weigh most.

    A score lies between 0 and 1 and orders publishers for a reviewer; it is no verdict. Its parts are log-odds: they
    add up to the score, and those above 0 raise it. A publisher of which too little is known has no score, and what is
    missing is named. Where the file has labels, the average precision of the order is told too; on the file that the
    model was fitted to, that says nothing.
    """
    from streams.jobs.publisher_files import read_table, shipped_forest
    from streams.stages.invalid.publisher_risk import judge

    names, rows = read_table(file)
    label = _label_column(file, names, labels)
    risks = judge(shipped_forest(), rows)
    scored = sorted(_named(names, rows, risks, label), key=lambda one: -1 if one.risk.score is None else one.risk.score)
    scored.reverse()
    if form is Format.JSON:
        print_json([_document(one) for one in scored])
    elif form is Format.CSV:
        sys.stdout.write(_as_csv(scored))
    else:
        out().print(_table(scored))
    if form is Format.TABLE and len(scored) > SHOWN:
        notes().print(f"… and {len(scored) - SHOWN:,} more; --format csv has all")
    _remarks(scored, label, fraud)


def _label_column(file: Path, names: list[str], wanted: str | None) -> str | None:
    from streams.jobs.publisher_files import LABEL_COLUMN

    if wanted is not None and wanted not in names:
        raise ConfigurationError(f"{file}: has no column {wanted!r}; --labels takes one of {', '.join(names)}")
    return wanted or (LABEL_COLUMN if LABEL_COLUMN in names else None)


def _named(names: list[str], rows: "Rows", risks: "list[Risk]", label: str | None) -> list[Scored]:
    identity = next((name for name in ID_COLUMNS if name in names), None)
    return [
        Scored(row[identity] if identity else f"row {at}", risk, None if label is None else row.get(label, "").strip())
        for at, (row, risk) in enumerate(zip(rows, risks, strict=True), 1)
    ]


def _table(scored: list[Scored]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("publisher", overflow="fold")
    table.add_column("score", justify="right", no_wrap=True)
    has_labels = any(one.label is not None for one in scored)
    if has_labels:
        table.add_column("label", overflow="fold")
    table.add_column("what weighs most (log-odds)", overflow="fold")
    for one in scored[:SHOWN]:
        shown = [Text(one.label or ABSENT)] if has_labels else []
        table.add_row(Text(one.publisher), _score_text(one.risk), *shown, Text(_why(one.risk)))
    return table


def _score_text(risk: "Risk") -> str:
    return ABSENT if risk.score is None else f"{risk.score:.3f}"


def _why(risk: "Risk") -> str:
    """The largest parts in words; for a publisher without a score, what is missing."""
    if risk.score is None:
        return f"unverifiable: {_gaps(risk)}"
    return "; ".join(map(in_words, risk.largest(PARTS))) or "nothing is out of the ordinary"


def in_words(part: "Part") -> str:
    """`clicks per address 18.2 raises by 0.75`."""
    verb = "raises" if part.log_odds > 0 else "lowers"
    return f"{part.words} {part.value:,.4g} {verb} by {abs(part.log_odds):.2f}"


def _gaps(risk: "Risk") -> str:
    gaps = [f"{name} {gap.replace('_', ' ')}" for name, gap in risk.gaps.items()]
    more = f" and {len(gaps) - PARTS} more" if len(gaps) > PARTS else ""
    return ", ".join(gaps[:PARTS]) + more


def _document(one: Scored) -> dict[str, object]:
    risk = one.risk
    return {
        "publisher": one.publisher,
        "score": risk.score,
        **({} if one.label is None else {"label": one.label}),
        "base_log_odds": risk.base,
        "groups": {group.value: amount for group, amount in risk.groups.items()},
        "parts": [part._asdict() for part in risk.largest(len(risk.parts))],
        "gaps": {name: gap.value for name, gap in risk.gaps.items()},
    }


def _as_csv(scored: list[Scored]) -> str:
    from streams.stages.invalid.publisher_features import Group

    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["publisher", "score", "label", "base_log_odds", *(f"{group}_log_odds" for group in Group), "why"])
    for one in scored:
        risk = one.risk
        amounts = ["" if risk.score is None else f"{amount:.5f}" for amount in risk.groups.values()]
        number = "" if risk.score is None else f"{risk.score:.6f}"
        writer.writerow([one.publisher, number, one.label or "", f"{risk.base:.5f}", *amounts, _why(risk)])
    return buffer.getvalue()


def _remarks(scored: list[Scored], label: str | None, fraud: str) -> None:
    """What the figures rest on, on standard error: programs read the answer alone."""
    import numpy as np

    from streams.stages.invalid.publisher_risk import average_precision

    unknown = sum(one.risk.score is None for one in scored)
    if unknown:
        notes().print(f"{unknown:,} of {len(scored):,} publishers have no score: too few columns have a value")
    partial = sum(one.risk.score is not None and bool(one.risk.gaps) for one in scored)
    if partial:
        notes().print(f"{partial:,} publishers are scored with columns missing; --format json names them")
    judged = [one for one in scored if one.risk.score is not None]
    if label is None or not judged:
        return
    is_fraud = np.array([one.label == fraud for one in judged])
    found = average_precision(is_fraud, np.array([one.risk.score for one in judged], dtype=np.float64))
    if found is None:
        notes().print(f"no publisher is labelled {fraud!r} in {label}: no average precision; --fraud names the label")
        return
    shares = f"{int(is_fraud.sum()):,} of {len(judged):,} are {fraud!r}"
    notes().print(f"average precision {found:.3f} ({shares}; by chance {is_fraud.mean():.3f})")


app.command("list", help=prose(publisher_risks.show_all.__doc__))(publisher_risks.show_all)
app.command("show", help=prose(publisher_risks.show.__doc__))(publisher_risks.show)
app.command("score", help=prose(score.__doc__), epilog=prose(EPILOG))(score)
