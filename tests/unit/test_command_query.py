"""How answers of `query` are written, and what is asked where."""

import csv
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from streams.adapters.clickhouse_query import QueryResult
from streams.commands.asking import asker_for
from streams.commands.query import as_csv, as_json, as_table, is_number
from streams.errors import ConfigurationError

RESULT = QueryResult(
    columns=("campaign_id", "ctr", "reasons"),
    types=("LowCardinality(String)", "Nullable(Float64)", "Map(String, Int64)"),
    rows=[('a,"b"\n', None, {}), ("[red]鑑", 0.0434739, {"future": 2})],
    truncated=False,
)


def shown(result: QueryResult, width: int) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(as_table(result, console))
    return console.export_text()


def test_csv_is_read_back_as_it_was_and_null_is_empty() -> None:
    rows = list(csv.reader(io.StringIO("".join(as_csv(RESULT)))))
    assert rows == [list(RESULT.columns), ['a,"b"\n', "", "{}"], ["[red]鑑", "0.0434739", '{"future": 2}']]


def test_json_is_an_array_of_objects() -> None:
    assert json.loads("".join(as_json(RESULT))) == [dict(zip(RESULT.columns, row, strict=True)) for row in RESULT.rows]
    assert json.loads("".join(as_json(RESULT._replace(rows=[])))) == []


def test_a_table_shows_null_as_absent_and_names_as_they_are() -> None:
    text = shown(RESULT, 100)
    assert "–" in text
    assert "[red]鑑" in text
    assert "0.0434739" in text


def test_a_table_that_is_too_wide_is_shown_row_by_row() -> None:
    names = tuple(f"column{number}" for number in range(12))
    wide = QueryResult(names, ("String",) * 12, [("value",) * 12], truncated=False)
    assert "row 1" in shown(wide, 80)
    assert "row 1" not in shown(wide, 160)
    assert "…" not in shown(wide, 80)


def test_long_headings_break_before_the_table_turns_upright() -> None:
    names = ("lost_retention_of_records", "rejected_by_reason_of_all")
    narrow = QueryResult(names, ("Int64", "Int64"), [(1, 2)], truncated=False)
    text = shown(narrow, 40)
    assert "row 1" not in text
    assert "retention_" in text


def test_no_rows_still_name_the_columns() -> None:
    assert "no rows (campaign_id, ctr, reasons)" in shown(RESULT._replace(rows=[]), 100)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("Int64", True), ("LowCardinality(Nullable(UInt8))", True), ("Nullable(Float64)", True), ("String", False)],
)
def test_numbers_are_known_by_their_type(kind: str, expected: bool) -> None:
    assert is_number(kind) is expected


def test_asking_never_makes_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = tmp_path / "absent"
    with pytest.raises(ConfigurationError, match="holds no demo's data"):
        asker_for(absent)
    monkeypatch.setenv("CAMPAIGN_STREAMS_CLICKHOUSE__DSN", f"chdb://{absent}")
    asker = asker_for(None)
    with pytest.raises(ConfigurationError, match="there is no embedded ClickHouse"):
        asker.ask("SELECT 1")
    asker.close()
    assert not absent.exists()
