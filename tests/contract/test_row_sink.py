"""What every `RowSink` promises: in memory, the embedded engine, and a server over HTTP."""

import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from streams.adapters.clickhouse import ClickHouseSink, connect
from streams.adapters.memory_sink import Fault, MemorySink
from streams.blocks import MEASURED
from streams.errors import SinkUnavailable
from streams.ports import RowSink
from streams.records import COLUMNS, KEY_COLUMNS, Row, Table
from streams.settings import ClickHouseSettings
from tests.support.chdb_engine import empty_tables
from tests.support.clickhouse_http import ClickHouseHttp
from tests.support.rows import PANE_S, make_blocks, make_row, stored_rows

MAX_ROWS = 12_000
"""Rows of one statement."""


class Subject(NamedTuple):
    """A sink, and a way to see what a reader sees."""

    sink: RowSink
    rows: Callable[[Table], list[Row]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseHttp]:
    with ClickHouseHttp(Path(tmp_path_factory.mktemp("clickhouse"))) as running:
        yield running


@pytest.fixture(params=["memory", "chdb", "http"])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    if request.param == "memory":
        memory = MemorySink()
        yield Subject(memory, memory.rows)
        return
    if request.param == "chdb":
        settings = request.getfixturevalue("migrated_settings")
    else:
        settings = ClickHouseSettings(dsn=request.getfixturevalue("server").dsn())
        empty_tables(settings)
    settings = settings.model_copy(update={"max_rows_per_insert": MAX_ROWS})
    sink = ClickHouseSink(settings)
    await sink.start()
    client = connect(settings)
    yield Subject(sink, lambda table: stored_rows(client, table))
    client.close()
    await sink.close()


VALUES: dict[Table, dict[str, Any]] = {
    Table.PANES: {"impressions": 7, "spend_millimicros": -(10**15), "duplicates": 1},
    Table.REPORTS: {"impressions": 7, "users": [0, 5, 2**64 - 1], "region": "CN-31"},
    Table.COHORTS: {"conversions": 3, "conversion_value_micros": 10**15, "age_bucket_ms": 30 * 86_400_000},
    Table.LEDGER: {"records": 2**40, "entry": "rejected", "reason": "too_deep"},
    Table.CAMPAIGNS: {"name": "Frühling 春", "settings": '{"a": "\\"\\n"}', "valid_from": 1_790_000_000_123},
    Table.PACING: {
        "budget_micros": 10**15,
        "spend_micros": -(10**15),
        "rate_ppm": 1,
        "reason": "behind",
        "forecast_micros": 10**15,
        "forecast_low_micros": 0,
        "exhausts_at": PANE_S + 7,
    },
    Table.FLAGS: {"event_id": "点", "evidence": '{"pattern":"bot"}', "cost_millimicros": -(10**15)},
    Table.RISKS: {
        "score": 0.25,
        "traits": ["same_minute", "shared_users"],
        **{name: [0.5, 1e-9] for name in ("seen_shares", "typical_shares", "deviations", "log_odds")},
    },
    Table.ALERTS: {"is_pushed": False, "seen": 0.1, "text_en": "“c1” has stalled.", "text_zh": "投放停滞。"},
}


@pytest.mark.parametrize("table", list(Table))
async def test_a_row_comes_back_as_it_was_inserted(subject: Subject, table: Table) -> None:
    row = make_row(table, **VALUES[table], version=2**63 + 5)
    await subject.sink.insert(table, [row])
    assert subject.rows(table) == [row]


@pytest.mark.parametrize("table", list(Table))
async def test_inserting_twice_is_harmless(subject: Subject, table: Table) -> None:
    row = make_row(table, **VALUES[table])
    await subject.sink.insert(table, [row])
    await subject.sink.insert(table, [row])
    assert subject.rows(table) == [row]


MEASURE = {
    Table.PANES: "impressions",
    Table.REPORTS: "impressions",
    Table.COHORTS: "conversions",
    Table.LEDGER: "records",
    Table.CAMPAIGNS: "name",
    Table.PACING: "spend_micros",
    Table.ALERTS: "seen",
    Table.FLAGS: "cost_millimicros",
    Table.RISKS: "clicks",
}
"""What changes from version to version."""


