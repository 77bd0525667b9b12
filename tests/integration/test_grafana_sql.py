"""Every query of the dashboards to ClickHouse, asked of the real engine over generated rows."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from streams.adapters.clickhouse import ClickHouseSink, connect
from streams.settings import ClickHouseSettings
from tests.support.chdb_engine import new_settings
from tests.support.grafana_macros import Look, expand_sql
from tests.support.grafana_panels import Query, queries
from tests.support.grafana_rows import BEGIN_S, CREATIVES, END_S, generated_rows

pytest.importorskip("chdb", reason="the embedded ClickHouse needs campaign-streams[embedded]")

CREATIVE, VARIANT, REGION, CHANNEL = CREATIVES[0]
CHOSEN = {
    "advertiser": ["adv-1", "adv-3"],
    "campaign": ["c1", "o'neill"],
    "creative": [CREATIVE],
    "variant": [VARIANT],
    "region": [REGION],
    "channel": [CHANNEL],
}
ALL = Look(BEGIN_S, END_S)
SOME = Look(BEGIN_S, END_S, interval_s=300, chosen=CHOSEN)
BEFORE = Look(BEGIN_S - 7 * 86_400, BEGIN_S - 6 * 86_400)
MAY_BE_ZERO = {"balance", "log_epoch"}
Rows = list[dict[str, Any]]


async def fill(settings: ClickHouseSettings) -> None:
    sink = ClickHouseSink(settings)
    await sink.start()
    for table, rows in generated_rows().items():
        await sink.insert(table, rows)
    await sink.close()


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """A client of a database that holds the generated rows."""
    settings = new_settings()
    found = connect(settings)
    asyncio.run(fill(settings))
    yield found
    found.command(f"DROP DATABASE {found.database}")
    found.close()


def ask(client: Any, query: Query, look: Look) -> Rows:
    answer = client.query(expand_sql(query.text, look))
    return [dict(zip(answer.column_names, row, strict=True)) for row in answer.result_rows]


def problems(client: Any, look: Look, wants_rows: bool) -> str:
    found = []
    for query in queries("sql"):
        try:
            rows = ask(client, query, look)
        except Exception as error:  # every query is tried, so that all mistakes are told at once
            found.append(f"{query.where}: {str(error)[:800]}")
            continue
        if wants_rows and not rows:
            found.append(f"{query.where}: no rows")
        for name in rows[0] if wants_rows and rows else ():
            if name not in MAY_BE_ZERO and not any(row[name] for row in rows):
                found.append(f"{query.where}: {name} is always NULL, 0 or empty")
    return "\n\n".join(found)


@pytest.mark.parametrize("look", [ALL, SOME], ids=["all", "chosen"])
def test_every_query_returns_rows_and_no_column_of_nothing(client: Any, look: Look) -> None:
    assert len(queries("sql")) > 20
    assert problems(client, look, wants_rows=True) == ""


def test_a_range_without_traffic_is_no_mistake(client: Any) -> None:
    assert problems(client, BEFORE, wants_rows=False) == ""
