"""`campaign-streams query`: read-only SQL, wherever ClickHouse is."""

import csv
import io
import json
import math
import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich import box
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from streams.commands.options import notes, out
from streams.errors import ConfigurationError

if TYPE_CHECKING:
    from streams.adapters.clickhouse_query import QueryResult

MAX_ROWS: Final = 1_000_000
NULL: Final = "–"
GAP: Final = 2
EPILOG: Final = """
Examples:

  campaign-streams query "SELECT campaign_id, clicks, ctr FROM campaign_totals"
  campaign-streams query --format csv "SELECT * FROM campaign_days" > days.csv
  campaign-streams query --data-dir DIR "SELECT * FROM ledger"
  echo "SHOW TABLES" | campaign-streams query -

Views: campaign_totals, campaign_days, campaign_minutes, campaign_cohorts, campaign_reach, campaign_pacing,
campaign_pacing_minutes, invalid_traffic, invalid_reasons, flags, alerts, campaigns, ledger.
"DESCRIBE campaign_totals" explains each column.
"""


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def query(
    sql: Annotated[str, typer.Argument(help="One statement: SELECT, WITH, SHOW, DESCRIBE, EXPLAIN. - reads stdin.")],
    form: Annotated[
        Format,
        typer.Option("--format", help="table for people, json (an array of objects) or csv for programs."),
    ] = Format.TABLE,
    data_dir: Annotated[
        Path | None, typer.Option(help="Ask the demo with this data directory, instead of what the settings name.")
    ] = None,
    max_rows: Annotated[int, typer.Option(min=1, max=MAX_ROWS, help="Rows at most; a note says if more are there.")] = (
        10_000
    ),
) -> None:
    """Ask ClickHouse: read-only SQL on the views and tables.

    Goes to the settings' clickhouse.dsn, or with --data-dir to a demo's. While a worker holds the embedded
    ClickHouse, that worker answers (10,000 rows at most). Nothing can be changed; time and memory are bounded.
    A ratio over zero is NULL, shown as –.
    """
    from streams.adapters.clickhouse_query import QueryLimits
    from streams.commands.asking import asker_for

    statement = _statement(sql)
    asker = asker_for(data_dir)
    try:
        result = asker.ask(statement, QueryLimits(max_rows=max_rows))
    finally:
        asker.close()
    _write(result, form)
    if result.truncated:
        is_the_workers = asker.goes_through_worker and len(result.rows) >= QueryLimits().max_rows
        hint = "; the worker gives no more" if is_the_workers else ""
        notes().print(f"only the first {len(result.rows):,} rows are shown{hint}: use LIMIT, or a larger --max-rows")


def _statement(sql: str) -> str:
    if sql == "-" and sys.stdin.isatty():
        notes().print("reading SQL from the terminal; Ctrl-D ends it")
    text = sys.stdin.read() if sql == "-" else sql
    if not text.strip():
        raise ConfigurationError("the statement is empty; give SQL, for example 'SELECT * FROM campaign_totals'")
    return text


def _write(result: "QueryResult", form: Format) -> None:
    if form is Format.TABLE:
        console = out()
        console.print(as_table(result, console))
        return
    chunks = as_csv(result) if form is Format.CSV else as_json(result)
    for chunk in chunks:
        sys.stdout.write(chunk)
    sys.stdout.flush()


def as_csv(result: "QueryResult") -> Iterator[str]:
    """RFC 4180 with a header; NULL is an empty field, arrays and maps are JSON."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(result.columns)
    for row in result.rows:
        writer.writerow(["" if value is None else _plain(value) for value in row])
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
    yield buffer.getvalue()


def as_json(result: "QueryResult") -> Iterator[str]:
    """An array of objects, one on each line."""
    yield "["
    for at, row in enumerate(result.rows):
        document = json.dumps(dict(zip(result.columns, row, strict=True)), ensure_ascii=False)
        yield f"{',' if at else ''}\n{document}"
    yield "\n]\n"


def as_table(result: "QueryResult", console: Console) -> RenderableType:
    """A table; where it is too wide for the terminal, each row as a list of its columns."""
    if not result.rows:
        return Text(f"no rows ({', '.join(result.columns)})", style="dim")
    texts = [[NULL if value is None else _shown(value) for value in row] for row in result.rows]
    for names in (list(result.columns), [name.replace("_", "_\n") for name in result.columns]):
        if _width(names, texts) <= console.width or len(names) == 1:
            return _level(names, result.types, texts)
    return _upright(result, texts)


def _width(names: list[str], texts: list[list[str]]) -> int:
    """Columns of the terminal that a table takes, two between its own."""
    columns = [max(map(cell_len, (*name.split("\n"), *(row[at] for row in texts)))) for at, name in enumerate(names)]
    return sum(columns) + GAP * (len(columns) - 1)


def _level(names: list[str], types: Sequence[str], texts: list[list[str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, GAP - 1, 0, 0))
    for name, kind in zip(names, types, strict=True):
        table.add_column(Text(name), justify="right" if is_number(kind) else "left", overflow="fold", vertical="bottom")
    for row in texts:
        table.add_row(*map(Text, row))
    return table


def _upright(result: "QueryResult", texts: list[list[str]]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for at, row in enumerate(texts, start=1):
        table.add_row(Text(f"row {at}", style="bold"), "")
        for name, value in zip(result.columns, row, strict=True):
            table.add_row(Text(name), Text(value))
    return table


def is_number(kind: str) -> bool:
    """Whether a ClickHouse type is that of numbers."""
    inner = kind
    for wrapper in ("LowCardinality(", "Nullable("):
        inner = inner.removeprefix(wrapper)
    return inner.startswith(("Int", "UInt", "Float", "Decimal", "BFloat"))


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.6g}" if value != int(value) or abs(value) >= 1e15 else f"{value:.0f}"
    return str(_plain(value))


def _plain(value: object) -> object:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list | tuple) else value