@pytest.mark.parametrize("table", list(Table))
async def test_the_highest_version_wins_whatever_the_order(subject: Subject, table: Table) -> None:
    kind = str if table is Table.CAMPAIGNS else int
    rows = [make_row(table, **{MEASURE[table]: kind(10 * version)}, version=version) for version in (1, 2, 3)]
    for row in (rows[1], rows[2], rows[0]):
        await subject.sink.insert(table, [row])
    assert subject.rows(table) == [rows[2]]


async def test_the_highest_version_wins_within_one_insertion(subject: Subject) -> None:
    rows = [make_row(Table.PANES, impressions=10 * version, version=version) for version in (3, 1, 2)]
    await subject.sink.insert(Table.PANES, rows)
    assert subject.rows(Table.PANES) == [rows[0]]


async def test_a_measure_that_falls_back_to_zero_is_zero(subject: Subject) -> None:
    await subject.sink.insert(Table.PANES, [make_row(Table.PANES, impressions=5, version=1)])
    await subject.sink.insert(Table.PANES, [make_row(Table.PANES, impressions=0, version=2)])
    assert subject.rows(Table.PANES) == [make_row(Table.PANES, impressions=0, version=2)]


@pytest.mark.parametrize("table", sorted(MEASURED))
async def test_blocks_come_back_as_rows(subject: Subject, table: Table) -> None:
    rows = [
        make_row(table, **VALUES[table], version=2**63 + 5),
        make_row(table, input="clicks", clicks=3, campaign_id="c2", variant="x=a"),
        make_row(table, input="journal", credited_millimicros=-(10**15), validity="givt", effect_pane=PANE_S + 60),
    ]
    await subject.sink.insert(table, make_blocks(*rows, table=table))
    found = [tuple(list(value) if value == () else value for value in row) for row in subject.rows(table)]
    assert sorted(found) == sorted(rows)


def _other(name: str, value: Any) -> Any:
    if name == "input":
        return "clicks"
    return f"{value}x" if isinstance(value, str) else value + 3_600


@pytest.mark.parametrize("table", list(Table))
async def test_rows_that_differ_in_one_key_column_stay_apart(subject: Subject, table: Table) -> None:
    base = make_row(table)
    values = dict(zip(COLUMNS[table], base, strict=True))
    others = [make_row(table, **{name: _other(name, values[name])}) for name in KEY_COLUMNS[table]]
    await subject.sink.insert(table, [base, *others])
    key = [COLUMNS[table].index(name) for name in KEY_COLUMNS[table]]
    assert subject.rows(table) == sorted([base, *others], key=lambda row: [row[at] for at in key])


@pytest.mark.parametrize("table", [Table.PACING, Table.ALERTS, Table.RISKS])
async def test_rows_with_and_without_a_number_share_one_insertion(subject: Subject, table: Table) -> None:
    names, key = {
        Table.PACING: (("forecast_micros", "exhausts_at"), "campaign_id"),
        Table.ALERTS: (("seen", "expected"), "alert_id"),
        Table.RISKS: (("score",), "publisher_id"),
    }[table]
    rows = [make_row(table, **{key: f"x{at}"}, **dict.fromkeys(names, value)) for at, value in enumerate((None, 7))]
    await subject.sink.insert(table, rows)
    assert subject.rows(table) == rows


async def test_an_empty_insertion_changes_nothing(subject: Subject) -> None:
    await subject.sink.insert(Table.PANES, [])
    assert subject.rows(Table.PANES) == []


async def test_an_insertion_larger_than_one_statement_is_whole(subject: Subject) -> None:
    rows = [make_row(Table.PANES, origin_pane=PANE_S + 10 * at, impressions=at + 1) for at in range(MAX_ROWS + 321)]
    await subject.sink.insert(Table.PANES, rows)
    assert subject.rows(Table.PANES) == rows


