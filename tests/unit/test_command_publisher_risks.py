"""`publishers list | show` over real rows in the embedded engine, and the view that they ask."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from typer.testing import CliRunner

from streams.commands import publishers
from streams.commands.publisher_risks import REASONS, RiskShown
from streams.records import Row, Table
from streams.settings import ClickHouseSettings
from streams.stages.invalid.peer_risk import Unscored
from streams.state.risk_rows import FOLDED
from tests.support.asking import asked_database
from tests.support.clickhouse_views import Database
from tests.support.rows import PANE_S, make_row

HOUR_S = PANE_S - PANE_S % 3600


@pytest.fixture
async def database(
    migrated_settings: ClickHouseSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Database]:
    async with asked_database(migrated_settings, monkeypatch) as opened:
        yield opened


def called(*words: str) -> str:
    result = CliRunner().invoke(publishers.app, words, env={"COLUMNS": "220"})
    if result.exception is not None:
        raise result.exception
    return result.output


def risk(publisher: str, score: float | None, **values: Any) -> Row:
    parts = {
        "traits": ["shared_agents", "same_minute"],
        "seen_shares": [0.31, 0.02],
        "typical_shares": [0.0312, 0.0167],
        "deviations": [6.2, 0.4],
        "log_odds": [3.47, 0.0],
    }
    usual = {"publisher_id": publisher, "score": score, "clicks": 1_234, "conversions": 5, "distinct_users": 900}
    return make_row(Table.RISKS, **{**usual, **(parts if score is not None else {}), **values})


async def test_publishers_are_listed_the_riskiest_first_with_what_weighs_most(database: Database) -> None:
    await database.fill(
        Table.RISKS,
        risk("calm", 0.018, log_odds=[0.0, 0.0]),
        risk("bad", 0.37),
        risk("small", None, unscored="few_clicks", clicks=12),
        risk("other", None, unscored="folded", publishers=70, clicks=300),
    )
    lines = called("list").splitlines()
    order = [line.split()[0] for line in lines if line.startswith(("calm", "bad", "small", "other"))]
    assert order == ["bad", "calm", "other", "small"]
    shown = "\n".join(lines)
    assert "pairs of clicks from one user agent 31% (peers 3.12%) +3.47" in shown
    assert "nothing is out of the ordinary" in shown
    assert "unverifiable: too few clicks" in shown
    assert "other (70 publishers)" in shown
    assert [line["publisher_id"] for line in json.loads(called("list", "--json", "--least", "0.1"))] == ["bad"]


async def test_the_latest_hour_stands_and_the_highest_version_within_it(database: Database) -> None:
    await database.fill(
        Table.RISKS,
        risk("p", 0.9, hour=HOUR_S - 3_600, weighed_to=PANE_S - 3_600, version=9),
        risk("p", 0.2, hour=HOUR_S, version=2),
        risk("p", 0.1, hour=HOUR_S, version=1),
        risk("p", 0.6, hour=HOUR_S, partition=3),
        risk("gone", 0.9, hour=HOUR_S - 3 * 86_400, weighed_to=PANE_S - 3 * 86_400),
    )
    listed = json.loads(called("list", "--json"))
    assert [(row["publisher_id"], row["partition"], row["score"]) for row in listed] == [("p", 3, 0.6), ("p", 0, 0.2)]
    assert "gone" in called("list", "--older")
    await database.fill(Table.RISKS, risk("p", 0.3, hour=HOUR_S - 7_200, log_epoch=1))
    assert [row["score"] for row in json.loads(called("list", "--json", "--older")) if row["partition"] == 0][-1] == 0.3


async def test_one_publisher_is_shown_with_every_part_and_its_hours(database: Database) -> None:
    await database.fill(Table.RISKS, risk("p", 0.37), risk("p", 0.018, hour=HOUR_S - 3_600, log_odds=[0.0, 0.0]))
    shown = called("show", "p")
    for text in (
        "score      0.370",
        "1,234, of them 5 converted",
        "-4.00 log-odds",
        "+6.2",
        "+3.47",
        "shared_agents +3.47",
    ):
        assert text in shown
    assert "pairs of clicks of an hour in one minute" in shown
    document = json.loads(called("show", "p", "--json"))
    assert [hour["score"] for hour in document["hours"]] == [0.37, 0.018]
    assert document["risks"][0]["traits"] == ["shared_agents", "same_minute"]
    assert "has not been weighed" in called("show", "it's")


async def test_an_unverifiable_publisher_says_why(database: Database) -> None:
    await database.fill(Table.RISKS, risk("p", None, unscored="few_peers"))
    assert "unverifiable: too few peers to compare with" in called("show", "p")


async def test_without_risks_the_list_says_what_is_needed(database: Database) -> None:
    shown = called("list")
    assert "no publisher has been weighed" in shown
    assert "publisher_id" in shown


def test_every_reason_has_words_and_every_shown_column_is_one_of_the_view() -> None:
    assert set(REASONS) == {*(reason.value for reason in Unscored), FOLDED}
    assert {"score", "traits", "deviations"} <= set(RiskShown.__struct_fields__)
