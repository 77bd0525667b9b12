"""Every query of the dashboards to ClickHouse, asked of the real engine over generated rows."""

import asyncio
from collections.abc import Iterator
from datetime import UTC
from typing import Any

import pytest

from grafana.places import OF_KIND
from streams.adapters.clickhouse import ClickHouseSink, connect
from streams.adapters.clickhouse_runs import ClickHouseRuns, RunInfo
from streams.jobs.replay_compare import compare
from streams.settings import ClickHouseSettings
from streams.stages.rates import wilson
from tests.support.chdb_engine import engine_directory, new_settings
from tests.support.grafana_macros import Look, expand_sql
from tests.support.grafana_panels import Query, queries
from tests.support.grafana_rows import BEGIN_S, CAMPAIGNS, CREATIVES, END_S, MINUTES, WHAT_IF, generated_rows, run_rows

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
RUN = {"run": [WHAT_IF]}
ALL = Look(BEGIN_S, END_S, chosen=RUN)
SOME = Look(BEGIN_S, END_S, interval_s=300, chosen=CHOSEN | RUN)
BEFORE = Look(BEGIN_S - 7 * 86_400, BEGIN_S - 6 * 86_400, chosen=RUN)
MAY_BE_ZERO = {"balance", "log_epoch", "note"}
Rows = list[dict[str, Any]]


async def fill(settings: ClickHouseSettings) -> None:
    sink = ClickHouseSink(settings)
    await sink.start()
    for table, rows in generated_rows().items():
        await sink.insert(table, rows)
    await sink.close()
    fill_runs(settings)


def fill_runs(settings: ClickHouseSettings) -> None:
    """A what-if beside the live rows, and an identical run that is published in their place."""
    runs = ClickHouseRuns(settings)
    runs.open()
    now_ms = 1_000 * END_S
    for run, kind, minutes in ((WHAT_IF, "what_if", MINUTES), ("again", "identical", MINUTES // 4)):
        info = RunInfo(run, kind, "done", BEGIN_S, BEGIN_S + 60 * minutes, created_s=END_S, changed_ms=now_ms)
        for table, rows in run_rows(run).items():
            runs.insert(run, table, rows)
        runs.tell(info._replace(records=1_000, lost=1, rules="f00d", campaigns=tuple(CAMPAIGNS), note="for a test"))
    runs.publish(info, "ana", now_ms)
    runs.close()


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
        if wants_rows and rows:
            empty = [name for name in rows[0].keys() - MAY_BE_ZERO if not any(row[name] for row in rows)]
            found += [f"{query.where}: {name} is always NULL, 0 or empty" for name in empty]
    return "\n\n".join(found)


@pytest.mark.parametrize("look", [ALL, SOME], ids=["all", "chosen"])
def test_every_query_returns_rows_and_no_column_of_nothing(client: Any, look: Look) -> None:
    assert len(queries("sql")) > 20
    assert problems(client, look, wants_rows=True) == ""


def test_a_range_without_traffic_is_no_mistake(client: Any) -> None:
    assert problems(client, BEFORE, wants_rows=False) == ""


# What panels show is what the views say


def panel(title: str) -> Query:
    (found,) = [
        query for query in queries("sql") if query.where.startswith("campaign-streams-") and title in query.where
    ]
    return found


def test_the_campaigns_of_a_panel_are_those_of_the_view(client: Any) -> None:
    shown = {row["campaign_id"]: row for row in ask(client, panel("campaigns/13 Campaigns"), ALL)}
    answer = client.query("SELECT * FROM campaign_totals")
    totals = [dict(zip(answer.column_names, row, strict=True)) for row in answer.result_rows]
    assert {row["campaign_id"] for row in totals} == shown.keys()
    for row in totals:
        found = shown[row["campaign_id"]]
        for name in ("impressions", "clicks", "conversions", "currency", "ctr", "ctr_low", "ctr_high", "cvr_high"):
            assert found[name] == row[name], name
        assert found["spend"] == pytest.approx(row["spend_micros"] / 1e6)


def test_the_interval_of_a_panel_is_wilsons(client: Any) -> None:
    (row,) = ask(client, panel("campaigns/4 CTR"), ALL)
    (counts,) = ask(client, panel("campaigns/9 Funnel"), ALL)
    rate = wilson(counts["6 clicks"], counts["1 impressions"])
    assert rate is not None
    assert tuple(row.values()) == pytest.approx((rate.value, rate.low, rate.high))


def test_classes_of_a_panel_add_up_to_gross(client: Any) -> None:
    for row in ask(client, panel("invalid/12 Campaigns"), ALL):
        assert row["gross"] == row["valid"] + row["givt"] + row["sivt"]
        assert row["invalid"] == pytest.approx(1 - row["valid"] / row["gross"])


def test_movers_are_measured_between_the_halves_of_the_range(client: Any) -> None:
    for row in ask(client, panel("Top movers"), ALL):
        assert row["ctr_before"] == pytest.approx(0.02, rel=0.2)
        assert row["ctr_now"] == pytest.approx(0.03, rel=0.2)
        assert row["z"] > 3


def test_an_alert_is_linked_to_its_panel_and_its_time(client: Any) -> None:
    rows = ask(client, panel("campaigns/18 Alerts"), ALL)
    assert {row["kind"] for row in rows} == {"ctr_anomaly", "under_delivery"}
    for row in rows:
        assert (row["panel_uid"], row["panel_id"]) == OF_KIND[row["kind"]]
        assert row["link_from"] == int(row["began"].replace(tzinfo=UTC).timestamp() - 3_600) * 1_000
        assert row["link_to"] > row["link_from"] + 3_600_000


def test_a_run_is_compared_with_the_live_rows_as_the_command_does(client: Any) -> None:
    runs = ClickHouseRuns(ClickHouseSettings(dsn=f"chdb://{engine_directory()}?database={client.database}"))  # type: ignore[arg-type]
    runs.open()
    told = compare(runs, runs.find(WHAT_IF))
    runs.close()
    shown = {row["campaign_id"]: row for row in ask(client, panel("replays/5 Campaigns"), ALL)}
    assert {each.campaign_id for each in told} == shown.keys()
    for each in told:
        row = shown[each.campaign_id]
        assert (row["live_clicks"], row["run_clicks"]) == (each.before.clicks, each.after.clicks)
        assert row["live_clicks"] > row["run_clicks"]
        assert row["difference"] == pytest.approx(each.money_micros / 1e6)
    (differ,) = ask(client, panel("replays/2 "), ALL)
    assert differ["campaigns"] == len(told)


def test_an_identical_run_does_not_differ(client: Any) -> None:
    (differ,) = ask(client, panel("replays/2 "), Look(BEGIN_S, END_S, chosen={"run": ["again"]}))
    assert differ["campaigns"] == 0


def test_a_table_that_does_not_exist_would_be_found(client: Any) -> None:
    with pytest.raises(Exception, match="no_such_rows"):
        ask(client, Query("nowhere", "sql", "SELECT 1 FROM no_such_rows"), ALL)
