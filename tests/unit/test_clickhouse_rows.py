"""Which columns an insertion names, how migrations are read, and what errors mean."""

from pathlib import Path

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, DataError, OperationalError, ProgrammingError

from streams.adapters.clickhouse_columns import columns_of
from streams.adapters.clickhouse_dsn import parse_dsn
from streams.adapters.clickhouse_errors import mapped
from streams.adapters.clickhouse_migrations import load_migrations, migrations_dir, statements_of
from streams.errors import ConfigurationError, SinkUnavailable
from streams.records import COLUMNS, KEY_COLUMNS, Table
from tests.support.rows import make_row

TARGET = parse_dsn("clickhouse://user:s3cret@host/db")


def test_columns_of_zeros_are_left_out_and_the_others_keep_their_order() -> None:
    rows = [
        make_row(Table.PANES, impressions=3),
        make_row(Table.PANES, input="clicks", clicks=2, clicks_card=2),
        make_row(Table.PANES, impressions=0, duplicates=-1),
    ]
    names, columns = columns_of(Table.PANES, rows)
    assert names == [
        *KEY_COLUMNS[Table.PANES],
        "duplicates",
        "impressions",
        "clicks",
        "clicks_card",
        "rules",
        "version",
    ]
    by_name = dict(zip(names, columns, strict=True))
    assert (by_name["duplicates"], by_name["impressions"], by_name["clicks"]) == ([0, 0, -1], [3, 0, 0], [0, 2, 0])


def test_rows_of_the_journal_may_fill_any_measure() -> None:
    names, _ = columns_of(Table.PANES, [make_row(Table.PANES, input="journal", likes=1, refunds=1)])
    assert {"likes", "refunds"} < set(names)


def test_a_sketch_is_left_out_where_no_row_has_one() -> None:
    assert "users" not in columns_of(Table.REPORTS, [make_row(Table.REPORTS)])[0]
    assert "users" in columns_of(Table.REPORTS, [make_row(Table.REPORTS), make_row(Table.REPORTS, users=[1])])[0]


@pytest.mark.parametrize("table", [Table.COHORTS, Table.LEDGER, Table.CAMPAIGNS, Table.PACING, Table.ALERTS])
def test_narrow_tables_are_inserted_whole(table: Table) -> None:
    assert columns_of(table, [make_row(table)])[0] == list(COLUMNS[table])


def test_statements_end_at_a_semicolon_at_a_lines_end() -> None:
    text = "-- a; comment;\nSELECT 'a; b'\n  -- another;\nFROM t;\n\nSELECT 2;"
    assert statements_of(text) == ("SELECT 'a; b'\nFROM t", "SELECT 2")


def test_the_shipped_migrations_are_numbered_without_a_gap() -> None:
    migrations = load_migrations()
    assert [migration.version for migration in migrations] == list(range(1, len(migrations) + 1))
    assert all(migration.statements for migration in migrations)
    assert migrations_dir().name == "clickhouse"


@pytest.mark.parametrize(
    "names", [[], ["0002_b.sql"], ["0001_a.sql", "0003_c.sql"], ["0001_a.sql", "0001_b.sql"], ["x.sql"]]
)
def test_migrations_with_a_gap_or_a_strange_name_are_refused(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text("SELECT 1;")
    with pytest.raises(ConfigurationError, match="install the package again"):
        load_migrations(tmp_path)


def test_a_checksum_does_not_depend_on_line_ends(tmp_path: Path) -> None:
    checksums = set()
    for text in (b"SELECT 1;\nSELECT 2;\n", b"SELECT 1;\r\nSELECT 2;\r\n"):
        (tmp_path / "0001_a.sql").write_bytes(text)
        checksums.add(load_migrations(tmp_path)[0].checksum)
    assert len(checksums) == 1


def test_an_unknown_error_is_taken_to_pass() -> None:
    for error in (OperationalError("no route"), DatabaseError("Code: 4242. what"), ConnectionResetError("reset")):
        assert isinstance(mapped(error, TARGET, "writing"), SinkUnavailable)


def test_errors_of_schema_and_rights_do_not_pass() -> None:
    for error in (DatabaseError("x", code=60), DatabaseError("x", code=516), ProgrammingError("Unrecognized column")):
        assert isinstance(mapped(error, TARGET, "writing"), ConfigurationError)


def test_a_message_is_short_and_shows_no_password() -> None:
    text = "Received ClickHouse exception, code: 252, server response: Code: 252. DB::Exception: Too many parts s3cret "
    message = str(mapped(DatabaseError(text + "x" * 5_000, code=252), TARGET, "writing"))
    assert "writing at clickhouse://user:***@host:8123/db: Too many parts *** xxx" in message
    assert len(message) < 700


def test_a_value_that_does_not_fit_its_column_is_a_defect_and_not_an_outage() -> None:
    with pytest.raises(DataError):
        mapped(DataError("Failed to write column 'late'"), TARGET, "writing")
