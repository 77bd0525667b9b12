"""The sink and the reader against a server over HTTP: outages of every kind, and what comes after them."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from streams.adapters.clickhouse import ClickHouseSink, connect
from streams.adapters.clickhouse_query import ClickHouseReader, QueryLimits
from streams.errors import ConfigurationError, QueryRefused, SinkUnavailable
from streams.records import Row, Table
from streams.settings import ClickHouseSettings
from tests.support.chdb_engine import empty_tables
from tests.support.clickhouse_http import ClickHouseHttp
from tests.support.rows import make_row, stored_rows

PASSWORD = "s3cret-word"
MANY = 100
"""More than clickhouse-connect tries again by itself."""
INSERTION = "INSERT INTO `ledger_rows`"
ROW = make_row(Table.LEDGER, records=5)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseHttp]:
    with ClickHouseHttp(Path(tmp_path_factory.mktemp("clickhouse")), user="writer", password=PASSWORD) as running:
        yield running


@pytest.fixture
def server(shared: ClickHouseHttp) -> Iterator[ClickHouseHttp]:
    empty_tables(ClickHouseSettings(dsn=shared.dsn()))
    yield shared
    shared.clear()
    shared.refuse(False)


@pytest.fixture
async def sink(server: ClickHouseHttp) -> AsyncIterator[ClickHouseSink]:
    opened = ClickHouseSink(ClickHouseSettings(dsn=server.dsn(), timeout_s=20))
    await opened.start()
    yield opened
    await opened.close()


def stored(server: ClickHouseHttp) -> list[Row]:
    client = connect(ClickHouseSettings(dsn=server.dsn()))
    try:
        return stored_rows(client, Table.LEDGER)
    finally:
        client.close()


async def test_a_refused_connection_is_waited_out(server: ClickHouseHttp, sink: ClickHouseSink) -> None:
    server.refuse()
    for _ in range(2):
        with pytest.raises(SinkUnavailable, match="Connection refused"):
            await sink.insert(Table.LEDGER, [ROW])
    server.refuse(False)
    await sink.insert(Table.LEDGER, [ROW])
    assert stored(server) == [ROW]


async def test_a_connection_cut_before_execution_leaves_nothing(server: ClickHouseHttp, sink: ClickHouseSink) -> None:
    server.cut_before(MANY, INSERTION)
    with pytest.raises(SinkUnavailable):
        await sink.insert(Table.LEDGER, [ROW])
    server.clear()
    assert stored(server) == []
    await sink.insert(Table.LEDGER, [ROW])
    assert stored(server) == [ROW]


async def test_a_connection_cut_after_execution_is_harmless(server: ClickHouseHttp, sink: ClickHouseSink) -> None:
    server.cut_after(MANY, INSERTION)
    with pytest.raises(SinkUnavailable):
        await sink.insert(Table.LEDGER, [ROW])
    server.clear()
    assert stored(server) == [ROW], "it took effect"
    await sink.insert(Table.LEDGER, [ROW])
    assert stored(server) == [ROW]


async def test_an_answer_that_comes_too_late_is_harmless(server: ClickHouseHttp) -> None:
    impatient = ClickHouseSink(ClickHouseSettings(dsn=server.dsn(), timeout_s=1))
    late = len(server.executed(INSERTION)) + 2
    server.delay(4, MANY, INSERTION)
    with pytest.raises(SinkUnavailable, match="timed out"):
        await impatient.insert(Table.LEDGER, [ROW])
    server.clear()
    newer = make_row(Table.LEDGER, records=6, version=2)
    await impatient.insert(Table.LEDGER, [newer])
    await impatient.close()
    while len(server.executed(INSERTION)) < late:  # noqa: ASYNC110 - the late one takes effect in another process
        await asyncio.sleep(0.05)
    assert stored(server) == [newer]


@pytest.mark.parametrize("code", [159, 202, 209, 210, 241, 242, 252, 319, 999])
async def test_an_error_that_may_pass_is_retriable(server: ClickHouseHttp, sink: ClickHouseSink, code: int) -> None:
    server.fail(code, MANY, INSERTION)
    with pytest.raises(SinkUnavailable, match="tried again"):
        await sink.insert(Table.LEDGER, [ROW])
    server.clear()
    await sink.insert(Table.LEDGER, [ROW])
    assert stored(server) == [ROW]


@pytest.mark.parametrize(
    ("code", "remedy"), [(16, "migrations"), (60, "migrations"), (81, "migrations"), (497, "rights"), (516, "password")]
)
async def test_an_error_that_stays_names_its_remedy(
    server: ClickHouseHttp, sink: ClickHouseSink, code: int, remedy: str
) -> None:
    server.fail(code, MANY, INSERTION)
    with pytest.raises(ConfigurationError, match=remedy):
        await sink.insert(Table.LEDGER, [ROW])


async def test_no_error_shows_the_password(server: ClickHouseHttp, sink: ClickHouseSink) -> None:
    server.refuse()
    with pytest.raises(SinkUnavailable) as refused:
        await sink.insert(Table.LEDGER, [ROW])
    server.refuse(False)
    wrong = ClickHouseSink(ClickHouseSettings(dsn=server.dsn().replace(PASSWORD, "wr0ng-word")))
    with pytest.raises(ConfigurationError, match=r"writer:\*\*\*@.*check user, password") as denied:
        await wrong.start()
    await wrong.close()
    assert PASSWORD not in str(refused.value)
    assert "wr0ng-word" not in str(denied.value)


async def test_a_server_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    server = ClickHouseHttp(tmp_path).start()
    server.kill()
    sink = ClickHouseSink(ClickHouseSettings(dsn=server.dsn()))
    with pytest.raises(SinkUnavailable):
        await sink.start()
    server.start()
    await sink.start()
    await sink.insert(Table.LEDGER, [ROW])
    await sink.close()
    server.stop()


async def test_what_was_acknowledged_survives_a_kill_of_the_server(tmp_path: Path) -> None:
    with ClickHouseHttp(tmp_path) as server:
        sink = ClickHouseSink(ClickHouseSettings(dsn=server.dsn()))
        await sink.start()
        await sink.insert(Table.LEDGER, [ROW])
        server.kill()
        with pytest.raises(SinkUnavailable):
            await sink.insert(Table.LEDGER, [make_row(Table.LEDGER, records=6, version=2)])
        server.start()
        assert stored(server) == [ROW]
        await sink.insert(Table.LEDGER, [make_row(Table.LEDGER, records=7, version=3)])
        assert stored(server) == [make_row(Table.LEDGER, records=7, version=3)]
        await sink.close()


async def test_rows_are_exact_after_any_mixture_of_faults(server: ClickHouseHttp, sink: ClickHouseSink) -> None:
    chance = random.Random(11)
    expected = {}
    for version in range(1, 25):
        batch = {
            name: make_row(Table.LEDGER, input=name, records=version, version=version)
            for name in chance.sample(["clicks", "plays", "conversions", "impressions"], 2)
        }
        expected.update(batch)
        fault = chance.choice([server.cut_before, server.cut_after, None])
        if fault is not None:
            fault(chance.randrange(1, 6), INSERTION)
        while True:
            try:
                await sink.insert(Table.LEDGER, list(batch.values()))
            except SinkUnavailable:
                continue
            break
    server.clear()
    assert stored(server) == sorted(expected.values())


async def test_questions_over_http_change_nothing_and_are_limited(server: ClickHouseHttp, sink: ClickHouseSink) -> None:
    await sink.insert(Table.LEDGER, [ROW])
    reader = ClickHouseReader(ClickHouseSettings(dsn=server.dsn()))
    for sql in ("INSERT INTO ledger_rows (records) VALUES (1)", "DROP TABLE ledger_rows", "SELECT nothing", "selec"):
        with pytest.raises(QueryRefused):
            await reader.query(sql)
    answer = await reader.query("SELECT number FROM numbers(100)", QueryLimits(max_rows=2))
    assert (answer.rows, answer.truncated) == ([(0,), (1,)], True)
    assert (await reader.query("SELECT records FROM ledger_rows")).rows == [(5,)]
    server.refuse()
    with pytest.raises(SinkUnavailable):
        await reader.query("SELECT 1")
    server.refuse(False)
    assert (await reader.query("SELECT 1")).rows == [(1,)]
    await reader.close()
