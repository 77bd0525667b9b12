"""The schema in the database: columns, keys, comments, and the migrations that make them."""

from collections.abc import Iterator
from typing import Any

import pytest

from streams.adapters.clickhouse import ClickHouseSink, connect
from streams.adapters.clickhouse_migrations import Migration, load_migrations, migrate, schema_state
from streams.adapters.clickhouse_runs import TABLES, TIMED_BY
from streams.errors import ConfigurationError
from streams.records import COLUMNS, KEY_COLUMNS, MEASURES, Table
from streams.settings import ClickHouseSettings
from tests.support.chdb_engine import new_settings
from tests.support.rows import make_row

VIEWS = {
    "all_rows",
    "campaigns",
    "campaign_totals",
    "campaign_days",
    "campaign_minutes",
    "campaign_reach",
    "campaign_cohorts",
    "campaign_pacing",
    "campaign_pacing_minutes",
    "alerts",
    "invalid_traffic",
    "invalid_reasons",
    "flags",
    "shown_flag_rows",
    "publisher_risk",
    "ledger",
    "shown_pane_rows",
    "shown_report_rows",
    "shown_cohort_rows",
}
TWINS = ("run_", "shown_")


@pytest.fixture
def client(migrated_settings: ClickHouseSettings) -> Iterator[Any]:
    opened = connect(migrated_settings)
    yield opened
    opened.close()


@pytest.fixture
def empty(chdb_settings: ClickHouseSettings) -> Iterator[Any]:
    opened = connect(chdb_settings)
    yield opened
    opened.close()


def columns(client: Any, table: str) -> list[dict[str, Any]]:
    answer = client.query(
        "SELECT name, type, default_kind, comment FROM system.columns "
        "WHERE database = currentDatabase() AND table = {table:String} ORDER BY position",
        parameters={"table": table},
    )
    return list(answer.named_results())


@pytest.mark.parametrize("table", list(Table))
def test_tables_have_the_columns_of_the_records(client: Any, table: Table) -> None:
    stored = [column["name"] for column in columns(client, table.value) if column["default_kind"] != "MATERIALIZED"]
    assert stored == list(COLUMNS[table])


@pytest.mark.parametrize("table", ["pacing_periods", "pacing_periods_from_rows"])
def test_the_latest_looks_have_all_columns_of_a_look(client: Any, table: str) -> None:
    stored = {c["name"]: c["type"] for c in columns(client, table) if c["default_kind"] != "MATERIALIZED"}
    looked = {c["name"]: c["type"] for c in columns(client, Table.PACING) if c["default_kind"] != "MATERIALIZED"}
    assert stored == looked


@pytest.mark.parametrize("table", list(Table))
def test_the_sorting_key_is_the_rows_key(client: Any, table: Table) -> None:
    key = client.command(
        "SELECT sorting_key FROM system.tables WHERE database = currentDatabase() AND name = {table:String}",
        parameters={"table": table.value},
    )
    assert sorted(key.split(", ")) == sorted(KEY_COLUMNS[table])


@pytest.mark.parametrize("table", list(Table))
def test_the_partition_is_decided_by_the_key_so_that_a_version_finds_the_one_before(client: Any, table: Table) -> None:
    key = client.command(
        "SELECT partition_key FROM system.tables WHERE database = currentDatabase() AND name = {table:String}",
        parameters={"table": table.value},
    )
    times = [name for name in ("effect_pane", "minute") if name in KEY_COLUMNS[table]]
    assert key == "".join(f"toYYYYMM({name})" for name in times)


def test_what_is_asked_for_by_campaign_is_sorted_by_campaign(client: Any) -> None:
    answer = client.query("SELECT name, primary_key FROM system.tables WHERE database = currentDatabase()")
    first = {name: key.split(", ")[0] for name, key in answer.result_rows}
    tables = [table for table in Table if "campaign_id" in KEY_COLUMNS[table]]
    assert {first[table.value] for table in tables} == {"campaign_id"}
    assert Table.PACING in tables


def test_measures_are_64_bits_and_signed(client: Any) -> None:
    types = {column["name"]: column["type"] for column in columns(client, "report_rows")}
    assert {types[measure] for measure in MEASURES} == {"Int64"}
    assert types["users"] == "Array(UInt64)"
    assert types["version"] == "UInt64"


NOT_OF_RUNS = (Table.LEDGER, Table.CAMPAIGNS, Table.RISKS)
"""The topics' own; and risks, of whose day before a run's range nothing is written."""


def test_every_table_but_those_has_a_twin_for_runs() -> None:
    assert set(TABLES) == set(TIMED_BY) == set(Table) - set(NOT_OF_RUNS)


