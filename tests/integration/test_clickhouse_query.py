"""Questions change nothing, cost no more than allowed, and are answered exactly."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streams.adapters.clickhouse import ClickHouseSink, connect
from streams.adapters.clickhouse_query import ClickHouseReader, QueryLimits
from streams.errors import ConfigurationError, QueryRefused
from streams.records import Table
from streams.settings import ClickHouseSettings
from tests.support.chdb_engine import new_settings
from tests.support.rows import make_row


@pytest.fixture
async def reader(migrated_settings: ClickHouseSettings) -> AsyncIterator[ClickHouseReader]:
    opened = ClickHouseReader(migrated_settings)
    yield opened
    await opened.close()


async def test_values_come_as_they_are(reader: ClickHouseReader) -> None:
    answer = await reader.query(
        "SELECT toUInt64(18446744073709551615) AS big, toInt64(-1) AS small, NULL AS none, nan AS no_number, "
        "'a\n\\'' AS t, toDateTime(1790000000, 'UTC') AS at, [1, 2] AS list, map('k', 1) AS pairs"
    )
    assert answer.columns == ("big", "small", "none", "no_number", "t", "at", "list", "pairs")
    assert answer.types[0] == "UInt64"
    assert answer.rows == [(2**64 - 1, -1, None, None, "a\n'", "2026-09-21 14:13:20", [1, 2], {"k": 1})]
    assert not answer.truncated


@pytest.mark.parametrize("sql", ["SHOW TABLES", "DESCRIBE pane_rows", "EXISTS TABLE pane_rows", "EXPLAIN SELECT 1"])
async def test_questions_about_the_schema_are_answered(reader: ClickHouseReader, sql: str) -> None:
    assert (await reader.query(sql)).rows


@pytest.mark.parametrize("sql", ["SELECT 1;", "  SELECT 1 -- why\n", "/* a */ WITH 1 AS a SELECT a", "(SELECT 1)"])
async def test_comments_and_a_last_semicolon_do_no_harm(reader: ClickHouseReader, sql: str) -> None:
    assert (await reader.query(sql)).rows == [(1,)]


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO ledger_rows (records) VALUES (1)",
        "INSERT INTO FUNCTION file('{file}', 'CSV', 'a String') SELECT 'x'",
        "SELECT 1 INTO OUTFILE '{file}'",
        "SELECT 1 INTO/**/OUTFILE '{file}' FORMAT CSV",
        "EXPLAIN SELECT 1 INTO OUTFILE '{file}'",
        "SELECT 1; DROP TABLE ledger_rows",
        "DROP TABLE ledger_rows",
        "TRUNCATE TABLE ledger_rows",
        "ALTER TABLE ledger_rows DELETE WHERE 1",
        "OPTIMIZE TABLE ledger_rows",
        "CREATE TABLE t (a Int8) ENGINE = Memory",
        "CREATE TEMPORARY TABLE t (a Int8)",
        "SET max_execution_time = 0",
        "SELECT 1 SETTINGS readonly = 0",
        "SELECT 1 SETTINGS max_execution_time = 0",
        "SELECT * FROM (SELECT * FROM file('/etc/hostname', 'LineAsString') SETTINGS readonly = 0)",
        "USE system",
        "SYSTEM FLUSH LOGS",
        "KILL QUERY WHERE 1",
        "SELECT * FROM file('/etc/hostname', 'LineAsString')",
        "SELECT * FROM url('http://127.0.0.1:9/', 'LineAsString')",
        "SELECT * FROM executable('true', 'TSV', 'a String')",
        "SELECT * FROM remote('127.0.0.1:9', 'system', 'one')",
        "SELECT * FROM Python(reader)",
        "SELECT * FROM `python`(reader)",
        "selec 1",
        "",
    ],
)
async def test_what_is_no_question_is_refused_and_changes_nothing(
    reader: ClickHouseReader,
    migrated_settings: ClickHouseSettings,
    tmp_path: Path,
    sql: str,
) -> None:
    sink = ClickHouseSink(migrated_settings)
    await sink.insert(Table.LEDGER, [make_row(Table.LEDGER, records=5)])
    await sink.close()
    with pytest.raises(QueryRefused):
        await reader.query(sql.format(file=tmp_path / "written"))
    assert not (tmp_path / "written").exists()
    assert (await reader.query("SELECT records FROM ledger_rows")).rows == [(5,)]


async def test_words_that_only_look_dangerous_are_answered(reader: ClickHouseReader) -> None:
    answer = await reader.query("SELECT 'INTO OUTFILE \\' python(' AS `into outfile`, dummy AS \"set\" FROM system.one")
    assert answer.rows == [("INTO OUTFILE ' python(", 0)]


async def test_a_setting_inside_a_query_does_not_raise_the_limits(reader: ClickHouseReader) -> None:
    inner = "SELECT max(sipHash64(number)) FROM numbers(1000000000000) SETTINGS max_execution_time = 0, readonly = 0"
    with pytest.raises(QueryRefused, match="Timeout exceeded"):
        await reader.query(f"SELECT * FROM ({inner})", QueryLimits(timeout_s=0.2))


async def test_more_rows_than_allowed_are_cut_off_and_said_to_be(reader: ClickHouseReader) -> None:
    limits = QueryLimits(max_rows=3)
    answer = await reader.query("SELECT number FROM numbers(1000000)", limits)
    assert (answer.rows, answer.truncated) == ([(0,), (1,), (2,)], True)
    answer = await reader.query("SELECT number FROM numbers(3)", limits)
    assert (len(answer.rows), answer.truncated) == (3, False)
    answer = await reader.query("SELECT count(), sum(number) FROM (SELECT number FROM numbers(10))", limits)
    assert answer.rows == [(10, 45)], "only the answer is limited, not what it is made of"


async def test_a_query_that_takes_too_long_is_ended(reader: ClickHouseReader) -> None:
    with pytest.raises(QueryRefused, match="Timeout exceeded"):
        await reader.query("SELECT max(sipHash64(number)) FROM numbers(1000000000000)", QueryLimits(timeout_s=0.2))


async def test_a_query_that_takes_too_much_memory_is_ended(reader: ClickHouseReader) -> None:
    with pytest.raises(QueryRefused, match="narrow it"):
        await reader.query("SELECT groupArray(number) FROM numbers(100000000)", QueryLimits(max_memory_bytes=1 << 20))


async def test_a_failed_query_leaves_nothing_in_the_next_answer(reader: ClickHouseReader) -> None:
    for _ in range(3):
        with pytest.raises(QueryRefused):
            await reader.query(
                "SELECT number, throwIf(number = 70000) FROM numbers(100000)", QueryLimits(max_rows=90_000)
            )
        assert (await reader.query("SELECT 2 AS two")).rows == [(2,)]


async def test_an_enormous_text_is_refused(reader: ClickHouseReader) -> None:
    with pytest.raises(QueryRefused, match="shorten it"):
        await reader.query("SELECT 1 -- " + "x" * 200_000)


async def test_a_database_that_does_not_exist_is_not_made_by_asking(chdb_settings: ClickHouseSettings) -> None:
    missing = new_settings()
    reader = ClickHouseReader(missing)
    with pytest.raises(ConfigurationError, match="start a worker first"):
        await reader.query("SELECT 1")
    await reader.close()


def test_a_directory_that_a_worker_holds_is_said_to_be_held_and_replays_name_what_to_do(tmp_path: Path) -> None:
    hold = (
        "import sys; from streams.adapters.clickhouse import connect; from streams.settings import ClickHouseSettings\n"
        "client = connect(ClickHouseSettings(dsn=sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    dsn = f"chdb://{tmp_path}/clickhouse"
    environment = {**os.environ, "CAMPAIGN_STREAMS_CLICKHOUSE__DSN": dsn}
    environment["CAMPAIGN_STREAMS_WORKER__STATE_DIR"] = str(tmp_path / "state")
    replay = ("replay", "--from", "2020-01-01", "--to", "2020-01-02", "--run", "r")
    ask = hold.replace("print('held', flush=True); sys.stdin.read()", "")
    with subprocess.Popen(
        [sys.executable, "-c", hold, dsn], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        refused = subprocess.run([sys.executable, "-c", ask, dsn], capture_output=True, text=True, check=False)
        for words in (replay, ("runs", "list")):
            line = [sys.executable, "-m", "streams.cli", *words]
            told = subprocess.run(line, capture_output=True, text=True, check=False, env=environment)
            assert told.returncode == 2
            for remedy in ("stop it meanwhile", "let both use a ClickHouse server", "embedded directory of its own"):
                assert remedy in told.stderr
        assert not [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
        holder.communicate("")
    assert "EngineHeld" in refused.stderr
    assert "is held by another process" in refused.stderr
    after = subprocess.run([sys.executable, "-c", ask, dsn], capture_output=True, text=True, check=False)
    assert (after.returncode, after.stderr) == (0, "")


def test_a_second_directory_in_one_process_is_refused_by_name(
    migrated_settings: ClickHouseSettings,  # keeps this process's engine running
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigurationError, match="use one directory"):
        connect(ClickHouseSettings(dsn=f"chdb://{tmp_path}/other"))