async def test_a_statement_of_many_blocks_is_whole(subject: Subject) -> None:
    """clickhouse-connect sends a block for about every 2 MiB."""
    text = "x" * 500
    rows = [make_row(Table.CAMPAIGNS, campaign_id=f"c{at:05}", settings=f"{at} {text}") for at in range(12_000)]
    await subject.sink.insert(Table.CAMPAIGNS, rows)
    assert subject.rows(Table.CAMPAIGNS) == rows


async def test_rows_of_all_inputs_and_of_the_journal_share_one_insertion(subject: Subject) -> None:
    rows = [
        make_row(Table.PANES, input="adjustments", refunds=1, adjusted_micros=-5),
        make_row(Table.PANES, input="clicks", clicks=2, clicks_card=2, late=3),
        make_row(Table.PANES, input="conversions", conversions=4, attributed_weight_ppm=500_000),
        make_row(Table.PANES, input="engagements", likes=6),
        make_row(Table.PANES, input="impressions", impressions=8, measured_impressions=9),
        make_row(Table.PANES, input="journal", clicks=-1, impressions=-2, spend_millimicros=-3),
        make_row(Table.PANES, input="plays", plays_started=10, watched_ms=11),
    ]
    await subject.sink.insert(Table.PANES, rows[:5])
    await subject.sink.insert(Table.PANES, rows[5:])
    assert subject.rows(Table.PANES) == rows


async def test_effect_panes_of_many_years_share_one_insertion(subject: Subject) -> None:
    month_s = 32 * 86_400
    rows = [make_row(Table.PANES, effect_pane=PANE_S - month_s * back, impressions=1) for back in range(150, 0, -1)]
    await subject.sink.insert(Table.PANES, rows)
    assert subject.rows(Table.PANES) == rows


@pytest.mark.parametrize(
    ("fault", "expected"), [(Fault.REFUSED, [0, 0]), (Fault.PARTIAL, [1, 0]), (Fault.UNANSWERED, [1, 1])]
)
async def test_the_sink_in_memory_fails_as_told_and_then_recovers(fault: Fault, expected: list[int]) -> None:
    sink = MemorySink()
    rows = [make_row(Table.PANES, campaign_id=name, impressions=1) for name in ("c1", "c2")]
    sink.faults.append(fault)
    with pytest.raises(SinkUnavailable):
        await sink.insert(Table.PANES, rows)
    seen = {row[COLUMNS[Table.PANES].index("campaign_id")] for row in sink.rows(Table.PANES)}
    assert [int(name in seen) for name in ("c1", "c2")] == expected
    await sink.insert(Table.PANES, rows)
    assert sink.rows(Table.PANES) == rows
    assert sink.insertions == 2


async def test_a_sink_that_was_not_started_connects_by_itself_and_says_what_is_missing(
    chdb_settings: ClickHouseSettings,
) -> None:
    sink = ClickHouseSink(chdb_settings)
    with pytest.raises(Exception, match="migrations"):
        await sink.insert(Table.PANES, [make_row(Table.PANES)])
    await sink.start()
    await sink.insert(Table.PANES, [make_row(Table.PANES)])
    await sink.close()


def test_a_process_that_inserts_does_not_import_pandas(tmp_path: Path) -> None:
    """It comes with chdb, and takes 0.3 s and 43 MB."""
    insert = (
        "import sys; from streams.adapters.clickhouse import connect; from streams.settings import ClickHouseSettings\n"
        "client = connect(ClickHouseSettings(dsn=sys.argv[1]))\n"
        "client.command('CREATE TABLE told (number Int64) ENGINE = Memory')\n"
        "client.insert('told', [[7]], ['number'])\n"
        "print(client.query('SELECT * FROM told').result_rows, 'pandas' in sys.modules)"
    )
    line = [sys.executable, "-c", insert, f"chdb://{tmp_path}/clickhouse"]
    told = subprocess.run(line, capture_output=True, text=True, check=True)
    assert told.stdout == "[(7,)] False\n"