@pytest.mark.parametrize("table", [t for t in Table if t not in NOT_OF_RUNS])
def test_rows_of_runs_have_the_columns_of_live_rows_and_the_run(client: Any, table: Table) -> None:
    live = [(c["name"], c["type"]) for c in columns(client, table) if c["default_kind"] != "MATERIALIZED"]
    assert [(c["name"], c["type"]) for c in columns(client, f"run_{table.value}")] == [("run", "String"), *live]
    if table in (Table.PANES, Table.REPORTS, Table.COHORTS):
        assert [(c["name"], c["type"]) for c in columns(client, f"shown_{table.value}")] == live


def test_every_table_view_and_column_explains_itself(client: Any) -> None:
    tables = client.query("SELECT name, engine, comment FROM system.tables WHERE database = currentDatabase()")
    named = {name: (engine, comment) for name, engine, comment in tables.result_rows}
    assert {name for name, (engine, _) in named.items() if engine == "View"} == VIEWS
    assert [name for name, (_, comment) in named.items() if not comment] == []
    own = [table for table in named if not table.startswith(TWINS)]  # a twin's columns are those of its table
    silent = [(table, c["name"]) for table in own for c in columns(client, table) if not c["comment"]]
    assert silent == []


@pytest.mark.parametrize("view", sorted(VIEWS))
def test_views_can_be_sorted_by_what_they_group_by(client: Any, view: str) -> None:
    """ClickHouse 26.9 gives up on some plans (TOO_MANY_QUERY_PLAN_OPTIMIZATIONS); the views are written round it."""
    keys = ("campaign_id", "currency", "day", "minute", "click_hour", "input", "period_start", "alert_id", "status")
    names = {column["name"] for column in columns(client, view)}
    for key in names.intersection(keys):
        client.query(f"SELECT * FROM {view} ORDER BY {key}")


def test_migrations_are_applied_once_and_in_order(empty: Any) -> None:
    known = [migration.version for migration in load_migrations()]
    assert schema_state(empty) == (0, known[-1], tuple(known))
    assert migrate(empty) == known
    assert migrate(empty) == []
    assert schema_state(empty).is_current
    rows = empty.query("SELECT version, name FROM schema_migrations FINAL ORDER BY version").result_rows
    assert rows == [(migration.version, migration.name) for migration in load_migrations()]


def test_a_migration_that_broke_off_is_repeated(empty: Any) -> None:
    migrate(empty)
    empty.command("DELETE FROM schema_migrations WHERE version > 0")
    assert migrate(empty) == [migration.version for migration in load_migrations()]


def test_migrating_keeps_rows(empty: Any) -> None:
    migrate(empty)
    empty.insert("ledger_rows", [make_row(Table.LEDGER, records=5)], column_names=list(COLUMNS[Table.LEDGER]))
    empty.command("DELETE FROM schema_migrations WHERE version > 0")
    migrate(empty)
    assert int(empty.command("SELECT sum(records) FROM ledger_rows")) == 5


def test_a_database_of_the_first_release_keeps_its_spend_and_has_given_nothing_back(empty: Any) -> None:
    known = load_migrations()
    assert migrate(empty, known[:8]) == list(range(1, 9))
    empty.command("INSERT INTO pane_rows (campaign_id, validity, spend_millimicros) VALUES ('c1', 'valid', 7000)")
    assert migrate(empty) == [migration.version for migration in known[8:]]
    answer = empty.query("SELECT gross_spend_micros, spend_micros, credited_micros FROM campaign_totals")
    assert answer.result_rows == [(7, 7, 0)]


def test_a_newer_database_is_refused(empty: Any) -> None:
    known = load_migrations()
    migrate(empty, (*known, Migration(len(known) + 1, "later", "x", ("SELECT 1",))))
    with pytest.raises(ConfigurationError, match="install the newer campaign-streams"):
        migrate(empty)


def test_a_database_made_by_other_files_is_refused(empty: Any) -> None:
    known = load_migrations()
    migrate(empty, (known[0]._replace(checksum="other"), *known[1:]))
    with pytest.raises(ConfigurationError, match="0001_tables"):
        schema_state(empty)


async def test_starting_the_sink_makes_a_missing_database_and_its_schema(
    chdb_settings: ClickHouseSettings,  # keeps the engine running
) -> None:
    settings = new_settings()
    sink = ClickHouseSink(settings)
    await sink.start()
    await sink.start()
    await sink.close()
    client = connect(settings, create_database=False)
    assert schema_state(client).is_current
    client.command(f"DROP DATABASE {client.database}")
    client.close()


async def test_a_table_that_lacks_a_column_is_named_with_its_remedy(chdb_settings: ClickHouseSettings) -> None:
    sink = ClickHouseSink(chdb_settings)
    await sink.start()
    client = connect(chdb_settings)
    client.command("ALTER TABLE pane_rows DROP COLUMN clicks_card")
    with pytest.raises(ConfigurationError, match=r"pane_rows has no clicks_card; run the migrations"):
        await sink.insert(Table.PANES, [make_row(Table.PANES)])
    client.close()
    await sink.close()
